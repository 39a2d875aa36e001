"""A transcribed turn: its rows, the letters that its frames spell, and what the context keeps of it."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from csm.network.conversation_network import ConversationNetwork
from csm.network.letter_head import HeardRows, LetterHead
from csm.sequences.packed_batch import RowBatch
from csm.sequences.turns import TurnFrames
from csm.spelling import spell

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
    """Returns the text that the one transcribed turn of a batch spells."""
    rows = HeardRows.of(batch.text_spans).rows.to(states.device)
    return head.text(states.index_select(0, rows))


def spelling_loss(head: LetterHead, states: Float[Tensor, "R D"], batch: RowBatch, text: str) -> float:
    """Returns minus the log probability of a text's letters given the transcribed turn of a batch, nats."""
    rows = HeardRows.of(batch.text_spans).rows.to(states.device)
    return head.loss(states.index_select(0, rows), spell(text))


def transcribed_turn(
    model: ConversationNetwork, text: str, speaker: int, codes: Int[Tensor, "K T"]
) -> TurnFrames:
    """Returns the turn to keep in the context; a text that does not fit beside its voice loses its end.

    Bytes that are no text take one row each, as when they were written.
    """
    text = text.replace("\ufffd", "?")
    turn = TurnFrames("transcribed", text or ".", speaker, codes.cpu())
    while len(text) > 1 and context_rows(model, turn) > model.config.max_context:
        text = text[:-1].strip()
        turn = turn._replace(text=text or ".")
    return turn


def context_rows(model: ConversationNetwork, turn: TurnFrames) -> int:
    """Returns the rows of a turn in the context: its text, its frames, and the end row."""
    return len(model.codec.encode_turn(turn.text, turn.speaker)) + turn.codes.shape[1] + 1
