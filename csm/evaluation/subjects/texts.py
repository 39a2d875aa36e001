"""Evaluation of a voice on texts without recordings: whether it is understood, and how it sounds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from csm import config as config_files
from csm.evaluation.core.clips import ClipSet, ClipSets
from csm.evaluation.core.evaluators import hardware
from csm.evaluation.core.report import Report, refuse_other_report, save_report
from csm.evaluation.core.runner import MetricRows, RunnerOptions, Say, run_metrics, silent
from csm.evaluation.metrics.latency import StreamTimes
from csm.evaluation.metrics.lengths import CutOff
from csm.evaluation.metrics.naturalness import Naturalness
from csm.evaluation.metrics.words import Intelligibility
from csm.evaluation.subjects.voice_folder import GeneratedSpeech, talker_origin
from csm.evaluation.subjects.voice_speech import GENERATED, SEEDS_APART
from csm.generation.readers import ReaderName
from csm.generation.talker import Talker
from csm.system.log import progress
from csm.system.threads import one_thread

KIND = "texts"
#: 120 lines of everyday talk, written for this.
EVERYDAY = Path(__file__).resolve().parents[1] / "everyday_lines.txt"


@dataclass(frozen=True, kw_only=True)
class TextsOptions:
    """How a voice is evaluated on texts.

    Attributes:
        voice: Folder of the voice.
        texts: Text file, a line each; empty lines are left out.
        output: Folder of the report and of the generated speech.
        speakers: Names of the voices that speak every line; none is the main one.
        lines: Most lines; None takes all.
        guidance: Replaces the voice's own (`SamplingConfig.guidance`); None keeps it.
        candidates: Renditions of each sentence, of which one is kept (`Talker.generate`).
        reader: What compares them: "recogniser" or "model".
        asr: faster-whisper model name or folder; None for the packaged tiny.en.
        players: Most lines of a speaker with a player on the page.
        runner: Seed, bootstrap and workers.
    """

    voice: Path = Path()
    texts: Path = EVERYDAY
    output: Path = Path()
    speakers: tuple[str, ...] = ()
    lines: int | None = None
    guidance: float | None = None
    candidates: int = 1
    reader: ReaderName = "recogniser"
    asr: str | None = None
    players: int = 12
    runner: RunnerOptions = field(default_factory=RunnerOptions)

    def __post_init__(self) -> None:
        if self.lines is not None and self.lines < 1:
            raise ValueError(f"lines is {self.lines}: expected 1 or more")
        if self.candidates < 1:
            raise ValueError(f"candidates is {self.candidates}: expected 1 or more")
        if self.candidates > 1 and self.reader == "recogniser" and self.asr is None:
            raise ValueError(
                "the recogniser tiny.en chooses among the candidates, and its word error rate of them is too "
                "low: expected --asr base, which is fetched once, or --reader model"
            )
        if self.players < 0:
            raise ValueError(f"players is {self.players}: expected 0 or more")


class TextLine(NamedTuple):
    """A line of a text file that one voice speaks; the bootstrap resamples lines.

    Attributes:
        number: Number from 0; the line's seed follows from it.
        speaker: Name of the voice. text: What is said.
    """

    number: int
    speaker: str
    text: str

    @property
    def id(self) -> str:
        """Unique in a folder of speech."""
        return f"{self.speaker}.{self.number:04d}"

    @property
    def group(self) -> str:
        """Lines are grouped by the voice."""
        return self.speaker

    @property
    def conversation(self) -> str:
        """The line itself: no two lines are said in one conversation."""
        return f"{self.number:04d}"


class EvaluatedTexts(NamedTuple):
    """Result of an evaluation: the report, and for the page the clips."""

    report: Report
    sets: ClipSets


def evaluate_texts(options: TextsOptions, say: Say = silent) -> EvaluatedTexts:
    """Evaluates the voice of a folder and writes report.json into the output folder.

    Raises:
        ValueError: A file cannot be read or has no line, a speaker is unknown, or the output holds another
            report or speech of other weights, settings or texts.
    """
    refuse_other_report(options.output, KIND)
    texts = read_lines(options.texts)
    talker = Talker.from_pretrained(options.voice)
    if options.guidance is not None:
        talker = replace(talker, sampling=replace(talker.sampling, guidance=options.guidance))
    names = [talker.voice(name).name for name in options.speakers or (None,)]
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    origin = {**talker_origin(talker), "texts_sha256": digest, "seed": options.runner.seed}
    if options.candidates > 1:
        origin |= {"candidates": options.candidates, "reader": options.reader}
    kept = GeneratedSpeech(options.output / "speech", origin)
    lines = texts[: options.lines]
    spoken = {
        name: [TextLine(number, name, text) for number, text in enumerate(lines)]
        for name in dict.fromkeys(names)
    }
    with one_thread():  # sums of several threads are not added in a fixed order
        speak_lines(talker, [line for of in spoken.values() for line in of], kept, options)
    say("all lines are spoken")
    sets = ClipSets(
        sets=tuple(
            ClipSet(group=name, condition=GENERATED, clips=kept.clips(of, GENERATED), generated=True)
            for name, of in spoken.items()
        )
    )
    results = run_metrics(text_metric_rows(options, list(spoken)), sets, options.runner, say)
    results.details["texts"] = {
        "file": options.texts.name,
        "lines": len(lines),
        "speakers": list(spoken),
        "sampling": config_files.to_dict(talker.sampling),
        "candidates": options.candidates,
        "reader": options.reader if options.candidates > 1 else None,
    }
    report = results.report(
        KIND, options.voice.resolve().name, None, options.runner, conditions=sets.conditions
    )
    save_report(options.output, report)
    return EvaluatedTexts(report, sets)


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a text file, without empty ones.

    Raises:
        ValueError: There is no such file, it is no UTF-8, or it has no line.
    """
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): expected a text file, a line each") from error
    if not any(found):
        raise ValueError(f"{path} has no line: expected a text file, a line each")
    return [line for line in found if line]


def speak_lines(
    talker: Talker, lines: Sequence[TextLine], kept: GeneratedSpeech, options: TextsOptions
) -> None:
    """Speaks what is not in the folder yet; a line that cannot be spoken leaves its reason.

    Args:
        talker: Talker on the CPU.
        lines: Lines, each in a conversation of its own.
        kept: Folder of the speech.
        options: How to speak; a line's seed follows from the evaluation's and its number.
    """
    rate, warm = talker.tokenizer.config.sample_rate, False
    with progress("speak", len(lines), unit="line") as bar:
        for line in lines:
            if not kept.has(line, GENERATED):
                if not warm:  # the first line of a process includes lazy initialisation
                    _say(talker, line, options)
                    warm = True
                waveform, facts = _say(talker, line, options)
                kept.keep(line, GENERATED, waveform, rate, facts)
            bar.update()


def _say(talker: Talker, line: TextLine, options: TextsOptions) -> tuple[Any, dict[str, Any]]:
    try:
        seed = SEEDS_APART * options.runner.seed + line.number
        stream = talker.generate(
            line.text,
            line.speaker,
            seed=seed,
            candidates=options.candidates,
            reader=options.reader,
            stream=True,
        )
        speech = stream.whole()
    except ValueError as error:
        return None, {"reason": " ".join(str(error).split())}
    facts = {
        "timing": speech.timing._asdict(),
        "cut_off": "limit" in speech.endings,
        "hardware": hardware(),
    }
    return speech.waveform, facts


def text_metric_rows(options: TextsOptions, speakers: Sequence[str]) -> MetricRows:
    """Lists the metrics, the longest first."""
    return {
        "word error rate": partial(Intelligibility, options.asr),
        "distillMOS": partial(Naturalness, "distillmos"),
        "ends": CutOff,
        **{f"latency, {name}": partial(StreamTimes, name, (GENERATED,)) for name in speakers},
    }
