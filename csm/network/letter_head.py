"""Letters of a transcribed turn, predicted frame by frame as its audio arrives (CTC, Graves et al. 2006)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from csm.network.initialise import draw
from csm.sequences.packed_batch import TextSpan
from csm.spelling import LETTERS


class LetterHead(nn.Module):
    """Backbone rows of transcribed frames to log probabilities of letters.

    A frame reads what was said up to it: the head delays letters as far as it needs. The end row spells too.

    Args:
        width: Width D of the rows.
        per_frame: Letters L that a frame may spell.
    """

    def __init__(self, width: int, per_frame: int) -> None:
        super().__init__()
        self.per_frame = per_frame
        self.project = nn.Linear(width, per_frame * len(LETTERS))

    def reset_parameters(self) -> None:
        """Draws the initial weights."""
        draw(self.project)
        nn.init.zeros_(self.project.bias)

    def forward(self, rows: Float[Tensor, "N D"]) -> Float[Tensor, "N L A"]:
        """Returns log probabilities [N, L, letters] in float32."""
        scores: Tensor = self.project(rows).unflatten(-1, (self.per_frame, -1)).float().log_softmax(-1)
        return scores


def heard_rows(spans: Sequence[TextSpan]) -> Int[Tensor, " N"]:
    """Returns the rows of transcribed turns, span after span: the frames and the end row of each."""
    parts = [torch.arange(span.first_key, span.first_query + 1) for span in spans if span.num_keys]
    return torch.cat([torch.zeros(0, dtype=torch.int64), *parts])


def letter_cross_entropy(
    scores: Float[Tensor, "N L A"], rows: Sequence[int], letters: Sequence[Sequence[int]]
) -> Float[Tensor, ""]:
    """Returns the CTC loss summed over turns, nats.

    Args:
        scores: Log probabilities of all transcribed rows.
        rows: Rows of each turn, in the order of `scores`.
        letters: Letters of each turn; none of a turn that is no target.
    """
    kept = [turn for turn, spelling in enumerate(letters) if len(spelling)]
    total = scores.sum() * 0
    if not kept:
        return total
    per_frame, parts = scores.shape[1], scores.split(list(rows))
    padded = pad_sequence([parts[turn].flatten(0, 1) for turn in kept])
    return total + F.ctc_loss(
        padded,
        torch.tensor([symbol for turn in kept for symbol in letters[turn]], device=scores.device),
        torch.tensor([rows[turn] * per_frame for turn in kept]),
        torch.tensor([len(letters[turn]) for turn in kept]),
        reduction="sum",
        zero_infinity=True,
    )
