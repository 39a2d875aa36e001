"""Measures `csm prepare --corpus recordings --transcribe` on conversations composed of a corpus's recordings.

    python benchmarks/recordings.py --corpus data/amazon_queen --seeds 4

Prints one row a condition: diarisation error rate (missed, false and confused speech / speech, with a collar
of 0.25 s, overlaps counted), in how many conversations the number of people is right, turn F1 (a turn is
found if one of its speaker's has both edges within 0.5 s), how many backchannels below a second are kept,
seconds of overlap that are in a turn marked as overlap, of those that there are, and how many of the marked
turns hold overlap of 0.2 s, and word error rate against the known texts in order of time.
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
import torch
from composed_conversations import RATE, Conversation, Said, compose, write

from csm.data.corpora.recordings import prepare_recordings
from csm.data.corpora.transcription.recogniser import WordRecogniser
from csm.data.corpora.transcription.transcriber import RecordingTranscriber
from csm.data.manifest import Corpus, Turn, read_corpus
from csm.data.word_times import Word
from csm.evaluation.metrics.words import error_counts

STEP, COLLAR, EDGE, LEAST_OVERLAP = 0.01, 0.25, 0.5, 0.2  # seconds


@dataclass(frozen=True, kw_only=True)
class Condition:
    """How conversations are composed and recorded."""

    name: str
    mono: bool = True
    speakers: int = 2
    gaps: tuple[float, float] = (0.1, 1.0)
    backchannels: float = 0.0
    noise_db: float | None = None
    crosstalk_db: float | None = None
    echo: float = 0.0
    rate: int = 16_000
    speakers_given: bool = True  # whether --speakers is given


LEAKING = Condition(
    name="2 channels that leak, -20 dB",
    mono=False,
    gaps=(-1, 1),
    backchannels=0.6,
    noise_db=50,
    crosstalk_db=20,
)
CONDITIONS = (
    Condition(name="mono, 2 speakers, no overlap"),
    Condition(name="the same, number found", speakers_given=False),
    Condition(name="the same, 8 kHz", rate=8_000),
    Condition(name="the same, 48 kHz", rate=48_000),
    Condition(name="the same, noise -15 dB", noise_db=15),
    Condition(name="mono, 2 speakers, gaps -1 to +1 s", gaps=(-1.0, 1.0)),
    Condition(name="mono, 3 speakers, no overlap", speakers=3),
    *(
        Condition(name=f"mono, {count}, number found", speakers=int(count[0]), speakers_given=False)
        for count in ("1 speaker", "3 speakers", "4 speakers")
    ),
    Condition(
        name="2 channels, gaps -1 to +1 s, backchannels", mono=False, gaps=(-1.0, 1.0), backchannels=0.6
    ),
    Condition(
        name="the same, 8 kHz, noise -20 dB",
        mono=False,
        gaps=(-1, 1),
        backchannels=0.6,
        noise_db=20,
        rate=8_000,
    ),
    LEAKING,
    replace(LEAKING, name="2 channels that leak, -20 dB, room of 0.3 s", echo=0.3),
    replace(LEAKING, name="2 channels that leak, -12 dB, room of 0.3 s", crosstalk_db=12, echo=0.3),
)


class Wordless:
    """Recognises no words."""

    def words(self, pieces: list, read: object) -> list[tuple[Word, ...]]:
        """Returns no words of each piece."""
        return [()] * len(pieces)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=4, help="conversations a condition")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first conversation")
    parser.add_argument(
        "--backchannels",
        type=int,
        default=0,
        help="least number of backchannels in each condition that has any: conversations are added",
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="length of each")
    parser.add_argument("--work", type=Path, default=Path("runs/recordings"), help="folder of what is made")
    parser.add_argument("--only", default="", help="conditions whose names hold this")
    parser.add_argument("--turns-only", action="store_true", help="recognise no words: a tenth of the time")
    options = parser.parse_args()
    corpus = read_corpus(options.corpus)
    recogniser: Any = Wordless() if options.turns_only else WordRecogniser()
    print(
        "| recordings | DER | of it missed, false, confused | number right | turn F1 | backchannels "
        "| overlap, turns right | WER | of real time |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for condition in (c for c in CONDITIONS if options.only in c.name):
        print(row(condition, corpus, recogniser, options), flush=True)


def row(condition: Condition, corpus: Corpus, recogniser: Any, options: argparse.Namespace) -> str:
    """Returns the figures of a condition, pooled over its conversations."""
    shutil.rmtree(options.work, ignore_errors=True)
    made: dict[str, Conversation] = {}
    least = options.backchannels if condition.backchannels else 0
    length, short = 0.0, 0
    while len(made) < options.seeds or short < least:
        seed = options.first_seed + len(made)
        conversation = compose(
            corpus,
            seed,
            speakers=condition.speakers,
            minutes=options.minutes,
            gaps=condition.gaps,
            backchannels=condition.backchannels,
            noise_db=condition.noise_db,
            crosstalk_db=condition.crosstalk_db,
            echo=condition.echo,
        )
        write(conversation, options.work / f"in/c{seed}.wav", rate=condition.rate, mono=condition.mono)
        made[f"c{seed}"] = replace(conversation, waveform=torch.zeros(2, 0))
        length += conversation.waveform.shape[1] / RATE
        short += sum(said.backchannel for said in conversation.turns)
    people = condition.speakers if condition.speakers_given and condition.mono else None
    transcriber = RecordingTranscriber(recogniser, speakers=people)
    start = time.perf_counter()
    found = prepare_recordings(options.work / "out", source=options.work / "in", transcriber=transcriber)
    seconds = time.perf_counter() - start
    totals, right = np.zeros(14), 0
    for name, conversation in made.items():
        turns = [turn for turn in found.turns() if turn.conversation == name]
        totals += figures(conversation, turns)
        right += len({turn.speaker for turn in turns}) == condition.speakers
    speech, missed, false, confused, hits, known, given, backchannels, kept, wrong = totals[:10]
    together, inside, marked, holding = totals[10:]
    words = sum(len(t.text.split()) for c in made.values() for t in c.turns)
    error = (missed + false + confused) / speech
    parts = ", ".join(f"{100 * part / speech:.1f}" for part in (missed, false, confused))
    marks = f"{inside:.0f} of {together:.0f} s, {holding:.0f} of {marked:.0f}" if together > 1 else "-"
    kept_part = f"{kept:.0f} of {backchannels:.0f}" if backchannels else "-"
    return (
        f"| {condition.name} | {100 * error:.1f} % | {parts} | {right} of {len(made)} "
        f"| {2 * hits / (known + given):.2f} | {kept_part} | {marks} | {wrong / words:.2f} "
        f"| {seconds / length:.2f} |"
    )


def figures(conversation: Conversation, turns: list[Turn]) -> np.ndarray:
    """Returns the counts of a conversation.

    They are seconds of speech, missed, false, confused; turns found, known, given; backchannels, those
    kept; word errors; seconds in which two people speak, those in turns that are marked so; marked turns,
    those that hold some.
    """
    known = sorted(conversation.turns, key=lambda said: said.start)
    size = round((max(t.end for t in [*known, *turns]) + 1) / STEP)
    names = sorted({said.speaker for said in known})
    given = sorted({turn.speaker for turn in turns})
    truth = _activity([(names.index(s.speaker), s.start, s.end) for s in known], len(names), size)
    answer = _activity([(given.index(t.speaker), t.start, t.end) for t in turns], len(given), size)
    counted = np.ones(size, bool)
    for said in known:
        for edge in (said.start, said.end):
            counted[max(0, round((edge - COLLAR) / STEP)) : round((edge + COLLAR) / STEP)] = False
    truth_c, answer_c = truth[:, counted], answer[:, counted]
    rows, columns = scipy.optimize.linear_sum_assignment(-(truth_c.astype(int) @ answer_c.T.astype(int)))
    name_of = {given[column]: names[r] for r, column in zip(rows, columns, strict=True)}
    right = sum((truth_c[r] & answer_c[c]).sum() for r, c in zip(rows, columns, strict=True))
    spoken, answered = truth_c.sum(0), answer_c.sum(0)
    missed, false = np.maximum(spoken - answered, 0).sum(), np.maximum(answered - spoken, 0).sum()
    confused = np.minimum(spoken, answered).sum() - right
    matched = sum(any(_same(said, turn, name_of) for turn in turns) for said in known)
    short = [said for said in known if said.backchannel]
    kept = sum(any(_kept(said, turn, name_of) for turn in turns) for said in short)
    text = " ".join(turn.text for turn in sorted(turns, key=lambda turn: turn.start))
    wrong, _ = error_counts(" ".join(said.text for said in known), text)
    seconds = STEP * np.array([spoken.sum(), missed, false, confused])
    together = truth.sum(0) > 1
    marked = [slice(round(t.start / STEP), round(t.end / STEP)) for t in turns if t.overlap]
    inside = np.zeros(size, bool)
    for part in marked:
        inside[part] = together[part]
    holding = sum(together[part].sum() * STEP >= LEAST_OVERLAP for part in marked)
    overlap = [STEP * together.sum(), STEP * inside.sum(), len(marked), holding]
    return np.array([*seconds, matched, len(known), len(turns), len(short), kept, wrong, *overlap], float)


def _activity(parts: list[tuple[int, float, float]], count: int, size: int) -> np.ndarray:
    active = np.zeros((count, size), bool)
    for index, start, end in parts:
        active[index, round(start / STEP) : round(end / STEP)] = True
    return active


def _same(said: Said, turn: Turn, name_of: dict[str, str]) -> bool:
    near = abs(said.start - turn.start) <= EDGE and abs(said.end - turn.end) <= EDGE
    return near and name_of.get(turn.speaker) == said.speaker


def _kept(said: Said, turn: Turn, name_of: dict[str, str]) -> bool:
    """Returns whether at least half of a backchannel is in a turn of its speaker."""
    common = min(said.end, turn.end) - max(said.start, turn.start)
    return name_of.get(turn.speaker) == said.speaker and common >= 0.5 * (said.end - said.start)


if __name__ == "__main__":
    main()
