"""What becomes of a corpus: from files over turns to the frames that a model is trained on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csm.data.code_shards import CodeShards
from csm.data.manifest import REJECTS_NAME, SPLITS, Corpus, Turn
from csm.text import TextCodec

NAMED = 3  # turns and reasons of a row that are named


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One row: turns of a split that are there, or that are left out for a reason.

    Attributes:
        name: What they are.
        turns, minutes: Count and duration.
        frames: Their frames; None where they are not encoded.
        ids: Ids of the first.
        left_out: Whether the following rows lack them.
    """

    name: str
    turns: int
    minutes: float
    frames: int | None = None
    ids: tuple[str, ...] = ()
    left_out: bool = False


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a recipe trains on.

    Attributes:
        codec: Text codec of its model.
        max_rows: Most rows of a turn.
        exclude_speakers: Speakers whose turns are context only.
    """

    codec: TextCodec
    max_rows: int
    exclude_speakers: Sequence[str] = ()


def stages(
    turns: Sequence[Turn],
    encoded: CodeShards | None = None,
    training: Training | None = None,
    numbers: Mapping[str, int] | None = None,
) -> list[Stage]:
    """Returns the rows of some turns, from all of them to those that are trained on.

    Args:
        turns: The turns of a split.
        encoded: Their codes; None leaves out what depends on them.
        training: The recipe; None leaves out what depends on it.
        numbers: The model's number of every speaker, for `training`.
    """
    rows = [stage("in the corpus", turns)]
    rest = list(turns)
    for name, is_out in _reasons(encoded, training, numbers or {}):
        out = [turn for turn in rest if is_out(turn)]
        rest = [turn for turn in rest if not is_out(turn)]
        rows.append(stage(name, out, encoded, left_out=True))
    return [*rows, stage("usable", rest, encoded)]


def _reasons(
    encoded: CodeShards | None, training: Training | None, numbers: Mapping[str, int]
) -> Iterator[tuple[str, Any]]:
    yield "without a text (the tokenizer alone trains on them)", lambda turn: not turn.text.strip()
    if encoded is None:
        return
    yield "without codes", lambda turn: not encoded.frames_of(turn.id)
    if training is None:
        return

    def too_long(turn: Turn) -> bool:
        text = len(training.codec.encode_turn(turn.text, numbers[turn.speaker]))
        return text + encoded.frames_of(turn.id) + 1 > training.max_rows

    yield f"of more than {training.max_rows} rows (context only)", too_long
    if training.exclude_speakers:
        yield "of excluded speakers (context only)", lambda turn: turn.speaker in training.exclude_speakers


def stage(
    name: str, turns: Sequence[Turn], encoded: CodeShards | None = None, *, left_out: bool = False
) -> Stage:
    """Returns the row of some turns."""
    return Stage(
        name=name,
        turns=len(turns),
        minutes=sum(turn.duration for turn in turns) / 60,
        frames=None if encoded is None else sum(encoded.frames_of(turn.id) for turn in turns),
        ids=tuple(turn.id for turn in turns[:NAMED]),
        left_out=left_out,
    )


def funnel_lines(
    corpus: Corpus,
    encoded: CodeShards | None = None,
    training: Training | None = None,
    numbers: Mapping[str, int] | None = None,
) -> list[str]:
    """Returns the funnel of a corpus as lines of text."""
    lines = [*_source_lines(corpus)]
    for split in SPLITS:
        lines.append(f"{split}:")
        for row in stages(corpus.turns(split), encoded, training, numbers):
            frames = "" if row.frames is None else f", {row.frames} frames"
            sign = "-" if row.left_out else " "
            name = "trained on" if row.name == "usable" and split == "train" else row.name
            named = f": {', '.join(row.ids)}{', ...' if row.turns > len(row.ids) else ''}"
            lines.append(
                f"  {sign} {row.turns} turns, {row.minutes:.1f} minutes{frames} {name}"
                + (named if row.left_out and row.ids else "")
            )
    return lines


def _source_lines(corpus: Corpus) -> Iterator[str]:
    info = corpus.info
    if "files_in" not in info:
        return
    rejects = list(read_rejects(corpus.root / REJECTS_NAME))
    for unit in ("file", "turn"):
        left_out = [entry for entry in rejects if entry["unit"] == unit]
        used = f" ({info['minutes_used']:.1f} minutes)" if unit == "turn" and "minutes_used" in info else ""
        yield (
            f"{unit}s in the source: {info[f'{unit}s_in']}, used: {info[f'{unit}s_used']}{used}, left out: "
            f"{info[f'{unit}s_rejected']}{_lengths(left_out)}"
        )
        counts = Counter(entry["reason"] for entry in left_out).most_common()
        for reason, count in counts[:NAMED]:
            yield f"  - {count}{_lengths([e for e in left_out if e['reason'] == reason])}: {reason}"
        if others := {reason for reason, _ in counts[NAMED:]}:
            rest = [entry for entry in left_out if entry["reason"] in others]
            yield f"  - {len(rest)}{_lengths(rest)}: other reasons: {len(others)}, in {REJECTS_NAME}"


def _lengths(rejects: Sequence[Mapping[str, Any]]) -> str:
    """Returns the length of rejects in brackets, and how many have none."""
    known = [entry["seconds"] for entry in rejects if entry["seconds"] is not None]
    if not rejects:
        return ""
    unknown = f", {len(rejects) - len(known)} of unknown length" if len(known) < len(rejects) else ""
    return f" ({sum(known) / 60:.1f} minutes{unknown})"


def read_rejects(path: Path) -> Iterable[dict[str, Any]]:
    """Returns the lines of a ledger.

    Raises:
        ValueError: A line is none.
    """
    if not path.is_file():
        return []
    try:
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [
            {
                **{key: str(entry[key]) for key in ("source", "unit", "reason")},
                "seconds": None if entry.get("seconds") is None else float(entry["seconds"]),
            }
            for entry in found
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error!r}): prepare the corpus again") from error
