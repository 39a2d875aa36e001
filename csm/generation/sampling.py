"""Samples codes from logits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

LaterCodes = Literal["sampled", "nearest"]
DAMAGED = "logits hold NaN or rule out every index: the model's weights are damaged"
# `sample_rows` adds weights as multiples of 2**-40 of the largest: whole numbers have one sum in any order.
UNITS = 2.0**40


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Settings by which codes are sampled.

    Attributes:
        temperature: Temperature of the softmax; 0: the argmax. The default is csm-1b's.
        depth_temperature: Temperature of the depth decoder's codes; none: that of `temperature`.
        later_codes: Source of codes 1 and on: "sampled", from the depth decoder; "nearest", those of the
            latent that the model predicts once code 0 is sampled, which are less varied and give clearer
            words.
        variance_restoration: Share of the variance that predicted latents lack beside recorded ones and that
            "nearest" restores: 0 nothing (dull and clear), 1 all of it. Statistical speech synthesis calls it
            global variance (Toda & Tokuda 2007).
        contrast: Contrast of the tokenizer's decoder (`TokenizerConfig.contrast`) where it decodes generated
            codes; none: the tokenizer's own.
        decoded_codebooks: Number of first codebooks from which a frame's sound is decoded; none: all that are
            modelled. Fewer need a decoder that was trained on them (`semantic_only`), and raise the word
            error rate (docs/LOG.md).
        guidance: Strength of guidance: how far the hidden row that a frame is predicted from is moved away
            from the row that the same model computes without reading the text (`SpokenTurn.guided`); 0: no
            guidance. It makes words clearer, and a frame costs a second row of the backbone. Above 0 only
            with cross-attention.
        top_k: Number of most probable codes to sample from; 0: all.
        extra_codes: Whether a model that ends turns by zeros may sample the extra entries of its vocabulary,
            as csm-1b's public generators do; no tokenizer can decode such a code. "nearest" samples none of
            them: it needs the code's vector.
        speed: Rate of speech as a multiple of the predicted one, 0.5 to 2; needs a model that predicts the
            durations of phones.
        shortest: Shortest length of a turn, as a share of its expected length.
        max_seconds: Longest length of a turn, in seconds.
        seed: Seed of the random numbers; the same seed gives the same speech.

    Raises:
        ValueError: A value is out of its range.
    """

    temperature: float = 0.9
    depth_temperature: float | None = None
    later_codes: LaterCodes = "sampled"
    variance_restoration: float = 0.0
    contrast: float | None = None
    decoded_codebooks: int | None = None
    guidance: float = 0.0
    top_k: int = 50
    extra_codes: bool = False
    speed: float = 1.0
    shortest: float = 0.6
    max_seconds: float = 15.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0 or (self.depth_temperature or 0) < 0:
            raise ValueError(f"temperature is {self.temperature}: expected 0 (greedy) or above")
        if self.later_codes not in get_args(LaterCodes):
            raise ValueError(f"later_codes is {self.later_codes!r}: expected one of {get_args(LaterCodes)}")
        if not 0 <= self.variance_restoration <= 1:
            raise ValueError(f"variance_restoration is {self.variance_restoration}: expected 0 to 1")
        if self.contrast is not None and not self.contrast > 0:
            raise ValueError(f"contrast is {self.contrast}: expected above 0, or none for the tokenizer's")
        if self.decoded_codebooks is not None and self.decoded_codebooks < 1:
            raise ValueError(f"decoded_codebooks is {self.decoded_codebooks}: expected 1 or more, or none")
        if not 0.5 <= self.speed <= 2:
            raise ValueError(f"speed is {self.speed}: expected 0.5 (half the rate) to 2 (double)")
        if self.shortest < 0:
            raise ValueError(
                f"shortest is {self.shortest}: expected a share of the expected length, 0 or above"
            )
        if not 0 <= self.guidance < math.inf:
            raise ValueError(f"guidance is {self.guidance}: expected 0 (none) or above")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}: expected 0 (all) or above")
        if self.max_seconds <= 0:
            raise ValueError(f"max_seconds is {self.max_seconds}: expected above 0")

    def require_reading(self, reads: bool) -> None:
        """Refuses guidance for a model whose voice rows read no text.

        Args:
            reads: Whether they read it, by cross-attention.

        Raises:
            ValueError: They do not, and guidance is above 0.
        """
        if self.guidance and not reads:
            raise ValueError(
                f"sampling.guidance is {self.guidance}: the model reads no text by cross-attention, which "
                f"guidance compares with; expected 0"
            )

    @property
    def later_temperature(self) -> float:
        """Temperature of the depth decoder's codes."""
        return self.temperature if self.depth_temperature is None else self.depth_temperature


def sample(logits: Float[Tensor, " V"], temperature: float, top_k: int, generator: torch.Generator) -> Tensor:
    """Samples one index, on the CPU, so that all devices give the same index for a seed.

    The index is the first whose cumulative weight exceeds a uniform number in [0, 1) times the total weight.
    `csm_kernels.depth_frame` samples by the same rule.

    Args:
        logits: Logits [V]; -inf excludes an index.
        temperature: Temperature of the softmax; 0 takes the argmax.
        top_k: Number of largest logits to sample from, 0 for all; of equal logits the lowest index is kept.
        generator: Generator on the CPU.

    Returns:
        int64 scalar on the logits' device.

    Raises:
        ValueError: A logit is NaN, or all logits are -inf.
    """
    largest = logits.amax()
    if not bool(largest.isfinite()):
        raise ValueError(DAMAGED)
    if temperature == 0:
        return logits.argmax()
    scores = logits.detach().float().cpu()
    indices = torch.arange(len(scores))
    if 0 < top_k < len(scores):
        least = scores.topk(top_k).values[-1]
        above, equal = scores > least, scores == least
        indices = (above | equal & (equal.cumsum(0) <= top_k - above.sum())).nonzero()[:, 0]
    # Rounded like the compiled kernel's weights and sums, so that a seed gives the same codes on both paths.
    passed = ((scores[indices] - largest.cpu()) / temperature).exp().double().cumsum(0)
    uniform = torch.rand((), dtype=torch.float64, generator=generator)
    return indices[torch.searchsorted(passed, uniform * passed[-1], right=True)].to(logits.device)


def sample_rows(
    logits: Float[Tensor, "B V"],
    temperature: Float[Tensor, " B"],
    top_k: Int[Tensor, " B"],
    uniform: Float[Tensor, " B"],
) -> Int[Tensor, " B"]:
    """Samples one index of each row on the logits' device, without a wait for it.

    The rule is that of `sample`: a uniform number gives the same index up to the rounding of the weights.

    Args:
        logits: Logits; -inf excludes an index.
        temperature: Temperature of each row's softmax; 0 takes the argmax.
        top_k: Number of largest logits of each row to sample from, 1 to V.
        uniform: float64, a number in [0, 1) for each row; not read at temperature 0.

    Returns:
        int64; -1 where a logit is NaN or all logits are -inf.
    """
    scores = logits.float()
    largest = scores.amax(1, keepdim=True)
    kept, last = top_k.unsqueeze(1), scores.shape[1] - 1
    least = scores.sort(1, descending=True).values.gather(1, kept - 1)
    above, equal = scores > least, scores == least
    among = above | equal & (equal.cumsum(1) <= kept - above.sum(1, keepdim=True))
    greedy = temperature == 0
    heat = temperature.masked_fill(greedy, 1.0).unsqueeze(1)
    weights = (((scores - largest) / heat).exp() * UNITS).long() * among
    passed = weights.cumsum(1).double()
    drawn = torch.searchsorted(passed, uniform.unsqueeze(1) * passed[:, -1:], right=True)[:, 0]
    index = torch.where(greedy, scores.argmax(1), drawn.clamp(max=last))
    return index.masked_fill(~largest[:, 0].isfinite(), -1)
