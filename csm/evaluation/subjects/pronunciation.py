"""Evaluation of a voice's pronunciation: homographs by sentence, words as the conversation says them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from csm.data.manifest import Corpus, Turn, read_corpus
from csm.data.phone_labels import PhoneLabels, align_phones
from csm.evaluation.core.draws import draw_turns, held_out_speakers
from csm.evaluation.core.report import Entry, Missing, Report, refuse_other_report, save_report
from csm.evaluation.core.runner import Results, RunnerOptions, Say, run_metrics, silent
from csm.evaluation.metrics.known_pronunciations import (
    KNOWN,
    contrasts_of,
    draw_exchanges,
    known_entries,
    known_scores,
)
from csm.evaluation.metrics.pronunciation import (
    Features,
    PronunciationScorer,
    RecogniserFeatures,
    train_models,
)
from csm.evaluation.metrics.pronunciation_tests import PronunciationTests
from csm.evaluation.subjects.ambiguous_words import HOMOGRAPHS, VARIANTS
from csm.evaluation.subjects.pronunciation_lines import count_of_lines, spoken_sets
from csm.generation.talker import Talker
from csm.system.log import progress
from csm.system.threads import one_thread

KIND = "pronunciation"
SECTION = "pronunciation"
ALIGNED_RATE = 24_000  # Hz; that of the wide-band recipes, whose alignments are kept
SHORTEST, LONGEST = 1.0, 6.0  # seconds of the clips that phone models are trained and tested on


@dataclass(frozen=True, kw_only=True)
class PronunciationOptions:
    """How pronunciation is evaluated.

    Attributes:
        voice: Folder of the voice; its main voice speaks.
        corpus: Folder of the corpus that phone models are trained and tested on.
        output: Folder of the report and of the spoken lines.
        train_clips: Most clips of the train split that phone models are trained on.
        known_clips: Most clips of the other splits that the scorer is tested on.
        runner: Seed and bootstrap.
    """

    voice: Path = Path()
    corpus: Path = Path()
    output: Path = Path()
    train_clips: int = 400
    known_clips: int = 300
    runner: RunnerOptions = field(default_factory=RunnerOptions)

    def __post_init__(self) -> None:
        for name in ("train_clips", "known_clips"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")


def evaluate_pronunciation(options: PronunciationOptions, say: Say = silent) -> Report:
    """Evaluates the voice of a folder and writes report.json into the output folder.

    Raises:
        EvaluatorUnavailable: The recogniser whose features are read is not installed.
        ValueError: A folder cannot be read, the corpus is too small for phone models, or the output holds
            another report.
    """
    refuse_other_report(options.output, KIND)
    corpus, talker = read_corpus(options.corpus).held(), Talker.from_pretrained(options.voice)
    with one_thread():  # sums of several threads are not added in a fixed order
        results = measure_pronunciation(talker, corpus, options, RecogniserFeatures(), say)
    report = results.report(
        KIND, options.voice.resolve().name, corpus.info.get("name"), options.runner, conditions=[]
    )
    save_report(options.output, report)
    return report


def measure_pronunciation(
    talker: Talker, corpus: Corpus, options: PronunciationOptions, features: Features, say: Say = silent
) -> Results:
    """Trains and tests the scorer; where it is better than chance, speaks the sentences and scores them."""
    scorer = trained_scorer(corpus, options, features)
    say("phone models are trained")
    known = tested_entries(scorer, corpus, options)
    say("the scorer is tested on recordings")
    if reason := why_not(known):
        return Results(entries=known, missing=[Missing(SECTION, reason)])
    with progress("speak", count_of_lines(), unit="line") as bar:
        sets = spoken_sets(talker, options.output / "speech", options.runner.seed, bar.update)
    results = run_metrics({SECTION: partial(PronunciationTests, scorer)}, sets, options.runner, say)
    results.entries = [*known, *results.entries]
    return results


def trained_scorer(corpus: Corpus, options: PronunciationOptions, features: Features) -> PronunciationScorer:
    """Trains phone models on the train split, without held-out speakers; the same for every voice."""
    turns = _drawn(corpus, ("train",), options.train_clips, options.runner.seed)
    codec, ends = align_phones(corpus, ALIGNED_RATE)
    labels = PhoneLabels(codec, ((turn.id, turn.text) for turn in turns), ends)
    return PronunciationScorer(train_models(corpus, turns, labels, features), features)


def _drawn(corpus: Corpus, splits: Sequence[str], most: int, seed: int) -> list[Turn]:
    strangers = set(held_out_speakers(corpus))
    turns = [
        turn
        for split in splits
        for turn in corpus.turns(split)
        if SHORTEST <= turn.duration <= LONGEST
        and any(map(str.isalnum, turn.text))
        and (split != "train" or turn.speaker not in strangers)
    ]
    return draw_turns(turns, most, seed)


def tested_entries(scorer: PronunciationScorer, corpus: Corpus, options: PronunciationOptions) -> list[Entry]:
    """Tests the scorer on recordings of the other splits, with a control."""
    words = [(word.readings[0].phones, word.readings[1].phones) for word in (*HOMOGRAPHS, *VARIANTS)]
    turns = _drawn(corpus, ("validation", "test"), options.known_clips, options.runner.seed)
    exchanges = draw_exchanges(turns, contrasts_of(words), options.runner.seed)
    return known_entries(known_scores(scorer, corpus, exchanges), options.runner)


def why_not(known: Sequence[Entry]) -> str:
    """Returns why the scorer cannot be used; empty where its interval lies above chance."""
    entry = next((one for one in known if one.condition == KNOWN), None)
    if entry is None or entry.mean is None:
        return (
            "pronunciation: no recording of the validation and test split has a phone of the tested contrasts"
        )
    if entry.ci95 is not None and entry.ci95[0] > 0.5:
        return ""
    within = "" if entry.ci95 is None else f" [{entry.ci95[0]:.2f}, {entry.ci95[1]:.2f}]"
    return (
        f"pronunciation: on {entry.n_in} recordings the scorer finds {entry.mean:.2f}{within} of the "
        f"pronunciations, 0.50 is chance: a longer corpus is needed"
    )
