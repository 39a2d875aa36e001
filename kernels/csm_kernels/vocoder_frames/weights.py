"""Inputs of vocoder_frames: the tensors of FARGAN's signal network, and what a stream of speech carries."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from csm_kernels.int8_rows import Int8Rows

FRAME, SUBFRAMES, SUBFRAME = 160, 4, 40  # samples of a frame; its subframes; samples of one
CONDITION, PREDICTED, HISTORY = 80, 44, 256
MEMORY = CONDITION + PREDICTED + SUBFRAME  # the convolution's input of one subframe
CONVOLVED, SKIPPED, GAINS = 192, 128, 4
STATES = 160, 128, 128  # widths of the three GRUs
SHORTEST, LONGEST = 32, 255  # periods in samples

SHAPES: dict[str, tuple[int, ...]] = {
    "gain": (1, CONDITION),
    "gain_bias": (1,),
    "convolution": (CONVOLVED, 2 * MEMORY),
    "convolution_gate": (CONVOLVED, CONVOLVED),
    "pitch_gains": (GAINS, CONVOLVED),
    "pitch_gains_bias": (GAINS,),
    **{
        f"gru{k}_{part}": (rows * width, columns)
        for k, width, before in zip((1, 2, 3), STATES, (CONVOLVED, *STATES), strict=False)
        for part, rows, columns in (
            ("input", 3, before + 2 * SUBFRAME),
            ("recurrent", 3, width),
            ("gate", 1, width),
        )
    },
    "skip": (SKIPPED, sum(STATES) + CONVOLVED + 2 * SUBFRAME),
    "skip_gate": (SKIPPED, SKIPPED),
    "output": (SUBFRAME, SKIPPED),
}
# What int8 replaces, in the order in which a subframe reads it.
MATRICES = tuple(name for name in SHAPES if "gain" not in name)


@dataclass(frozen=True, kw_only=True, eq=False)
class VocoderWeights:
    """Weights of FARGAN's signal network, fp32; matrices are [out, in], the sizes are the paper's.

    All matrices but `gain` and `pitch_gains` may be int8 with a scale per row, as the published weights are,
    which then lose nothing. The tensors are the caller's, not copies: a change in place counts from the next
    call on.

    The rows of a GRU's matrices are those of the update gate, of the reset gate and of the candidate, in this
    order. The inputs below are named in the order of a matrix's columns.

    Attributes:
        shapes: Shape of each tensor by name.
        matrices: Names of those that int8 replaces.
        gain: Condition -> log gain of the subframe, [1, 80].
        gain_bias: Its bias, [1].
        convolution: Inputs of the last subframe and of this one (each: condition 80, pitch prediction 44,
            last 40 samples) -> features, [192, 328].
        convolution_gate: Gate of the features, [192, 192].
        pitch_gains: Features -> gains of the pitch prediction for the GRUs and the skip layer, [4, 192].
        pitch_gains_bias: Their biases, [4].
        gru1_input: Features 192, pitch prediction 40, last 40 samples -> [480, 272].
        gru2_input: Gated state of GRU 1 160, pitch prediction 40, last 40 samples -> [384, 240].
        gru3_input: Gated state of GRU 2 128, pitch prediction 40, last 40 samples -> [384, 208].
        gru1_recurrent, gru2_recurrent, gru3_recurrent: State -> [480, 160], [384, 128], [384, 128].
        gru1_gate, gru2_gate, gru3_gate: Gates of the states, [160, 160], [128, 128], [128, 128].
        skip: Gated states 160, 128, 128, features 192, pitch prediction 40, last 40 samples -> [128, 688].
        skip_gate: Gate of the skip layer, [128, 128].
        output: Skip layer -> samples of the subframe, [40, 128].

    Raises:
        ValueError: A shape or dtype is not the one above, the devices differ, or a number is not finite.
    """

    shapes: ClassVar[dict[str, tuple[int, ...]]] = SHAPES
    matrices: ClassVar[tuple[str, ...]] = MATRICES

    gain: Tensor
    gain_bias: Tensor
    convolution: Tensor | Int8Rows
    convolution_gate: Tensor | Int8Rows
    pitch_gains: Tensor
    pitch_gains_bias: Tensor
    gru1_input: Tensor | Int8Rows
    gru1_recurrent: Tensor | Int8Rows
    gru1_gate: Tensor | Int8Rows
    gru2_input: Tensor | Int8Rows
    gru2_recurrent: Tensor | Int8Rows
    gru2_gate: Tensor | Int8Rows
    gru3_input: Tensor | Int8Rows
    gru3_recurrent: Tensor | Int8Rows
    gru3_gate: Tensor | Int8Rows
    skip: Tensor | Int8Rows
    skip_gate: Tensor | Int8Rows
    output: Tensor | Int8Rows

    def __post_init__(self) -> None:
        wrong = [n for n, m in self.named().items() if isinstance(m, Int8Rows) and n not in MATRICES]
        if wrong:
            raise ValueError(f"{wrong[0]}: expected float32: int8 replaces {', '.join(MATRICES)}")
        dtype, device = self.gain.dtype, self.gain.device
        for name, matrix in self.named().items():
            if isinstance(matrix, Int8Rows):
                _check(name, matrix.values, SHAPES[name], torch.int8, device)
                floats, shape = matrix.scale, SHAPES[name][:1]
            else:
                floats, shape = matrix, SHAPES[name]
            _check(name, floats, shape, dtype, device)
            if not bool(floats.isfinite().all()):
                raise ValueError(f"{name}: expected finite numbers, got NaN or infinity: damaged weights")
        if len({isinstance(getattr(self, name), Int8Rows) for name in MATRICES}) > 1:
            raise ValueError("weights: expected all matrices in int8 or none; use VocoderWeights.int8()")

    def named(self) -> dict[str, Tensor | Int8Rows]:
        """Returns the tensors by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def int8(self) -> VocoderWeights:
        """Returns a copy with every matrix but those of the gains in int8 and a scale per row.

        Raises:
            ValueError: The weights are in int8 already.
        """
        changed: dict[str, Any] = {}
        for name in MATRICES:
            matrix = getattr(self, name)
            if isinstance(matrix, Int8Rows):
                raise ValueError("weights: expected fp32, got int8 already; make the copy from fp32 weights")
            changed[name] = Int8Rows.of(matrix)
        return replace(self, **changed)

    def restored(self) -> VocoderWeights:
        """Returns weights without int8: these, or the fp32 matrices that int8 ones stand for."""
        kept = self.named()
        changed: dict[str, Any] = {n: m.restored() for n, m in kept.items() if isinstance(m, Int8Rows)}
        return replace(self, **changed) if changed else self


def _check(
    name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:
    fits = tensor.shape == shape and tensor.dtype == dtype and tensor.device == device
    if not fits or dtype not in (torch.float32, torch.float64, torch.int8):
        raise ValueError(
            f"{name}: expected float32 {list(shape)} on {device} as gain (or float64, all of one dtype; or "
            f"int8 matrices with a scale for every row), got {tensor.dtype} {list(tensor.shape)} on "
            f"{tensor.device}"
        )


class VocoderState(NamedTuple):
    """What B streams carry from one call to the next; dtype and device are those of the weights.

    Attributes:
        samples: Last samples before de-emphasis, [B, 256].
        convolution: Input of the convolution in the last subframe, [B, 164].
        gru1, gru2, gru3: States of the GRUs, [B, 160], [B, 128], [B, 128].
        period: Period of the last frame in samples, int64 [B]; 0 before the first frame.
    """

    samples: Tensor
    convolution: Tensor
    gru1: Tensor
    gru2: Tensor
    gru3: Tensor
    period: Tensor

    @classmethod
    def silence(
        cls, batch: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> VocoderState:
        """Returns the state of `batch` streams before their first frame."""
        widths = HISTORY, MEMORY, *STATES
        tensors = [torch.zeros(batch, width, dtype=dtype, device=device) for width in widths]
        tensors.append(torch.zeros(batch, dtype=torch.int64, device=device))
        return cls(*tensors)
