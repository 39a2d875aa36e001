"""A speech recogniser's text decoder, as a training signal: the words must remain readable in the codes.

Architecture and weights are those of Whisper's decoder (Radford et al. 2022). It is trained with the semantic
codes in place of the encoder's features and takes no part in the packaged tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class TextDecoder(nn.Module):
    """Text ids and speech features to logits of the id that follows.

    Args:
        vocab_size: Text ids V.
        width: Channels D.
        n_layers, n_heads: Transformer layers and heads of each.
        longest: Most ids of one text.
    """

    def __init__(self, vocab_size: int, width: int, n_layers: int, n_heads: int, longest: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.positions = nn.Parameter(torch.zeros(longest, width))
        self.layers = nn.ModuleList(DecoderLayer(width, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, ids: Int[Tensor, "B L"], speech: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B L V"]:
        """Returns logits [B, L, V].

        Args:
            ids: int64 [B, L]; padding at the end may hold any id.
            speech: Features [B, T, D] that the text is read from.
            mask: bool [B, T], False on padding of the features.
        """
        return F.linear(self._states(ids, speech, mask), self.embedding.weight)

    def following(
        self, ids: Int[Tensor, "B L"], speech: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B V"]:
        """Returns the logits [B, V] of the id after the last one: the vocabulary is most of the work."""
        return F.linear(self._states(ids, speech, mask)[:, -1], self.embedding.weight)

    def _states(self, ids: Tensor, speech: Tensor, mask: Tensor) -> Float[Tensor, "B L D"]:
        x = self.embedding(ids) + self.positions[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x, speech, mask)
        normed: Tensor = self.norm(x)
        return normed


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention to speech and a perceptron, each behind its norm."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.self_norm, self.cross_norm, self.feed_forward_norm = (nn.LayerNorm(width) for _ in range(3))
        self.qkv, self.self_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q, self.kv, self.cross_out = (
            nn.Linear(width, width),
            nn.Linear(width, 2 * width),
            nn.Linear(width, width),
        )
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, speech: Tensor, mask: Tensor) -> Float[Tensor, "B L D"]:
        """Returns [B, L, D]."""
        q, k, v = map(self._heads, self.qkv(self.self_norm(x)).chunk(3, dim=-1))
        x = x + self.self_out(_joined(F.scaled_dot_product_attention(q, k, v, is_causal=True)))
        q = self._heads(self.q(self.cross_norm(x)))
        k, v = map(self._heads, self.kv(speech).chunk(2, dim=-1))
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        x = x + self.cross_out(_joined(read))
        out: Tensor = x + self.down(F.gelu(self.up(self.feed_forward_norm(x))))
        return out

    def _heads(self, x: Tensor) -> Float[Tensor, "B N L H"]:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


def _joined(x: Tensor) -> Float[Tensor, "B L D"]:
    return x.transpose(1, 2).flatten(2)


def whisper_decoder(weights: Mapping[str, Tensor]) -> TextDecoder:
    """Returns Whisper's decoder from the decoder variables of a CTranslate2 file.

    Raises:
        ValueError: A variable is missing.
    """
    layers = 0
    while f"layer_{layers}/self_attention/linear_0/weight" in weights:
        layers += 1
    try:
        vocab_size, width = weights["embeddings/weight"].shape
        places = weights["position_encodings/encodings"]
        decoder = TextDecoder(vocab_size, width, layers, int(weights["num_heads"]), len(places))
        state = {"embedding.weight": weights["embeddings/weight"], "positions": places}
        for ours, theirs in {"norm": "layer_norm", **_layer_names(layers)}.items():
            kinds = ("gamma", "beta") if theirs.endswith("layer_norm") else ("weight", "bias")
            state[f"{ours}.weight"], state[f"{ours}.bias"] = (weights[f"{theirs}/{kind}"] for kind in kinds)
    except KeyError as error:
        raise ValueError(f"no decoder variable {error}: expected a Whisper model") from error
    decoder.load_state_dict({name: value.float() for name, value in state.items()})
    return decoder


def _layer_names(layers: int) -> dict[str, str]:
    names = {
        "self_norm": "self_attention/layer_norm",
        "qkv": "self_attention/linear_0",
        "self_out": "self_attention/linear_1",
        "cross_norm": "attention/layer_norm",
        "q": "attention/linear_0",
        "kv": "attention/linear_1",
        "cross_out": "attention/linear_2",
        "feed_forward_norm": "ffn/layer_norm",
        "up": "ffn/linear_0",
        "down": "ffn/linear_1",
    }
    return {
        f"layers.{number}.{ours}": f"layer_{number}/{theirs}"
        for number in range(layers)
        for ours, theirs in names.items()
    }
