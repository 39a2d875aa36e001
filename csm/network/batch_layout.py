"""Index structures of one model for one batch, all made on the host where batches are made.

The forward pass then only computes: no index, mask or count is made from values on the device, which would
make the host wait, and none is copied there one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from csm.network.cross_attention import ReadingLayout, key_rows
from csm.network.layers import PackedSequences
from csm.network.letter_head import HeardRows
from csm.network.memory import Folding
from csm.network.model_config import CSMConfig
from csm.network.text_reading import text_layout
from csm.network.voice_reading import VoiceLayout
from csm.sequences.packed_batch import RowBatch, TextSpan, VoiceSpan
from csm.sequences.target_rows import TargetRows


class PaceRows(NamedTuple):
    """Text rows of spoken turns, which the phone duration head runs on.

    Attributes:
        rows: int64 [M], text rows of all spoken turns.
        sequences: Where the rows of each turn lie.
        known: int64 [P], which of `rows` have a target.
    """

    rows: Tensor
    sequences: PackedSequences
    known: Tensor


class SummedCodes(NamedTuple):
    """Rows of the audio table that are added up, of several kinds of sums one after the other.

    Attributes:
        places: int64 [n], rows of the table (code + codebook * vocab).
        starts: int64 [m], first place of each sum.
        sizes: Number of sums of each kind.
    """

    places: Tensor
    starts: Tensor
    sizes: list[int]


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchLayout:
    """What `ConversationNetwork` needs besides the tensors of a RowBatch.

    Attributes:
        targets: Rows with targets.
        sequences: Where the rows of each sequence lie.
        codes: The embeddings of frames and those that the depth decoder reads.
        voice, text: Which rows read which; the last turn of each is a placeholder without queries.
        pace: Rows of the phone duration head.
        folding: How past turns go into the memory.
        heard: Frames and end rows of transcribed turns.
        padded: Whether rows and targets were added that losses leave out (`csm.network.fixed_shapes`).
    """

    targets: TargetRows
    sequences: PackedSequences
    codes: SummedCodes
    voice: VoiceLayout
    text: ReadingLayout
    pace: PaceRows
    folding: Folding
    heard: HeardRows
    padded: bool = False


def batch_layout(batch: RowBatch, config: CSMConfig) -> BatchLayout:
    """Returns the layout of a batch on the CPU for a model of these sizes."""
    targets = batch.target_rows()
    # With an empty query if need be: every rank runs all readings, so that it produces their gradients in the
    # same order for ZeRO's reductions.
    voice = [*batch.voice_spans, VoiceSpan(0, 0, 0, 1, 1)]
    return BatchLayout(
        targets=targets,
        sequences=PackedSequences.of(batch.cu_seqlens, batch.longest),
        codes=embedded_codes(batch.codes, batch.code_target[targets.depth, :-1], config),
        voice=VoiceLayout.of(voice, config.cross_window),
        text=text_layout([*batch.text_spans, TextSpan(0, 0, 0, 1)], config.frames_per_text_id),
        pace=_pace_rows(batch),
        folding=Folding.of(batch.past, config.memory_slots),
        heard=HeardRows.of(batch.text_spans),
    )


def _pace_rows(batch: RowBatch) -> PaceRows:
    # One row at least: ranks must run the same operations on any batch.
    rows, sequences = key_rows(batch.voice_spans or [VoiceSpan(0, 0, 0, 1, 1)])
    return PaceRows(rows, sequences, (~batch.pace_target[rows].isnan()).nonzero()[:, 0])


def embedded_codes(codes: Tensor, read: Tensor, config: CSMConfig) -> SummedCodes:
    """Returns the codes [R, K] of rows, summed by row, and those [F, K - 1] that the depth decoder reads."""
    offsets = torch.arange(config.num_codebooks) * config.audio_vocab_size
    return summed_codes(codes.clamp_min(0) + offsets, (read + offsets[:-1]).view(-1, 1))


def summed_codes(*indices: Tensor) -> SummedCodes:
    """Returns sums over the rows of each index [N, k], of all indices one after the other."""
    sizes = [len(index) for index in indices]
    lengths = torch.cat([index.new_full((len(index),), index.shape[1]) for index in indices])
    places = torch.cat([index.flatten() for index in indices])
    return SummedCodes(places, lengths.cumsum(0) - lengths, sizes)
