"""The next frames of several turns, as one function of tensors of fixed shapes without a wait for the device.

It computes what `csm.generation.next_frame` computes turn by turn, so that a CUDA graph can hold a whole
frame with all its codes. What differs from turn to turn and from frame to frame lies in a tensor of inputs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csm.generation.depth_sampler import DepthSampler
from csm.generation.next_frame import code_limit
from csm.generation.sampling import DAMAGED, LaterCodes, SamplingConfig, sample_rows
from csm.generation.spoken_turn import SpokenTurn
from csm.network.conversation_network import ConversationNetwork
from csm.network.model_config import CSMConfig

# Numbers of a turn's inputs beside one uniform number for each code.
SETTINGS = 5


class LaterRule(NamedTuple):
    """How codes 1..K-1 follow from code 0: what a captured graph cannot read from its inputs.

    Attributes:
        later_codes, variance_restoration: As of SamplingConfig.
    """

    later_codes: LaterCodes
    variance_restoration: float

    @classmethod
    def of(cls, sampling: SamplingConfig) -> LaterRule:
        """Returns the rule of these settings; restored variance counts where codes follow the latent."""
        nearest = sampling.later_codes == "nearest"
        return cls(sampling.later_codes, sampling.variance_restoration if nearest else 0.0)


class FrameDraw:
    """The random numbers and settings of the next frame of a turn.

    Numbers are drawn in the order in which `next_frame` draws them, so that a seed gives the same codes.

    Args:
        config: Sizes of the model.
        turn: Turn that the frame belongs to.

    Attributes:
        turn: As the argument.
        inputs: float64 [K + SETTINGS], uniform numbers and settings.
    """

    def __init__(self, config: CSMConfig, turn: SpokenTurn) -> None:
        self.turn, self._end_code = turn, config.end_code
        sampling, generator = turn.sampling, turn.generator
        self._by_latent = sampling.later_codes == "nearest"
        books, size = config.num_codebooks, config.audio_vocab_size
        self.inputs = torch.zeros(books + SETTINGS, dtype=torch.float64)
        if sampling.temperature:
            self.inputs[:1].uniform_(generator=generator)
        self._after_code0 = generator.get_state()
        later = 0.0 if self._by_latent else sampling.later_temperature
        if later:
            self.inputs[1:books].uniform_(generator=generator)
        top_k = min(sampling.top_k or size, size)
        settings = [sampling.temperature, later, top_k, code_limit(config, sampling), turn.may_end]
        self.inputs[books:] = torch.tensor(settings, dtype=torch.float64)

    def frame(self, codes: list[int]) -> Int[Tensor, " K"] | None:
        """Returns the frame of these codes on the CPU, or None where they end the turn.

        Args:
            codes: The turn's row of what `static_frames` returned for the inputs.

        Raises:
            ValueError: A code could not be sampled.
        """
        ends = self.turn.may_end
        if ends and self._end_code and codes[0] == self._end_code:
            # `next_frame` draws no later codes of an end row.
            self.turn.generator.set_state(self._after_code0)
            return None
        if min(codes) < 0:
            raise ValueError(DAMAGED)
        if ends and not self._end_code and not self._by_latent and not any(codes):
            return None
        return torch.tensor(codes)


def static_frames(
    model: ConversationNetwork,
    hidden: Float[Tensor, "B D"],
    inputs: Float[Tensor, "B I"],
    rule: LaterRule,
) -> Int[Tensor, "B K"]:
    """Returns the frames after these rows; -1 stands for a code that could not be sampled.

    Args:
        model: Network in eval mode.
        hidden: Hidden rows of the backbone.
        inputs: `FrameDraw.inputs` of each turn.
        rule: How later codes follow, the same for all turns.
    """
    books = model.config.num_codebooks
    uniforms, settings = inputs.split((books, SETTINGS), dim=1)
    temperature, later, top_k, limit, may_end = settings.unbind(1)
    top_k, size = top_k.long(), model.config.audio_vocab_size
    codes = torch.arange(size, device=hidden.device)
    below = codes < limit.unsqueeze(1)
    ends = (may_end > 0).unsqueeze(1) & (codes == model.config.end_code)
    logits = model.codebook0_head(hidden).float().masked_fill(~(below | ends), float("-inf"))
    code0 = sample_rows(logits, temperature.float(), top_k, uniforms[:, 0])
    first = code0.clamp_min(0)
    if rule.later_codes == "nearest":
        # An end code has no vector; its frame counts for nothing.
        known = first.clamp_max(model.config.codebook_size - 1)
        frames = DepthSampler(model).nearest_frames(hidden, known, restored=rule.variance_restoration)
        return torch.cat([code0.unsqueeze(1), frames[:, 1:]], dim=1)
    later_codes = _sampled(model, hidden, first, ~below, later.float(), top_k, uniforms)
    return torch.stack([code0, *later_codes], dim=1)


def _sampled(
    model: ConversationNetwork,
    hidden: Tensor,
    code0: Tensor,
    ruled_out: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    uniforms: Tensor,
) -> list[Tensor]:
    """Codes 1..K-1, each int64 [B], sampled one after the other from the depth decoder."""
    decoder, size = model.depth_decoder, model.config.audio_vocab_size
    caches = decoder.start_frames(len(hidden))
    row, embedded = model.depth_row(hidden), model.audio_embedding(code0)
    total = row + embedded
    rows = torch.stack([row, total if decoder.cumulative else embedded], dim=1)
    codes: list[Tensor] = []
    for book in range(1, model.config.num_codebooks):
        states = decoder.step_frames(rows, caches)[:, -1]
        logits = decoder.logits(states, book).float().masked_fill(ruled_out, float("-inf"))
        codes.append(sample_rows(logits, temperature, top_k, uniforms[:, book]))
        embedded = model.audio_embedding(codes[-1].clamp_min(0) + book * size)
        if decoder.cumulative:
            embedded = total = total + embedded
        rows = embedded.unsqueeze(1)
    return codes
