"""Mimi's decoder as a stream: chunk after chunk of latents, each layer keeps the past that it reads.

transformers decodes whole signals: its cache covers the decoder's transformer alone. Here every convolution
keeps its last inputs, and every transposed convolution the outputs that the next chunk adds to, so that the
chunks of a signal are the whole one, without clicks at their borders.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class MimiDecoderStream:
    """One signal that is decoded in chunks.

    Args:
        decoder: MimiDecoderModel of transformers, of any size.
        cache: Empty cache of its transformer's keys and values; it drops what leaves the window.

    Raises:
        ValueError: The decoder is not causal, or pads with more than zeros.
    """

    def __init__(self, decoder: Any, cache: Any) -> None:
        config = decoder.config
        needed = {"use_causal_conv": True, "trim_right_ratio": 1.0, "pad_mode": "constant"}
        for name, expected in needed.items():
            if (value := getattr(config, name)) != expected:
                raise ValueError(f"{name} of Mimi is {value!r}: expected {expected!r} for streaming")
        self._decoder, self._cache = decoder, cache
        self._past: dict[nn.Module, Tensor] = {}

    def __call__(self, latents: Float[Tensor, "B D T"]) -> Float[Tensor, "B 1 S"]:
        """Returns the audio of the frames that follow."""
        steps = self._layer(self._decoder.upsample, latents).transpose(1, 2)
        rows = self._decoder.decoder_transformer(steps, cache=self._cache, use_cache=True).last_hidden_state
        x: Tensor = rows.transpose(1, 2)
        for layer in self._decoder.decoder_seanet.layers:
            x = self._layer(layer, x)
        return x

    def _layer(self, layer: Any, x: Tensor) -> Tensor:
        if hasattr(layer, "block"):
            within = x
            for part in layer.block:
                within = self._layer(part, within)
            return self._layer(layer.shortcut, x) + within
        if not hasattr(layer, "conv"):
            out: Tensor = layer(x)
            return out
        return (self._transposed if isinstance(layer.conv, nn.ConvTranspose1d) else self._convolved)(layer, x)

    def _convolved(self, layer: Any, x: Tensor) -> Tensor:
        size = int(layer.padding_total)
        past = self._past.get(layer)
        x = torch.cat([x.new_zeros(*x.shape[:2], size) if past is None else past, x], dim=2)
        self._past[layer] = x[..., x.shape[2] - size :]
        out: Tensor = layer.conv(x)
        return out

    def _transposed(self, layer: Any, x: Tensor) -> Tensor:
        out: Tensor = layer.conv(x)
        ready = x.shape[2] * layer.conv.stride[0]
        if (past := self._past.get(layer)) is not None:
            out[..., : past.shape[2]] += past
        bias = 0.0 if layer.conv.bias is None else layer.conv.bias[:, None]
        # The next chunk's output has a bias of its own there.
        self._past[layer] = out[..., ready:] - bias
        return out[..., :ready]
