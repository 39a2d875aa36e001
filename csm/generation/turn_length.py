"""The expected length of a turn before it is spoken, by the two duration heads of the model."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from csm.network.conversation_network import ConversationNetwork
from csm.network.layers import PackedSequences
from csm.network.phone_durations import frames_of_ids

# A turn may run to this many times its expected length before it is cut off.
LONGEST_SHARE = 2.0


def phone_log_frames(model: ConversationNetwork, text: Float[Tensor, "L D"]) -> Float[Tensor, " L"] | None:
    """Returns log frames of each text id of a turn, on the CPU; None if the head is untrained.

    Args:
        model: Network of the session.
        text: Hidden rows of the turn's text.
    """
    if not model.pace_head.is_trained():
        return None
    bounds = torch.tensor([0, len(text)], dtype=torch.int32, device=text.device)
    return model.pace_head(text, PackedSequences.of(bounds, len(text))).float().cpu()


def expected_frames(
    model: ConversationNetwork,
    text: Float[Tensor, "L D"],
    phones: Float[Tensor, " L"] | None,
    speed: float = 1.0,
) -> int:
    """Returns the length of a turn that the model predicts, at most what its context can hold.

    Args:
        model: Network of the session.
        text: Hidden rows of the turn's text.
        phones: Log frames of each text id, if they are predicted.
        speed: Rate of speech that divides the length.
    """
    if not model.predicts_durations():
        frames = len(text) * model.config.frames_per_text_id
    else:
        frames = float(model.duration_head(text[-1]).clamp(max=20.0).exp())
        if phones is not None:
            # The errors of the two heads are independent: their geometric mean is better than either.
            frames = (frames * frames_of_ids(phones)) ** 0.5
    return max(1, min(round(frames / speed), model.config.max_context))


def cut_off(expected: int) -> int:
    """Returns the frames at which a turn of this expected length is cut off."""
    # 12 frames, about a second, for turns of a single word.
    return round(expected * LONGEST_SHARE) + 12
