"""Micro-batches of one size: every tensor of a batch and its layout is padded to a budget.

A graph of a whole step, and a CUDA graph of it, holds for one set of shapes. What is added lies behind what
is there: rows without targets in sequences of their own, turns that no real row reads, and past turns of
weight 0 in every memory. Padded targets are IGNORE or NaN, so that losses leave them out; no gradient reaches
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from csm.network.batch_layout import BatchLayout, PaceRows, batch_layout, embedded_codes
from csm.network.cross_attention import FlatReading, ReadingLayout
from csm.network.layers import PackedSequences
from csm.network.letter_head import HeardRows
from csm.network.memory import Folding, seen_slots
from csm.network.model_config import CSMConfig
from csm.network.text_frame_alignment import SUBFRAMES
from csm.network.varlen import Band
from csm.network.voice_reading import BeyondText, VoiceLayout
from csm.sequences.packed_batch import RowBatch
from csm.sequences.past_turns import PastTurns
from csm.sequences.target_rows import IGNORE, TargetRows

# Tensor cores take sizes in such multiples; float8 products ask for them.
MULTIPLE = 16
# Share of a micro-batch's rows that transcripts may have above those that were counted when it was filled.
EXCESS = 0.01


class BatchSizes(NamedTuple):
    """Sizes of a batch and its layout; a field is named after what it counts.

    Attributes:
        rows, sequences, longest: Rows, sequences, and rows of the longest sequence.
        voice, frames, depth, text, duration, pace: Entries of TargetRows.
        past_turns, past_text, past_frames: Past turns, their text ids and frames.
        voice_turns: Turns that voice rows read.
        voice_read, voice_longest_read: Text rows that are read, of all turns and of the longest.
        voice_keys, voice_longest_keys: The same for keys.
        voice_queries, voice_longest_queries: The same for voice rows that read.
        entries: Entries of the alignment.
        beyond: Queries beyond their text.
        text_turns, text_read, text_longest_read, text_queries, text_longest_queries: The same for text rows
            that read voice, where what is read is the keys.
        pace_turns, pace_rows, pace_longest: Turns of the phone duration head, their rows, the longest turn.
        heard_turns, heard_rows, heard_longest: Turns of the letter head, their rows, the longest turn.
        letters: Letters of these turns.
    """

    rows: int
    sequences: int
    longest: int
    voice: int
    frames: int
    depth: int
    text: int
    duration: int
    pace: int
    past_turns: int
    past_text: int
    past_frames: int
    voice_turns: int
    voice_read: int
    voice_longest_read: int
    voice_keys: int
    voice_longest_keys: int
    voice_queries: int
    voice_longest_queries: int
    entries: int
    beyond: int
    text_turns: int
    text_read: int
    text_longest_read: int
    text_queries: int
    text_longest_queries: int
    pace_turns: int
    pace_rows: int
    pace_longest: int
    heard_turns: int
    heard_rows: int
    heard_longest: int
    letters: int


# Number of parts -> (items, most items of a part) of what is packed in these parts.
PACKED = {
    "sequences": (("rows", "longest"),),
    "voice_turns": (
        ("voice_read", "voice_longest_read"),
        ("voice_keys", "voice_longest_keys"),
        ("voice_queries", "voice_longest_queries"),
    ),
    "text_turns": (("text_read", "text_longest_read"), ("text_queries", "text_longest_queries")),
    "pace_turns": (("pace_rows", "pace_longest"),),
    "heard_turns": (("heard_rows", "heard_longest"),),
}
ITEMS = frozenset(name for name in BatchSizes._fields if name not in PACKED and "longest" not in name)


@dataclass(frozen=True, kw_only=True)
class RowBudget:
    """What micro-batches are padded to.

    Attributes:
        sizes: Sizes of every micro-batch.
        band: Band of flash attention of voice rows over text; None: their keys may need resampling.
        max_context: Most rows of a sequence of the model.
    """

    sizes: BatchSizes
    band: Band | None
    max_context: int

    @classmethod
    def of(cls, layouts: Iterable[tuple[RowBatch, BatchLayout]], *, rows: int, max_context: int) -> RowBudget:
        """Returns the budget of a run by some of its micro-batches.

        Each size lies as much above the largest seen as that lies above the mean. Rows have a limit, which
        only a transcript of more ids than the spoken text exceeds.

        Args:
            layouts: Batches, at least one, with their layouts, on the CPU.
            rows: Rows that micro-batches are filled to.
            max_context: Most rows of a sequence of the model.
        """
        found, bands = [], set()
        for batch, layout in layouts:
            found.append(sizes_of(batch, layout))
            bands.add(layout.voice.flat.band if layout.voice.flat else None)
        columns = torch.tensor(found, dtype=torch.float64)
        most, mean = columns.amax(dim=0), columns.mean(dim=0)
        room = dict(zip(BatchSizes._fields, (2 * most - mean).ceil().int().tolist(), strict=True))
        items = {name: round_up(size) for name, size in room.items() if name in ITEMS}
        parts = {name: room[name] for name in PACKED}
        longest = {name: max(MULTIPLE, size) for name, size in room.items() if "longest" in name}
        sizes = BatchSizes(**items, **parts, **longest)
        largest = max(rows, int(most[BatchSizes._fields.index("rows")]))
        band = bands.pop() if len(bands) == 1 else None
        sizes = sizes._replace(
            rows=round_up(largest + int(EXCESS * rows) + 1),
            longest=min(sizes.longest, max_context),
            beyond=0 if band else sizes.beyond,
        )
        return cls(sizes=_with_parts(sizes), band=band, max_context=max_context)

    def fitting(self, needed: BatchSizes) -> BatchSizes:
        """Returns the sizes, times the least whole number that holds what is needed.

        The longest parts grow only with the longest that are needed, as each part is padded to them where it
        is read.

        Raises:
            ValueError: A sequence is longer than the model's max_context.
        """
        if needed.longest > self.max_context:
            raise ValueError(
                f"a sequence has {needed.longest} rows, the model's max_context is {self.max_context}: cut "
                f"the conversation into shorter chunks; what came before goes to the memory"
            )
        times = 1
        while not _holds(self._times(times, needed), needed):
            times += 1
        sizes = self._times(times, needed)
        if needed.beyond and not sizes.beyond:
            # One more graph, and not one for each number of queries beyond their text.
            return sizes._replace(beyond=sizes.voice_queries)
        return sizes

    def _times(self, times: int, needed: BatchSizes) -> BatchSizes:
        found = {}
        for name, size in self.sizes._asdict().items():
            found[name] = size * (-(-getattr(needed, name) // size) or 1 if "longest" in name else times)
        return BatchSizes(**{**found, "longest": min(found["longest"], self.max_context)})


def round_up(size: int) -> int:
    """Returns the next multiple of MULTIPLE, at least one."""
    return max(1, -(-size // MULTIPLE)) * MULTIPLE


def _with_parts(sizes: BatchSizes) -> BatchSizes:
    """Adds the parts that padding lies in, and of each kind of item one for every part."""
    values = sizes._asdict()
    for items in ("pace_rows", "heard_rows"):
        values[items] = round_up(values[items] + 1)
    for parts, packed in PACKED.items():
        values[parts] += max(-(-values[items] // values[most]) for items, most in packed)
        if len(packed) > 1:
            for items, _ in packed:
                values[items] = round_up(values[items] + 2 * values[parts])
            # A part holds MULTIPLE items at least: the added ones fill fewer than as many parts again.
            values[parts] += max(-(-2 * values[parts] // values[most]) for _, most in packed) + 1
    values["past_turns"] = round_up(values["past_turns"] + 1)
    return BatchSizes(**values)


def _holds(sizes: BatchSizes, needed: BatchSizes) -> bool:
    """Returns whether a batch fits, with at least one item of padding wherever another one points to it."""
    room, own = sizes._asdict(), needed._asdict()
    if any(room[name] < own[name] for name in room if name != "beyond"):
        return False
    if needed.beyond > sizes.beyond > 0 or needed.past_turns == sizes.past_turns:
        return False
    for parts, packed in PACKED.items():
        free = room[parts] - own[parts]
        for items, most in packed:
            padding = room[items] - own[items]
            # Whoever reads in padding reads something: a part of padding has at least one item of each kind.
            if padding < (max(1, free) if len(packed) > 1 else 1) or padding > free * room[most]:
                return False
    return True


def sizes_of(batch: RowBatch, layout: BatchLayout) -> BatchSizes:
    """Returns the sizes of a batch that is not padded."""
    voice, text, targets, past = layout.voice, layout.text, layout.targets, batch.past
    return BatchSizes(
        rows=len(batch.text),
        sequences=layout.sequences.count,
        longest=batch.longest,
        voice=len(targets.voice),
        frames=len(targets.frames),
        depth=len(targets.depth),
        text=len(targets.text),
        duration=len(targets.duration),
        pace=len(targets.pace),
        past_turns=len(past.speaker),
        past_text=len(past.text),
        past_frames=len(past.codes),
        voice_turns=voice.sequences.count,
        voice_read=len(voice.read),
        voice_longest_read=voice.sequences.longest,
        voice_keys=len(voice.key_positions),
        voice_longest_keys=int(voice.cu_seqlens_k.diff().max()),
        voice_queries=len(voice.queries),
        voice_longest_queries=int(voice.cu_seqlens_q.diff().max()),
        entries=len(voice.alignment.ids),
        beyond=0 if voice.beyond is None else len(voice.beyond.queries),
        text_turns=text.sequences.count,
        text_read=len(text.read),
        text_longest_read=text.sequences.longest,
        text_queries=len(text.queries),
        text_longest_queries=int(text.cu_seqlens_q.diff().max()),
        pace_turns=layout.pace.sequences.count,
        pace_rows=len(layout.pace.rows),
        pace_longest=layout.pace.sequences.longest,
        heard_turns=layout.heard.turns.count,
        heard_rows=len(layout.heard.rows),
        heard_longest=layout.heard.turns.longest,
        letters=len(layout.heard.letters),
    )


def padded(batch: RowBatch, config: CSMConfig, budget: RowBudget) -> RowBatch:
    """Returns a batch on the CPU with its layout, both padded to a budget; losses and gradients stay.

    A batch beyond the budget gets a multiple of all its sizes.

    Args:
        batch: Rows with targets.
        config: Sizes of the model that it is for.
        budget: What to pad to.

    Raises:
        ValueError: A sequence is longer than the model's max_context.
    """
    layout = cast(BatchLayout, batch.layout or batch_layout(batch, config))
    sizes = budget.fitting(sizes_of(batch, layout))
    filler = _Filler(len(batch.text), sizes.rows)
    targets = _target_rows(layout.targets, sizes, filler)
    rows = _padded_rows(batch, layout, sizes)
    rows.depth_rows = targets.depth
    rows.layout = BatchLayout(
        targets=targets,
        sequences=_sequences(layout.sequences, sizes.sequences, sizes.rows, sizes.longest),
        codes=embedded_codes(rows.codes, rows.code_target[targets.depth, :-1].clamp_min(0), config),
        voice=_voice(layout.voice, sizes, filler, budget.band),
        text=_text(layout.text, sizes, filler),
        pace=_pace(layout.pace, sizes, filler),
        folding=_folding(layout.folding, sizes, config.memory_slots),
        heard=HeardRows(
            filler.fill(layout.heard.rows, sizes.heard_rows),
            _sequences(layout.heard.turns, sizes.heard_turns, sizes.heard_rows, sizes.heard_longest),
            _with(layout.heard.letters, sizes.letters, 0),
        ),
        padded=True,
    )
    return rows


class _Filler(NamedTuple):
    """Places first to last, of padding, which indices that are added point to in turn."""

    first: int
    last: int

    def fill(self, index: Tensor, size: int) -> Tensor:
        more = torch.arange(size - len(index), dtype=index.dtype) % (self.last - self.first)
        return torch.cat([index, self.first + more])


def _with(values: Tensor, size: int, value: float) -> Tensor:
    """Adds entries of one value along the first dimension."""
    return torch.cat([values, values.new_full((size - len(values), *values.shape[1:]), value)])


def _bounds(bounds: Tensor, parts: int, items: int) -> Tensor:
    """Adds parts, which share the items that are added, as equally as can be."""
    more = parts + 1 - len(bounds)
    last = int(bounds[-1])
    ends = last + torch.arange(1, more + 1) * (items - last) // max(1, more)
    return torch.cat([bounds, ends.to(bounds.dtype)])


def _sequences(packed: PackedSequences, parts: int, items: int, longest: int) -> PackedSequences:
    return PackedSequences.of(_bounds(packed.cu_seqlens, parts, items), longest)


def _target_rows(rows: TargetRows, sizes: BatchSizes, filler: _Filler) -> TargetRows:
    kinds = {name: filler.fill(getattr(rows, name), getattr(sizes, name)) for name in rows._fields[:-1]}
    return TargetRows(**kinds, voice_frames=rows.voice_frames)


def _padded_rows(batch: RowBatch, layout: BatchLayout, sizes: BatchSizes) -> RowBatch:
    """Pads the batch's own tensors; counts that were to be taken from it are set to what they were."""
    rows, count = layout.targets, sizes.rows
    cu_seqlens = _bounds(batch.cu_seqlens, sizes.sequences, count)
    sequence_starts = cu_seqlens[:-1].repeat_interleave(cu_seqlens.diff().long())
    weight = batch.depth_weight
    if weight is None:
        weight = len(rows.frames) / max(1, len(rows.depth))

    def counted(given: float | None, own: Tensor) -> float:
        return float(len(own)) if given is None else given

    return replace(
        batch,
        text=_with(batch.text, count, 0),
        codes=_with(batch.codes, count, -1),
        positions=torch.arange(count) - sequence_starts,
        cu_seqlens=cu_seqlens,
        longest=sizes.longest,
        code_target=_with(batch.code_target, count, IGNORE),
        text_target=_with(batch.text_target, count, IGNORE),
        prosody_target=_with(batch.prosody_target, count, 0),
        prosody_known=_with(batch.prosody_known, count, False),
        duration_target=_with(batch.duration_target, count, float("nan")),
        pace_target=_with(batch.pace_target, count, float("nan")),
        past=_past(batch.past, sizes),
        voice_count=counted(batch.voice_count, rows.voice),
        frame_count=counted(batch.frame_count, rows.frames),
        text_count=counted(batch.text_count, rows.text),
        turn_count=counted(batch.turn_count, rows.duration),
        pace_count=counted(batch.pace_count, rows.pace),
        depth_weight=weight,
    )


def _past(past: PastTurns, sizes: BatchSizes) -> PastTurns:
    turns, filler = sizes.past_turns, _Filler(len(past.speaker), sizes.past_turns)
    return PastTurns(
        text=_with(past.text, sizes.past_text, 0),
        text_turn=filler.fill(past.text_turn, sizes.past_text),
        codes=_with(past.codes, sizes.past_frames, 0),
        codes_turn=filler.fill(past.codes_turn, sizes.past_frames),
        speaker=_with(past.speaker, turns, 0),
        sequence=_with(past.sequence, turns, sizes.sequences - 1),
        age=_with(past.age, turns, 0),
        learns=_with(past.learns, turns, False),
        counts=_with(past.counts, sizes.sequences, 0),
        text_count=_with(past.text_count, turns, 1),
        frame_count=_with(past.frame_count, turns, 1),
    )


def _folding(folding: Folding, sizes: BatchSizes, slots: int) -> Folding:
    sequences, _, turns = folding.weights.shape
    more = (0, sizes.past_turns - turns, 0, 0, 0, sizes.sequences - sequences)
    counts = _with(folding.turns, sizes.sequences, 0)
    return Folding(F.pad(folding.weights, more), counts, seen_slots(counts, slots))


def _pace(pace: PaceRows, sizes: BatchSizes, filler: _Filler) -> PaceRows:
    known = _Filler(len(pace.rows), sizes.pace_rows).fill(pace.known, sizes.pace)
    sequences = _sequences(pace.sequences, sizes.pace_turns, sizes.pace_rows, sizes.pace_longest)
    return PaceRows(filler.fill(pace.rows, sizes.pace_rows), sequences, known)


def _reading(
    layout: ReadingLayout, turns: int, read: Sequence[int], keys: int, queries: int, filler: _Filler
) -> ReadingLayout:
    """Pads a reading to so many turns, [rows that are read, those of the longest turn], keys and queries."""
    cu_seqlens_k = _bounds(layout.cu_seqlens_k, turns, keys)
    added = cu_seqlens_k.diff()[len(layout.lengths) :].to(layout.lengths.dtype)
    return replace(
        layout,
        read=filler.fill(layout.read, read[0]),
        sequences=_sequences(layout.sequences, turns, *read),
        key_positions=_with(layout.key_positions, keys, 0),
        queries=filler.fill(layout.queries, queries),
        cu_seqlens_q=_bounds(layout.cu_seqlens_q, turns, queries),
        cu_seqlens_k=cu_seqlens_k,
        lengths=torch.cat([layout.lengths, added]),
        query_offsets=_with(layout.query_offsets, turns, 0),
        query_positions=_with(layout.query_positions, queries, 0),
    )


def _text(layout: ReadingLayout, sizes: BatchSizes, filler: _Filler) -> ReadingLayout:
    read = sizes.text_read, sizes.text_longest_read
    padded = _reading(layout, sizes.text_turns, read, sizes.text_read, sizes.text_queries, filler)
    assert layout.flat is not None, "text rows read voice as it is"
    most = sizes.text_longest_queries, sizes.text_longest_read
    return replace(padded, flat=FlatReading(*most, layout.flat.band))


def _voice(layout: VoiceLayout, sizes: BatchSizes, filler: _Filler, band: Band | None) -> VoiceLayout:
    read = sizes.voice_read, sizes.voice_longest_read
    keys, queries = sizes.voice_keys, sizes.voice_queries
    padded = cast(VoiceLayout, _reading(layout, sizes.voice_turns, read, keys, queries, filler))
    of_keys = _Filler(len(layout.key_positions), keys)
    of_read = _Filler(len(layout.read), sizes.voice_read)
    of_queries = _Filler(len(layout.queries), queries)
    alignment = layout.alignment
    subframes = _Filler(of_keys.first * SUBFRAMES, of_keys.last * SUBFRAMES)
    flat = None
    if band is not None and layout.flat is not None and layout.flat.band == band:
        flat = FlatReading(sizes.voice_longest_queries, sizes.voice_longest_keys, band)
    return replace(
        padded,
        flat=flat,
        alignment=alignment._replace(
            subframes=subframes.fill(alignment.subframes, sizes.entries),
            ids=of_read.fill(alignment.ids, sizes.entries),
            shares=_with(alignment.shares, sizes.entries, 0),
            frames=keys,
        ),
        speakers=_with(layout.speakers, keys, 0),
        spoken=_with(layout.spoken, keys, False),
        key_of_query=of_keys.fill(layout.key_of_query, queries),
        beyond=_beyond(layout.beyond, sizes.beyond, of_queries, of_keys),
    )


def _beyond(beyond: BeyondText | None, size: int, queries: _Filler, keys: _Filler) -> BeyondText | None:
    if not size:
        return None
    if beyond is None:
        nothing = torch.zeros(0, dtype=torch.int64)
        beyond = BeyondText(nothing, nothing, nothing, torch.zeros(0, 1, 1))
    return BeyondText(
        queries.fill(beyond.queries, size),
        keys.fill(beyond.left, size),
        keys.fill(beyond.right, size),
        _with(beyond.weight, size, 0),
    )
