"""Checks of what a user gives to CSMModel, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from csm.network.model_config import CSMConfig
from csm.text import PAD, ByteCodec, TextCodec


def checked_texts(text_tokens: Tensor | Sequence[str], codec: TextCodec, vocab_size: int) -> list[str]:
    """Returns the texts of a batch, decoded if they are ids.

    Args:
        text_tokens: Texts, or ids int64 [B, L] of the codec; bytes are padded with 256.
        codec: Text codec of the model.
        vocab_size: Number of ids that the model has embeddings of.

    Raises:
        ValueError: A text is empty, or the ids have a wrong shape, type or range.
    """
    if isinstance(text_tokens, str):
        raise ValueError("text_tokens is one string: expected a list of texts, or int64 [B, L]")
    if not isinstance(text_tokens, Tensor):
        texts = list(text_tokens)
    elif text_tokens.ndim == 2 and not text_tokens.is_floating_point():
        low, high = (int(text_tokens.min()), int(text_tokens.max())) if text_tokens.numel() else (0, 0)
        vocab_size = codec.vocab_size or vocab_size
        if low < 0 or high >= vocab_size:
            raise ValueError(f"text_tokens range over {low}..{high}: expected 0..{vocab_size - 1}")
        # Other codecs pad with a control id, which decodes to nothing; their 256 is text.
        pad = PAD if isinstance(codec, ByteCodec) else -1
        texts = [codec.decode([i for i in row if i != pad]) for row in text_tokens.tolist()]
    else:
        raise ValueError(
            f"text_tokens have shape {tuple(text_tokens.shape)} and type {text_tokens.dtype}: expected "
            f"int64 [B, L]"
        )
    empty = [i for i, text in enumerate(texts) if not text.strip()]
    if empty or not texts:
        raise ValueError(f"text of items {empty} is empty: expected something to say in each")
    return texts


def check_codes(codes: Tensor, config: CSMConfig) -> None:
    """Checks the shape and range of voice codes.

    Raises:
        ValueError: They are not int64 [B, K, T], or have too few codebooks, no frame, or codes out of range.
    """
    c = config
    whole = not (codes.is_floating_point() or codes.dtype == torch.bool)
    if codes.ndim != 3 or codes.shape[1] < c.num_codebooks or codes.numel() == 0 or not whole:
        raise ValueError(
            f"voice_codes have shape {tuple(codes.shape)} and type {codes.dtype}: expected int64 [B, K, "
            f"T] with K >= {c.num_codebooks} and at least one frame"
        )
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= c.codebook_size:
        raise ValueError(f"voice_codes range over {low}..{high}: expected 0..{c.codebook_size - 1}")
