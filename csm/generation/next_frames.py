"""The frames that follow rows of several sessions: products in common, random numbers each of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csm.generation.depth_sampler import DepthSampler
from csm.generation.next_code import NextCode
from csm.generation.next_frame import allowed_codes, code_limit, next_frame
from csm.generation.sampling import SamplingConfig, sample
from csm.network.conversation_network import ConversationNetwork


class Draw(NamedTuple):
    """What a frame is chosen from; the fields are the arguments of `next_frame`."""

    hidden: Float[Tensor, " D"]
    sampler: DepthSampler
    sampling: SamplingConfig
    generator: torch.Generator
    may_end: bool
    next_code: NextCode | None

    def alone(self) -> Tensor | None:
        """Returns the frame, chosen by itself."""
        return next_frame(
            self.hidden,
            self.sampler,
            self.sampling,
            self.generator,
            may_end=self.may_end,
            next_code=self.next_code,
        )


def next_frames(draws: Sequence[Draw]) -> list[Int[Tensor, " K"] | None]:
    """Returns the frame of each draw, None at a turn's end; each is what it is alone, up to rounding.

    Args:
        draws: Draws from one model. One whose codes a caller chooses is drawn by itself.
    """
    frames: list[Tensor | None] = [None if one.next_code is None else one.alone() for one in draws]
    sampled = [index for index, one in enumerate(draws) if one.next_code is None]
    if not sampled:
        return frames
    first = dict(zip(sampled, _first_codes([draws[index] for index in sampled]), strict=True))
    for places in _groups(draws, [index for index in sampled if first[index] is not None]):
        group = [draws[index] for index in places]
        codes = torch.tensor([first[index] for index in places], device=group[0].hidden.device)
        for index, one, frame in zip(places, group, _whole_frames(group, codes), strict=True):
            sampled_end = one.may_end and one.sampling.later_codes == "sampled"
            zeros_end = sampled_end and not one.sampler.model.config.end_code
            frames[index] = None if zeros_end and not bool(frame.any()) else frame
    return frames


def _first_codes(draws: Sequence[Draw]) -> list[int | None]:
    """Samples code 0 of each frame; None is the end of the turn."""
    model = draws[0].sampler.model
    config, cpu = model.config, torch.device("cpu")
    # Copied at once: `sample` reads a draw's logits on the CPU.
    logits = model.codebook0_head(torch.stack([one.hidden for one in draws])).float().to(cpu)
    codes: list[int | None] = []
    for row, one in zip(logits, draws, strict=True):
        limit = code_limit(config, one.sampling)
        allowed = allowed_codes(config, limit, may_end=one.may_end, device=cpu)
        masked = row.masked_fill(~allowed, float("-inf"))
        code = int(sample(masked, one.sampling.temperature, one.sampling.top_k, one.generator))
        codes.append(None if one.may_end and config.end_code and code == config.end_code else code)
    return codes


def _groups(draws: Sequence[Draw], places: Sequence[int]) -> list[list[int]]:
    """Returns the places in groups whose later codes are chosen in one way."""
    groups: dict[tuple[str, float, int], list[int]] = {}
    for index in places:
        sampling = draws[index].sampling
        limit = code_limit(draws[index].sampler.model.config, sampling)
        key = (sampling.later_codes, sampling.variance_restoration, limit)
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def _whole_frames(draws: Sequence[Draw], codes: Int[Tensor, " F"]) -> Sequence[Int[Tensor, " K"]]:
    """Returns the frames that begin with these codes, all chosen in one way."""
    sampler, sampling = draws[0].sampler, draws[0].sampling
    hidden = torch.stack([one.hidden for one in draws])
    if sampling.later_codes == "nearest":
        return sampler.nearest_frames(hidden, codes, restored=sampling.variance_restoration).unbind()
    limit = code_limit(sampler.model.config, sampling)
    # The compiled kernel computes one frame per call, from weights that stay in the cache.
    if len(draws) == 1 or any(one.sampler.is_native() or one.sampler.weights == "int8" for one in draws):
        return [_later_codes(one, code, limit) for one, code in zip(draws, codes, strict=True)]
    choices = [_choice(one, limit) for one in draws]
    return later_frames(sampler.model, sampler.model.depth_row(hidden), codes, choices).unbind()


def _later_codes(draw: Draw, code: Int[Tensor, ""], limit: int) -> Int[Tensor, " K"]:
    return draw.sampler.later_codes(
        draw.hidden,
        code,
        limit=limit,
        temperature=draw.sampling.later_temperature,
        top_k=draw.sampling.top_k,
        generator=draw.generator,
    )


def _choice(draw: Draw, limit: int) -> Callable[[Tensor], Tensor]:
    temperature, top_k = draw.sampling.later_temperature, draw.sampling.top_k
    return lambda logits: sample(logits[:limit], temperature, top_k, draw.generator)


def later_frames(
    model: ConversationNetwork,
    rows: Float[Tensor, "F D"],
    codes: Int[Tensor, " F"],
    choices: Sequence[Callable[[Tensor], Tensor]],
) -> Int[Tensor, "F K"]:
    """Returns whole frames by the depth decoder's modules, a code of all frames at a time.

    Args:
        model: Network of the depth decoder.
        rows: What position 0 reads of each frame (`depth_row`).
        codes: Code 0 of each frame.
        choices: Chooses a code of each frame from its logits [V] on the CPU.
    """
    decoder, chosen = model.depth_decoder, [codes]
    caches = decoder.start_frames(len(codes))
    embedded = model.audio_embedding(codes)
    inputs = torch.stack([rows, rows + embedded if decoder.cumulative else embedded], dim=1)
    for codebook in range(1, model.config.num_codebooks):
        states = decoder.step_frames(inputs, caches)[:, -1]
        logits = decoder.logits(states, codebook).float().cpu()
        picked = torch.stack([choose(row) for choose, row in zip(choices, logits, strict=True)])
        chosen.append(picked.to(codes.device))
        before = inputs[:, -1] if decoder.cumulative else 0
        inputs = (before + model.audio_embedding(chosen[-1] + model.codebook_offsets[codebook])).unsqueeze(1)
    return torch.stack(chosen, dim=1)
