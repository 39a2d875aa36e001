"""Evaluation of a voice: speaks held-out lines in all conditions, measures all clips and reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from csm.data.manifest import Corpus, Turn, read_corpus
from csm.evaluation.core.clips import ClipSets
from csm.evaluation.core.metric import Metric
from csm.evaluation.core.report import Missing, Report, refuse_other_report, save_report
from csm.evaluation.core.runner import RunnerOptions, Say, run_metrics, silent
from csm.evaluation.metrics.hearing import Hearing
from csm.evaluation.metrics.latency import StreamTimes
from csm.evaluation.metrics.lengths import Lengths
from csm.evaluation.metrics.naturalness import Naturalness
from csm.evaluation.metrics.similarity import SpeakerSimilarity
from csm.evaluation.metrics.words import Intelligibility
from csm.evaluation.subjects.voice_changes import changes
from csm.evaluation.subjects.voice_folder import GeneratedSpeech, origin_of
from csm.evaluation.subjects.voice_lines import CONVERSATION, MAIN, ChosenLines, choose_lines
from csm.evaluation.subjects.voice_sets import voice_sets
from csm.evaluation.subjects.voice_speech import (
    GENERATED,
    IN_CONTEXT,
    INT8,
    SEMANTIC,
    LineSpeaker,
    conditions_of,
    speak_all,
)
from csm.evaluation.systems.ablations import NOTE
from csm.generation.talker import Talker
from csm.system.log import progress
from csm.system.threads import one_thread

KIND = "voice"
SPEECH_FOLDER = "speech"
REFERENCES = 20  # train recordings of a speaker for the mean voice; one more changes it by little


@dataclass(frozen=True, kw_only=True)
class VoiceOptions:
    """How a voice is evaluated.

    Attributes:
        voice: Folder of the voice.
        corpus: Folder of the corpus whose held-out lines are spoken.
        output: Folder of the report and of the generated speech.
        lines: Most lines of a group.
        ablations: Whether the main voice's lines are also spoken in context, and with parts switched off.
        int8: Whether they are also spoken with int8 weights.
        asr: faster-whisper model name or folder; None for the packaged tiny.en.
        players: Most lines of a group with a player on the page.
        runner: Seed, bootstrap and workers.
    """

    voice: Path = Path()
    corpus: Path = Path()
    output: Path = Path()
    lines: int = 60
    ablations: bool = True
    int8: bool = False
    asr: str | None = None
    players: int = 12
    runner: RunnerOptions = field(default_factory=RunnerOptions)

    def __post_init__(self) -> None:
        if self.lines < 1:
            raise ValueError(f"lines is {self.lines}: expected 1 or more")
        if self.players < 0:
            raise ValueError(f"players is {self.players}: expected 0 or more")


class EvaluatedVoice(NamedTuple):
    """Result of an evaluation: the report, and for the page the clips and the prompts of unseen speakers."""

    report: Report
    sets: ClipSets
    prompts: Mapping[str, tuple[Turn, ...]]


def evaluate_voice(options: VoiceOptions, say: Say = silent) -> EvaluatedVoice:
    """Evaluates the voice of a folder and writes report.json into the output folder.

    Raises:
        ValueError: A folder cannot be read, the output holds another report, or see `measure_voice`.
    """
    refuse_other_report(options.output, KIND)
    corpus = read_corpus(options.corpus).held()
    talker = Talker.from_pretrained(options.voice)
    evaluated = measure_voice(
        talker, corpus, options.output, options, name=options.voice.resolve().name, say=say
    )
    save_report(options.output, evaluated.report)
    return evaluated


def measure_voice(
    talker: Talker,
    corpus: Corpus,
    folder: Path,
    options: VoiceOptions,
    *,
    name: str = "voice",
    say: Say = silent,
) -> EvaluatedVoice:
    """Speaks what is not in the folder yet, and measures all clips.

    Args:
        talker: Talker on the CPU.
        corpus: Corpus whose held-out lines are spoken.
        folder: Folder of the evaluation; generated lines are kept in its folder "speech".
        options: How to evaluate; its folders are not read.
        name: Name of the voice in the report.
        say: Receives one short line as each step ends.

    Returns:
        The report and the clips. The same speech, options and machine give the same report.

    Raises:
        ValueError: The corpus has no line of the main voice, or the folder holds speech of other weights or
            settings.
    """
    chosen = choose_lines(corpus, list(talker.voices), options.lines)
    seed = options.runner.seed
    with one_thread():  # sums of several threads are not added in a fixed order
        kept = GeneratedSpeech(folder / SPEECH_FOLDER, origin_of(talker, corpus, options.lines, seed))
        conditions, absent = _speak(talker, corpus, chosen, kept, options)
        say("all lines are spoken")
        groups = len(chosen.groups) + bool(chosen.conversation)
        with progress("resynthesise", groups, unit="group") as bar:
            sets = voice_sets(talker, corpus, chosen, kept, conditions, bar.update)
        say("recordings resynthesised")
    rows = voice_metric_rows(options, corpus, talker, chosen.prompts)
    results = run_metrics(rows, sets, options.runner, say)
    results.missing += [Missing(reason.split(":")[0], reason) for reason in (*chosen.absent, *absent)]
    results.entries += changes(results.entries, options.runner)
    results.details |= {
        "voice": _described(talker, chosen, sets),
        "ablations": NOTE if options.ablations else "",
    }
    report = results.report(KIND, name, corpus.info.get("name"), options.runner, conditions=sets.conditions)
    return EvaluatedVoice(report, sets, chosen.prompts)


def voice_metric_rows(
    options: VoiceOptions,
    corpus: Corpus,
    talker: Talker,
    prompts: Mapping[str, Sequence[Turn]],
) -> dict[str, Callable[[], Metric]]:
    """Lists the metrics of a voice, the longest first. Not DNSMOS, which ranks Codec2 above Opus.

    Args:
        options: How to evaluate.
        corpus: Corpus with recordings to compare with.
        talker: The talker, whose main voice is the first.
        prompts: Recordings that prompted unseen speakers.
    """
    voices = list(talker.voices)
    return {
        "word error rate": partial(Intelligibility, options.asr),
        "distillMOS": partial(Naturalness, "distillmos"),
        "speaker similarity": partial(
            SpeakerSimilarity,
            corpus,
            options.runner,
            references=REFERENCES,
            speakers=voices,
            prompts=prompts,
            followed=voices[:1],
        ),
        "transcription": partial(Hearing, talker),
        "length": Lengths,
        "latency": partial(StreamTimes, MAIN, (GENERATED, INT8)),
    }


def _speak(
    talker: Talker, corpus: Corpus, chosen: ChosenLines, kept: GeneratedSpeech, options: VoiceOptions
) -> tuple[list[str], list[str]]:
    """Speaks; returns the main voice's conditions beside "generated", and what is not available."""
    others, absent = conditions_of(talker, ablations=options.ablations, int8=options.int8)
    lines = sum(map(len, chosen.groups.values())) + len(others) * len(chosen.main) + len(chosen.conversation)
    with progress("speak", lines, unit="line") as bar:
        speak_all(LineSpeaker.of(talker, corpus, options.runner.seed), chosen, others, kept, bar.update)
    conditions = [*others]
    if options.ablations:
        spoken = talker.sampling.decoded_codebooks or talker.model.config.num_codebooks
        if talker.model.config.semantic_codebooks < spoken:
            conditions.append(SEMANTIC)
        else:
            absent.append("semantic codebooks: the voice speaks from no others")
    return conditions, absent


def _described(talker: Talker, chosen: ChosenLines, sets: ClipSets) -> dict[str, Any]:
    config = talker.model.config
    in_context = sets.of(MAIN, IN_CONTEXT)
    context = [clip.facts for clip in in_context.clips] if in_context else []
    return {
        "main": next(iter(talker.voices)),
        "voices": len(talker.voices),
        "codebooks": config.num_codebooks,
        "semantic_codebooks": config.semantic_codebooks,
        "parameters": sum(parameter.numel() for parameter in talker.model.parameters()),
        "max_context": config.max_context,
        "lines": {group: len(lines) for group, lines in chosen.groups.items()}
        | {CONVERSATION: len(chosen.conversation)},
        "prompts": {
            name: {"turns": len(turns), "seconds": round(sum(turn.duration for turn in turns), 2)}
            for name, turns in chosen.prompts.items()
        },
        "lines_with_memory": sum(facts.get("remembered", 0) > 0 for facts in context),
        "lines_in_context": len(context),
    }
