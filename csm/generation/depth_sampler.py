"""Codes 1..K-1 of a frame: by one native call if that computes the same, else module by module."""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from csm.generation.next_code import NextCode
from csm.generation.sampling import sample
from csm.network.conversation_network import ConversationNetwork
from csm.network.depth_decoder import DepthDecoder
from csm.network.layers import FeedForward, RMSNorm, SelfAttention, TransformerBlock
from csm_kernels import DepthLayer, DepthWeights, depth_frame, has_compiled

WeightKind = Literal["fp32", "int8"]
# The modules that the native loop computes; a LoRA layer, say, computes something else.
KNOWN = (
    DepthDecoder,
    TransformerBlock,
    SelfAttention,
    FeedForward,
    RMSNorm,
    nn.Linear,
    nn.ModuleList,
    nn.Dropout,
)


class DepthSampler:
    """Samples the later codes of frames with a model's depth decoder.

    It calls the native kernel on the CPU in fp32, in eval mode and outside autocast, if the kernels are
    compiled and the decoder consists of its plain modules without hooks. It runs module by module elsewhere,
    and if a caller chooses the codes. A seed gives the same codes on both ways, up to rounding.

    Args:
        model: Network of the depth decoder.
        weights: "fp32" reads the model's own weights. "int8" reads a copy at a quarter of the bytes, a scale
            for every output row: faster, with logits that are off by about a hundredth of their deviation
            (tests/kernels/test_depth_frame.py holds the bound). The copy is remade when the model's weights
            have changed, unless through `.data`.

    Raises:
        ValueError: The weights are unknown.
    """

    def __init__(self, model: ConversationNetwork, weights: WeightKind = "fp32") -> None:
        if weights not in get_args(WeightKind):
            raise ValueError(f"weights is {weights!r}: expected one of {', '.join(get_args(WeightKind))}")
        self.model, self.weights = model, weights
        self._copy: DepthWeights | None = None
        self._positions: tuple[Tensor, Tensor] | None = None

    def later_codes(
        self,
        hidden: Float[Tensor, " D"],
        code: Int[Tensor, ""],
        *,
        limit: int,
        temperature: float,
        top_k: int,
        generator: torch.Generator,
        next_code: NextCode | None = None,
    ) -> Int[Tensor, " K"]:
        """Returns the whole frame that begins with `code`, sampled after the backbone's row.

        Args:
            hidden: Row of the backbone.
            code: Code 0.
            limit: Codes from here on are not sampled.
            temperature, top_k, generator: As `sample` takes them.
            next_code: Chooses the codes instead of sampling.

        Raises:
            ValueError: Logits are NaN or infinite; with int8 weights, the native kernel cannot run.
        """
        hidden = self.model.depth_row(hidden)
        if next_code is None and self.is_native():
            books = self.model.config.num_codebooks
            uniforms = None
            if temperature:
                uniforms = torch.rand(books - 1, dtype=torch.float64, generator=generator)
            return depth_frame(
                hidden,
                int(code),
                self._native_weights(),
                drawn=limit,
                temperature=temperature,
                top_k=top_k,
                uniforms=uniforms,
            ).codes
        if self.weights == "int8":
            raise ValueError(
                "weights is 'int8': expected an fp32 model of plain layers on a CPU, in eval mode, and "
                "kernels compiled at the installation; use weights='fp32'"
            )
        if next_code is None:

            def next_code(logits: Tensor, codebook: int, allowed: Tensor) -> Tensor:
                return sample(logits[:limit], temperature, top_k, generator)

        return self._by_modules(hidden, code, limit, next_code)

    def nearest_codes(
        self, hidden: Float[Tensor, " D"], code: Int[Tensor, ""], *, restored: float = 0.0
    ) -> Int[Tensor, " K"]:
        """Returns the whole frame that begins with `code`; see `nearest_frames`.

        Raises:
            ValueError: As of `nearest_frames`; or the code is one that a tokenizer does not have.
        """
        size = self.model.config.codebook_size
        if not 0 <= int(code) < size:
            raise ValueError(
                f"code 0 is {int(code)} and sampling.later_codes is 'nearest': expected a code of the "
                f"tokenizer, 0..{size - 1}, whose vector the later codes add to; use 'sampled'"
            )
        return self.nearest_frames(hidden.unsqueeze(0), code.unsqueeze(0), restored=restored)[0]

    def nearest_frames(
        self, hidden: Float[Tensor, "F D"], codes: Int[Tensor, " F"], *, restored: float = 0.0
    ) -> Int[Tensor, "F K"]:
        """Returns the whole frames that begin with `codes`, by residual search of the predicted latents.

        Args:
            hidden: Rows of the backbone.
            codes: Code 0 of each frame, all below the codebook size.
            restored: Share of the latents' variance that is restored, 0 to 1.

        Raises:
            ValueError: The model predicts no latent, or has no code vectors.
        """
        predicted = self.model.predicted_latent
        if predicted is None:
            raise ValueError(
                "sampling.later_codes is 'nearest' and the model predicts no latent: expected a model with "
                "latent_dim; use 'sampled'"
            )
        latents = predicted.given_code0(hidden, self.model.audio_embedding(codes))
        return predicted.nearest_codes(predicted.restore_variance(latents, restored), codes)

    def is_native(self) -> bool:
        """Returns whether the native kernel computes what the modules would."""
        decoder = self.model.depth_decoder
        if not has_compiled("depth_frame") or torch.is_autocast_enabled("cpu"):
            return False
        modules = (*decoder.modules(), self.model.audio_embedding)
        if any(module.training or has_hooks(module) for module in modules):
            return False
        if any(type(module) not in KNOWN for module in modules[:-1]):
            return False
        parameters = (*decoder.parameters(), self.model.audio_embedding.weight)
        return all(p.dtype == torch.float32 and p.device.type == "cpu" for p in parameters)

    def _native_weights(self) -> DepthWeights:
        if self.weights == "fp32":
            return self._own_weights()
        if self._copy is None or not self._copy.is_current():
            self._copy = self._own_weights().int8()
        return self._copy

    def _own_weights(self) -> DepthWeights:
        decoder = self.model.depth_decoder
        attention = cast(TransformerBlock, decoder.blocks[0]).attention
        if self._positions is None:
            places = torch.arange(decoder.num_codebooks, dtype=torch.float32).unsqueeze(1)
            angles = places * attention.frequencies
            self._positions = angles.cos(), angles.sin()
        cos, sin = self._positions
        return DepthWeights(
            table=self.model.audio_embedding.weight,
            projection=decoder.projection.weight,
            layers=tuple(_layer(cast(TransformerBlock, block)) for block in decoder.blocks),
            norm=decoder.norm.weight,
            heads=decoder.heads,
            cos=cos,
            sin=sin,
            n_heads=attention.n_heads,
            n_kv_heads=attention.n_kv_heads,
            eps=decoder.norm.eps,
            cumulative=decoder.cumulative,
        )

    def _by_modules(self, hidden: Tensor, code: Tensor, limit: int, next_code: NextCode) -> Tensor:
        model = self.model
        codes = [code]
        cache = model.depth_decoder.start()
        embedded = model.audio_embedding(code)
        rows = torch.stack([hidden, hidden + embedded if model.depth_decoder.cumulative else embedded])
        allowed = torch.arange(model.config.audio_vocab_size, device=hidden.device) < limit
        for codebook in range(1, model.config.num_codebooks):
            row = model.depth_decoder.step(rows, cache)[-1]
            codes.append(next_code(model.depth_decoder.logits(row, codebook).float(), codebook, allowed))
            before = rows[-1] if model.depth_decoder.cumulative else 0
            rows = (before + model.audio_embedding(codes[-1] + model.codebook_offsets[codebook])).unsqueeze(0)
        return torch.stack(codes)


def has_hooks(module: nn.Module) -> bool:
    """Returns whether a call of the module does more than its forward pass."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _layer(block: TransformerBlock) -> DepthLayer:
    attention, feed_forward = block.attention, block.feed_forward
    return DepthLayer(
        attention_norm=block.attention_norm.weight,
        q=attention.q_proj.weight,
        k=attention.k_proj.weight,
        v=attention.v_proj.weight,
        o=attention.o_proj.weight,
        feed_forward_norm=block.feed_forward_norm.weight,
        gate=feed_forward.gate_proj.weight,
        up=feed_forward.up_proj.weight,
        down=feed_forward.down_proj.weight,
    )
