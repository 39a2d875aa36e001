"""A small random talker with voices of JOE and FAYE, and a corpus of theirs with ANN, who is unseen."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import soundfile
import torch

from csm.data.manifest import CORPUS_NAME, MANIFEST_NAME, Conversation, Corpus, Turn, write_manifest
from csm.evaluation.core.clips import ClipSet, ClipSets
from csm.evaluation.core.evaluators import EvaluatorUnavailable
from csm.evaluation.core.runner import RunnerOptions, measure_metric
from csm.evaluation.subjects.voice_lines import CONVERSATION, MAIN, choose_lines
from csm.evaluation.systems.conditions import recordings
from csm.generation.sampling import SamplingConfig
from csm.generation.talker import Talker
from csm.generation.voices import Voice
from tests.small_tokenizer import small_tokenizer

RATE = 8000
PITCH = {"JOE": 110.0, "FAYE": 220.0, "ANN": 330.0}


def small_talker(tiny_model, **changes) -> Talker:
    """Six codebooks, of which the model speaks five; lines of at most 0.8 s."""
    torch.manual_seed(0)
    tokenizer = small_tokenizer(RATE)
    voices = {
        name: Voice(name, number, torch.eye(8)[number : number + 1], torch.eye(4)[number : number + 1])
        for number, name in enumerate(("JOE", "FAYE"))
    }
    talker = Talker(
        model=tiny_model(max_context=320),
        tokenizer=tokenizer,
        voices=voices,
        sampling=SamplingConfig(max_seconds=0.8, seed=3),
    )
    return dataclasses.replace(talker, **changes)


def small_corpus_of(root: Path) -> Corpus:
    """Tones of 1.6 s and more: a conversation to train on, one of known voices, one with ANN."""
    conversations = [
        _conversation(root, "train", "train", ["JOE", "FAYE", "JOE", "FAYE", "JOE"]),
        _conversation(root, "t0", "test", ["JOE", "FAYE"] * 4),
        _conversation(root, "t1", "test", ["JOE", "ANN", "JOE", "ANN", "ANN", "ANN"]),
    ]
    write_manifest(root / MANIFEST_NAME, conversations)
    info = {"name": "small"}
    (root / CORPUS_NAME).write_text(json.dumps(info), encoding="utf-8")
    return Corpus(root=root, conversations=tuple(conversations), info=info)


def _conversation(root: Path, name: str, split: str, speakers: list[str]) -> Conversation:
    turns = []
    for index, speaker in enumerate(speakers):
        seconds = 1.6 + 0.1 * (index % 3)
        time = np.arange(round(seconds * RATE)) / RATE
        path = f"{name}_{index}.wav"
        tone = 0.3 * np.sin(2 * np.pi * PITCH[speaker] * time) * (1 + np.sin(20 * time)) / 2
        soundfile.write(root / path, tone.astype(np.float32), RATE)
        turns.append(
            Turn(
                id=f"{name}_{index}",
                conversation=name,
                index=index,
                speaker=speaker,
                text=f"You and whose {'navy' if index % 2 else 'army'}?",
                audio=path,
                end=seconds,
            )
        )
    return Conversation(id=name, split=split, turns=tuple(turns))


class PitchEncoder:
    """Stands for a speaker encoder: a clip's embedding is its spectrum in a few bands."""

    evaluator = "bands"

    def embed(self, waveform):
        power = np.abs(np.fft.rfft(waveform, 16000))[60:400]
        bands = power.reshape(34, 10).sum(axis=1) + 1e-9
        return bands / np.linalg.norm(bands)


class ConstantRecogniser:
    """Stands for a recogniser that returns the same words for every clip."""

    evaluator = "constant"

    def __init__(self, model=None):
        pass

    def transcribe(self, waveform, sample_rate):
        return "you and whose army"


class NotInstalled:
    """Stands for an evaluator that is not installed."""

    def __init__(self, *_):
        raise EvaluatorUnavailable("distillMOS needs distillmos: pip install 'csm-speech[eval]'")


def cheap_evaluators(monkeypatch) -> None:
    """Puts those in place of the real evaluators."""
    monkeypatch.setattr("csm.evaluation.metrics.similarity.SpeakerEncoder", PitchEncoder)
    monkeypatch.setattr("csm.evaluation.metrics.words.WhisperRecogniser", ConstantRecogniser)
    monkeypatch.setattr("csm.evaluation.metrics.naturalness.DistillMos", NotInstalled)


def small_sets(corpus: Corpus, conditions=("in_context", "semantic_codebooks")) -> ClipSets:
    """Recordings stand for every condition; generated lines are a tenth longer, with a timing of 0.3 s."""
    chosen = choose_lines(corpus, ["JOE", "FAYE"], 3)
    sets = []
    for group, lines in {**chosen.groups, CONVERSATION: chosen.conversation}.items():
        kind = "turns" if group == CONVERSATION else "lines"
        recorded = recordings(corpus, [line.turn for line in lines]).clips
        clips = tuple(
            dataclasses.replace(clip, id=line.id, turn=place)
            for place, (clip, line) in enumerate(zip(recorded, lines, strict=True))
        )
        generated = tuple(map(longer, clips))
        sets += [
            ClipSet(group=group, condition=name, clips=clips, kind=kind)
            for name in ("recording", "resynthesis")
        ]
        sets += [
            ClipSet(group=group, condition=name, clips=generated, kind=kind, generated=True)
            for name in ("generated", *(conditions if group == MAIN else ()))
        ]
    return ClipSets(sets=tuple(sets))


def longer(clip):
    """The clip, a tenth longer, with what a talker records of a line."""
    clip = dataclasses.replace(clip, waveform=np.resize(clip.waveform, len(clip.waveform) * 11 // 10))
    timing = {"first_audio_s": 0.2, "first_sound_s": 0.3}
    timing |= {"generation_s": clip.duration / 2, "audio_s": clip.duration}
    facts = {"timing": timing, "cut_off": False, "remembered": 0, "hardware": "a machine"}
    return dataclasses.replace(clip, facts=facts)


def changed(sets: ClipSets, place: int, **changes) -> ClipSets:
    """The sets with one of them changed."""
    own = list(sets.sets)
    own[place] = dataclasses.replace(own[place], **changes)
    return dataclasses.replace(sets, sets=tuple(own))


def measured(metric, sets: ClipSets, repeats: int = 20) -> dict:
    """Entries of a metric by name, group and condition."""
    entries = measure_metric(metric, sets, RunnerOptions(repeats=repeats))
    return {(entry.name, entry.group, entry.condition): entry for entry in entries}
