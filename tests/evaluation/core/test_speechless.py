"""Silence, noise, nothing and a constant in place of outputs: counted, and never an improvement."""

import dataclasses
from functools import partial

import numpy as np
import pytest

from csm.evaluation.core.clips import Clip, ClipSet, ClipSets
from csm.evaluation.core.runner import RunnerOptions, run_metrics
from csm.evaluation.core.speechless import is_silent, is_steady, speechless_failed
from csm.evaluation.subjects.run import RunOptions, run_metric_rows, run_sets
from csm.evaluation.subjects.speech_folder import read_speech_folder

QUICK = ("speaker", "prosody", "PESQ-WB", "STOI", "log-mel distance")
QUICK += ("turn taking", "latency", "length")


def noise(waveform):
    level = np.sqrt((waveform**2).mean())
    return level * np.random.default_rng(1).standard_normal(waveform.shape).astype(np.float32)


REPLACED = {
    "silence": np.zeros_like,
    "constant": lambda waveform: np.full_like(waveform, 0.3),
    "noise": noise,
    "nothing": lambda waveform: None,
}


@pytest.fixture
def evaluated(run_folder, small_corpus, monkeypatch):
    """Measures a dialogue and its turns in the quick metrics of a run."""
    for module in ("parselmouth", "silero_vad", "resemblyzer", "pesq", "pystoi"):
        pytest.importorskip(module)
    training = [dataclasses.replace(one, split="train") for one in small_corpus.conversations]
    corpus = dataclasses.replace(small_corpus, conversations=tuple(training))
    rows = run_metric_rows(RunOptions(run=run_folder), corpus)
    metrics = {name: rows[name]() for name in QUICK}  # evaluators are loaded once
    rows = {name: partial(metrics.get, name) for name in QUICK}
    sets = run_sets(read_speech_folder(run_folder / "speech"))
    sets = ClipSets(sets=tuple(shared(one) for one in sets if one.kind != "lines"))

    def evaluate(given):
        results = run_metrics(rows, given, RunnerOptions(repeats=2, workers=1))
        return {(entry.name, entry.group, entry.condition): entry for entry in results.entries}

    return sets, evaluate


def shared(clips):
    """The set with its dialogue recorded together."""
    facts = {"shared_recording": True}
    if clips.kind == "turns":
        return clips
    return dataclasses.replace(
        clips, clips=tuple(dataclasses.replace(clip, facts=facts) for clip in clips.clips)
    )


def replaced(sets, how, *, every):
    """The sets with every output, or the first of each set, replaced."""

    def output(clip):
        waveform = REPLACED[how](clip.waveform)
        return dataclasses.replace(clip, waveform=waveform, reason=None if waveform is not None else "none")

    def changed(clips):
        if clips.condition == "recording":
            return clips
        number = len(clips.clips) if every else 1
        kept = clips.clips[number:]
        return dataclasses.replace(clips, clips=(*map(output, clips.clips[:number]), *kept))

    return ClipSets(sets=tuple(map(changed, sets)))


def badness(entry, recording):
    """The mean, larger for worse; infinite where there is none."""
    if entry.mean is None:
        return np.inf
    if entry.direction == "nearer_to_recording":
        return abs(entry.mean - (1.0 if recording is None else recording.mean))  # 1: a length ratio
    return entry.mean if entry.direction == "lower" else -entry.mean


def compared(before, entry, found):
    """Yields what is wrong with an entry of the sets with replaced outputs."""
    recording = before.get((entry.name, entry.group, "recording"))
    if found is None:
        yield "disappears"
        return
    if not found.n_ok + found.n_failed == found.n_in == entry.n_in:
        yield "not every output is counted", found.n_ok, found.n_failed, found.n_in, entry.n_in
    if badness(found, recording) < badness(entry, recording) - 1e-9:
        yield "improves", entry.mean, found.mean
    if found.n_failed <= entry.n_failed:
        yield "no failure is counted", found.n_failed
    if found.n_ok == 0 and found.mean != found.worst:
        yield "not at the worst value", found.mean


def test_no_metric_improves_when_outputs_are_silence_noise_nothing_or_a_constant(evaluated):
    sets, evaluate = evaluated
    before = evaluate(sets)
    assert {name for name, _, _ in before} >= {"fto", "speaker_similarity", "length_ratio", "stoi"}
    faults = []
    for how in REPLACED:
        for every in (True, False) if how == "silence" else (True,):
            after = evaluate(replaced(sets, how, every=every))
            outputs = {key: entry for key, entry in before.items() if key[2] != "recording"}
            for key, entry in outputs.items():
                faults += [(how, every, key, fault) for fault in compared(before, entry, after.get(key))]
    assert faults == []


def test_silence_is_what_makes_no_sound():
    tone = np.sin(np.arange(8000) / 5.0).astype(np.float32)
    for quiet in (np.zeros(8000, np.float32), np.full(8000, 0.5, np.float32), 0.0003 * tone):
        assert is_silent(quiet, 16000)
    click = np.zeros(8000, np.float32)
    click[4000:4160] = 0.1 * tone[:160]
    for loud in (tone, 0.01 * tone + 0.4, click, np.full(10, np.nan, np.float32)):
        assert not is_silent(loud, 16000)


def test_noise_and_tones_are_steady_and_speech_is_not(real_clips):
    generator = np.random.default_rng(0)
    white = generator.standard_normal(16000).astype(np.float32)
    brown = np.convolve(white, np.exp(-np.arange(200) / 20.0), mode="valid").astype(np.float32)
    for steady in (white, 0.01 * white, brown, np.sin(np.arange(8000) / 5.0)):
        assert is_steady(steady, 16000)
    for clip in (*real_clips["JOE"], *real_clips["FAYE"]):
        assert not is_steady(clip.waveform, clip.sample_rate), clip.id
    assert not is_steady(white[:1600], 16000)  # too short to tell


def test_a_silent_clip_keeps_its_place_with_a_reason_and_a_silent_channel_is_named():
    tone = np.sin(np.arange(1600) / 5.0).astype(np.float32)  # too short to be called steady
    waveforms = (tone, 0 * tone, np.stack([tone, 0 * tone]), np.zeros((2, 1600), np.float32), None)
    clips = tuple(Clip(id=str(number), waveform=one) for number, one in enumerate(waveforms))
    (found,) = speechless_failed(ClipSets(sets=(ClipSet(group="g", condition="c", clips=clips),)))
    reasons = [clip.reason for clip in found.clips]
    assert reasons == [None, "the audio is silent", "channel 1 is silent", "channel 0 is silent", None]
    assert [clip.waveform is None for clip in found.clips] == [False, True, True, True, True]
