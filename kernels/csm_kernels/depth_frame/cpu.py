"""depth_frame by the compiled kernel of cpu.cpp."""

import ctypes

import torch
from torch import Tensor

from csm_kernels.depth_frame.weights import DepthWeights
from csm_kernels.int8_rows import Int8Rows
from csm_kernels.native import integer, kernel, pointer, threads

# Weights of a step for each thread: with fewer, its barriers cost more than the second thread saves.
SHARE = 1 << 17


def draw(
    hidden: Tensor,
    code: int,
    weights: DepthWeights,
    drawn: int,
    temperature: float,
    top_k: int,
    uniforms: Tensor | None,
    *,
    with_logits: bool = False,
    instruction_set: str | None = None,
    team: int | None = None,
) -> tuple[Tensor, Tensor]:
    """See `csm_kernels.depth_frame`; all tensors are fp32 (or int8 rows) on the CPU.

    Args:
        hidden, code, weights, drawn, temperature, top_k, uniforms: As of the operation.
        with_logits: Whether logits are wanted; else they are empty.
        instruction_set: See `native.kernel`.
        team: Threads; None takes torch's, fewer where a step has little to share. The result is the same.
    """
    layer = weights.layers[0]
    tensors: list[Tensor | Int8Rows] = [weights.table, weights.projection, weights.norm, weights.heads]
    tensors += [weights.cos, weights.sin, *(tensor for layer in weights.layers for tensor in layer)]
    width, hidden_width, outer = weights.norm.shape[0], _rows(layer.gate), hidden.shape[0]
    sizes = (weights.n_heads, weights.n_kv_heads, 2 * weights.cos.shape[1])
    counts = (hidden_width, len(weights.layers), int(weights.cumulative))
    shape = (weights.books, weights.vocab, outer, width, *sizes, *counts)
    if team is None:
        team = max(1, min(threads().value, width * hidden_width * 3 * len(weights.layers) // SHARE))
    # Kept until the call is over: a tensor that was not contiguous is read from its copy.
    values = [(t.values if isinstance(t, Int8Rows) else t).detach().contiguous() for t in tensors]
    scales = [t.scale if isinstance(t, Int8Rows) else None for t in tensors]
    codes = torch.full((weights.books,), -1, dtype=torch.int64)
    codes[0] = code
    logits = torch.zeros(weights.books - 1 if with_logits else 0, weights.vocab)
    row = hidden.contiguous()
    given = None if uniforms is None else uniforms.contiguous()
    kernel("depth_frame", instruction_set)(
        (ctypes.c_void_p * len(values))(*(pointer(t).value for t in values)),
        (ctypes.c_void_p * len(values))(*(pointer(t).value for t in scales)),
        (ctypes.c_int64 * len(shape))(*shape),
        ctypes.c_double(weights.eps),
        pointer(row),
        integer(drawn),
        ctypes.c_double(temperature),
        integer(top_k),
        pointer(given),
        integer(team),
        pointer(codes),
        pointer(logits if with_logits else None),
    )
    return codes, logits


def _rows(matrix: Tensor | Int8Rows) -> int:
    return (matrix.values if isinstance(matrix, Int8Rows) else matrix).shape[0]
