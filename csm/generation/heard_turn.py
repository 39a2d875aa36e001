"""The rows of a turn that is heard, and the letters that its frames spell."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from csm.network.conversation_network import ConversationNetwork
from csm.network.letter_head import LetterHead, heard_rows
from csm.sequences.packed_batch import RowBatch
from csm.sequences.turns import TurnFrames
from csm.spelling import read_letters

# Texts of this language have at most about two ids per frame; a longer transcript repeats itself.
TEXT_PER_FRAME = 3


def heard_turn(model: ConversationNetwork, codes: Int[Tensor, "K T"], speaker: int) -> RowBatch:
    """Returns the rows of a voice before its text is known.

    Raises:
        ValueError: The codes have a wrong shape or range, the voice is longer than the context, or the
            speaker is unknown.
    """
    if codes.ndim != 2 or codes.shape[1] == 0:
        raise ValueError(f"codes have shape {tuple(codes.shape)}: expected [K, T], at least one frame")
    builder = model.new_rows()
    builder.add_transcribed(TurnFrames("transcribed", "", speaker, codes), with_text=False)
    batch = builder.build()
    # Kept in the context, the turn needs a row for at least one id and one more for its end id.
    if len(batch.text) + 2 > model.config.max_context:
        raise ValueError(
            f"a voice of {codes.shape[1]} frames does not fit max_context {model.config.max_context} rows: "
            f"split it into turns"
        )
    return batch


def longest_text(frames: int) -> int:
    """Returns the most ids that are written of a voice of a number of frames."""
    return TEXT_PER_FRAME * frames + 16


def room_of_heard(batch: RowBatch, max_context: int) -> int:
    """Returns the rows that a heard turn may take: those of `heard_turn` and of the longest text."""
    frames = batch.text_spans[0].num_keys
    return min(len(batch.text) + longest_text(frames) + 1, max_context)


def spelled_text(head: LetterHead, states: Float[Tensor, "R D"], batch: RowBatch) -> str:
    """Returns the text that the heard rows of a batch spell, by CTC's best symbols."""
    scores = head(states[heard_rows(batch.text_spans).to(states.device)])
    return read_letters(scores.flatten(0, 1).argmax(-1).tolist())
