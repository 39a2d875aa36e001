"""Evaluation of a run: its speech folder, in every metric, beside the corpus's recordings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from csm.data.manifest import Corpus, read_corpus
from csm.evaluation.core.clips import ClipSet, ClipSets
from csm.evaluation.core.comparison import beside
from csm.evaluation.core.metric import Metric
from csm.evaluation.core.report import Report, save_report
from csm.evaluation.core.runner import RunnerOptions, Say, run_metrics, silent
from csm.evaluation.metrics.codebooks import Codebooks
from csm.evaluation.metrics.contours import Contours
from csm.evaluation.metrics.contrasts import ContrastCoherence
from csm.evaluation.metrics.dialogues import DialogueTiming
from csm.evaluation.metrics.fidelity import Fidelity
from csm.evaluation.metrics.intonation import Intonation
from csm.evaluation.metrics.latency import GenerationTimes
from csm.evaluation.metrics.lengths import Lengths
from csm.evaluation.metrics.naturalness import Naturalness
from csm.evaluation.metrics.prosody import Prosody
from csm.evaluation.metrics.reply_style import ReplyStyle
from csm.evaluation.metrics.similarity import SpeakerSimilarity
from csm.evaluation.metrics.words import Intelligibility
from csm.evaluation.subjects.speech_folder import (
    CONDITIONS,
    SpeechFolder,
    dialogue_clips,
    read_speech_folder,
    utterance_clips,
)

KIND = "run"
LINES, TURNS, DIALOGUES = "lines", "dialogue turns", "dialogues"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is evaluated.

    Attributes:
        run: Folder with speech/speech.jsonl and, where they exist, metrics.jsonl and
            codes/codebooks.json.
        corpus: Folder of the corpus with the recordings to compare with; None without one.
        reference: A finished report.json to show beside this one; None without one.
        keep: Whether a report that is newer than the speech is left as it is.
        asr: faster-whisper model name or folder; None for the packaged tiny.en.
        references: Most recordings for the mean voice of a speaker.
        probe_pairs: Most real (turn, reply) pairs to train the context probe on.
        contrast_clips: Most clips of either side to train a contrast probe on.
        runner: Seed, bootstrap and workers.
    """

    run: Path
    corpus: Path | None = None
    reference: Path | None = None
    keep: bool = False
    asr: str | None = None
    references: int = 6
    probe_pairs: int = 400
    contrast_clips: int = 150
    runner: RunnerOptions = field(default_factory=RunnerOptions)

    def __post_init__(self) -> None:
        for name in ("references", "probe_pairs", "contrast_clips"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")


def evaluate_run(options: RunOptions, say: Say = silent) -> Report:
    """Evaluates everything that a run has spoken, and writes report.json into the run's folder.

    Args:
        options: What and how.
        say: Receives one short line as each metric ends.

    Returns:
        The report. The same inputs, options and machine give the same bytes.

    Raises:
        ValueError: The run has no speech folder, or a folder cannot be read.
    """
    folder = read_speech_folder(options.run / "speech")
    corpus = None if options.corpus is None else read_corpus(options.corpus).held()
    results = run_metrics(run_metric_rows(options, corpus), run_sets(folder), options.runner, say)
    report = results.report(
        KIND,
        options.run.resolve().name,
        None if corpus is None else corpus.info.get("name"),
        options.runner,
        conditions=list(CONDITIONS),
    )
    if options.reference is not None:
        reference = beside(report, options.reference, seed=options.runner.seed)
        report = replace(report, reference=reference)
    save_report(options.run, report)
    return report


def is_evaluated(run: Path) -> bool:
    """Returns whether the run has a report that is newer than its speech."""
    page, speech = run / "report.html", run / "speech" / "speech.jsonl"
    return page.is_file() and speech.is_file() and page.stat().st_mtime >= speech.stat().st_mtime


def run_sets(folder: SpeechFolder) -> ClipSets:
    """Reads the clips of a speech folder: lines, dialogue turns and whole dialogues in every condition."""
    sets = []
    for condition in CONDITIONS:
        generated = condition == "generated"
        lines = utterance_clips(folder.root, folder.lines, condition)
        turns = utterance_clips(folder.root, folder.turns, condition)
        dialogues = dialogue_clips(folder.root, folder.dialogues, condition)
        make = partial(ClipSet, condition=condition, generated=generated)
        sets += [
            make(group=LINES, clips=lines),
            make(group=TURNS, clips=turns, kind="turns"),
            make(group=DIALOGUES, clips=dialogues, kind="dialogues"),
        ]
    order = (LINES, TURNS, DIALOGUES)
    present = sorted((one for one in sets if one.clips), key=lambda one: order.index(one.group))
    return ClipSets(sets=tuple(present))


def run_metric_rows(options: RunOptions, corpus: Corpus | None) -> dict[str, Callable[[], Metric]]:
    """Lists the metrics of a run, the longest first."""
    contours = Contours()
    resynthesis = ("resynthesis",)
    return {
        "intelligibility": partial(Intelligibility, options.asr, characters=True),
        "DNSMOS": partial(Naturalness, "dnsmos"),
        "distillMOS": partial(Naturalness, "distillmos"),
        "speaker": partial(SpeakerSimilarity, corpus, options.runner, references=options.references),
        "reply style": partial(ReplyStyle, contours, corpus, options.runner, probe_pairs=options.probe_pairs),
        "contrasts": partial(
            ContrastCoherence, contours, corpus, options.runner, clips=options.contrast_clips
        ),
        "prosody": partial(Prosody, contours),
        "intonation": partial(Intonation, contours),
        "PESQ-WB": partial(Fidelity, "pesq_wb", resynthesis),
        "STOI": partial(Fidelity, "stoi", resynthesis),
        "log-mel distance": partial(Fidelity, "log_mel_l1", resynthesis),
        "turn taking": DialogueTiming,
        "latency": GenerationTimes,
        "length": Lengths,
        "codebooks": partial(Codebooks, options.run / "codes" / "codebooks.json"),
    }
