"""The frame that follows a hidden row: code 0 from the backbone's head, then the later codes."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from csm.generation.depth_sampler import DepthSampler
from csm.generation.next_code import NextCode
from csm.generation.sampling import SamplingConfig, sample
from csm.network.model_config import CSMConfig


def next_frame(
    hidden: Float[Tensor, " D"],
    sampler: DepthSampler,
    sampling: SamplingConfig,
    generator: torch.Generator,
    *,
    may_end: bool,
    next_code: NextCode | None = None,
) -> Int[Tensor, " K"] | None:
    """Returns the frame after a row, or None at the end of the turn.

    Args:
        hidden: Hidden row of the backbone.
        sampler: Samples the later codes.
        sampling: How codes are sampled.
        generator: Draws the codes.
        may_end: Whether the turn may end here.
        next_code: Chooses every code instead of sampling; None samples.

    Raises:
        ValueError: Logits are NaN; or later codes are the nearest ones and there are none (`nearest_codes`).
    """
    config = sampler.model.config
    limit = code_limit(config, sampling)
    logits = sampler.model.codebook0_head(hidden).float()
    allowed = allowed_codes(config, limit, may_end=may_end, device=logits.device)
    if next_code is not None:
        code = next_code(logits, 0, allowed)
    else:
        masked = logits.masked_fill(~allowed, float("-inf"))
        code = sample(masked, sampling.temperature, sampling.top_k, generator)
    if may_end and int(code) == config.end_code and config.end_code:
        return None
    if sampling.later_codes == "nearest":
        return sampler.nearest_codes(hidden, code, restored=sampling.variance_restoration)
    frame = sampler.later_codes(
        hidden,
        code,
        limit=limit,
        temperature=sampling.later_temperature,
        top_k=sampling.top_k,
        generator=generator,
        next_code=next_code,
    )
    if may_end and not config.end_code and not bool(frame.any()):
        return None
    return frame


def code_limit(config: CSMConfig, sampling: SamplingConfig) -> int:
    """Returns the code from which on none is sampled.

    Codes beyond a tokenizer's have no vector to which nearest codes could add.
    """
    extra = sampling.extra_codes and not config.end_code and sampling.later_codes == "sampled"
    return config.audio_vocab_size if extra else config.codebook_size


def allowed_codes(
    config: CSMConfig, limit: int, *, may_end: bool, device: torch.device
) -> Bool[Tensor, " V"]:
    """Returns which codes 0 are allowed: those below the limit, and the end code where the turn may end."""
    codes = torch.arange(config.audio_vocab_size, device=device)
    allowed = codes < limit
    return allowed | (codes == config.end_code) if may_end else allowed
