"""A turn heard piece by piece: its text appears while its voice comes in."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csm.generation.heard_turn import heard_turn
from csm.generation.session import Session
from csm.spelling import read_letters
from csm.system.threads import one_thread
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.opening import VoiceTokenizer


def require_writing(session: Session) -> None:
    """Refuses a session whose model writes no text.

    Raises:
        ValueError: The model has csm-1b's form.
    """
    if session.model.config.zeros_end:
        raise ValueError(
            "the model has csm-1b's form, which speaks and does not write: expected a model trained with "
            "data.transcribe_share above 0"
        )


class HeardTurn:
    """A turn while its codes come in; the session does nothing else until it is finished or cancelled.

    A model with a letter head spells each frame once the frames are there that its letters depend on
    (`LetterHead.AHEAD`, 480 ms later). CTC's repeats and blanks are removed over all frames, so that the text
    does not depend on how the voice is cut, and it grows at its end alone; only where older turns leave the
    context meanwhile is it spelled again from the first frame. A voice's list of words counts in `finish`,
    since later words change how earlier ones are read. Any other model writes the text after the end
    row: until `finish` the text so far is empty.

    Args:
        session: Conversation of the turn.
        speaker: Speaker index.

    Attributes:
        text: Text so far.

    Raises:
        ValueError: Another turn of the session is still being spoken or heard, or the model has csm-1b's
            form, which writes no text.
    """

    def __init__(self, session: Session, speaker: int = 0) -> None:
        require_writing(session)
        session.begin_hearing()
        self.session, self.speaker = session, speaker
        self.text = ""
        self._codes = torch.zeros(session.model.config.num_codebooks, 0, dtype=torch.int64)
        self._symbols: list[int] = []
        self._states = torch.zeros(0, session.model.config.d_model, device=session.device)
        self._rows = 0
        self._open = True

    @property
    def frames(self) -> int:
        """Frames so far."""
        return self._codes.shape[1]

    def push(self, codes: Int[Tensor, "K T"]) -> str:
        """Appends the next frames, any number, and returns the text so far.

        Raises:
            ValueError: The codes have a wrong shape or range, the voice is longer than the context, the
                speaker is unknown, or the turn has ended. The turn stays as it was.
        """
        self._require_open()
        count = self.session.model.config.num_codebooks
        if codes.ndim != 2 or codes.shape[0] < count:
            raise ValueError(f"codes have shape {tuple(codes.shape)}: expected [K, T] with K >= {count}")
        if not codes.shape[1]:
            return self.text
        joined = torch.cat([self._codes, codes[:count].cpu()], dim=1)
        batch = heard_turn(self.session.model, joined, self.speaker)
        if self.session.model.letter_head is not None:
            states = self.session.hear_rows(batch, self._rows)
            self._spell(states, total=len(batch.text) - 1)
        self._codes = joined
        return self.text

    def finish(self) -> str:
        """Returns the text of the whole turn, which the context keeps as text and voice.

        It is the text of `Session.transcribe` of all frames: these are run once more as a whole, since a
        product of many rows and one of few rows differ by their rounding. A turn without frames has no text
        and leaves the session as it was.

        Raises:
            ValueError: The turn has ended.
        """
        self.cancel()
        if self.frames:
            self.text = self.session.transcribe(self._codes, self.speaker)
        return self.text

    def cancel(self) -> None:
        """Ends the turn without a trace, except that turns which made room for it stay in the memory.

        Raises:
            ValueError: The turn has ended.
        """
        self._require_open()
        self._open = False
        self.session.end_hearing(self._rows)

    @torch.no_grad()
    def _spell(self, states: Float[Tensor, "R D"], total: int) -> None:
        """Reads the symbols of rows that were run, of `total` rows of the turn so far."""
        head = self.session.model.letter_head
        assert head is not None
        if len(states) == total:
            self._symbols, self._states = [], self._states[:0]
        # The first rows say that somebody is heard, and who.
        before = len(self.session.model.codec.listen_prefix(self.speaker))
        frames = states[max(0, before - (total - len(states))) :]
        self._states = torch.cat([self._states, frames])
        spelled = len(self._symbols) // head.per_frame
        ready = len(self._states) - head.AHEAD
        if ready > spelled:
            # What lies further back changes no symbol that is still to be read.
            first = max(0, spelled - head.AHEAD)
            found = head.symbols(self._states[first:])
            self._symbols += found[(spelled - first) * head.per_frame : (ready - first) * head.per_frame]
        self._rows, self.text = total, read_letters(self._symbols)

    def _require_open(self) -> None:
        if not self._open:
            raise ValueError("the turn has ended: begin another one")


class TranscriptStream:
    """A turn while its audio comes in, encoded frame by frame.

    Args:
        tokenizer: Tokenizer in eval mode, with a streaming state of its own (`with_own_state`).
        session: Conversation of the turn.
        speaker: Speaker index.

    Raises:
        ValueError: As HeardTurn, or the tokenizer is Mimi, which encodes whole turns only.
    """

    def __init__(self, tokenizer: VoiceTokenizer, session: Session, speaker: int = 0) -> None:
        require_writing(session)
        if not isinstance(tokenizer, ConversationalRVQ):
            raise ValueError("the tokenizer is Mimi, which encodes whole turns: expected one of csm")
        self.turn = HeardTurn(session, speaker)
        config = tokenizer.config
        # A semantic encoder that looks ahead reads whole blocks.
        frames = config.semantic_block_frames if config.semantic_layers else 1
        self._block = frames * config.samples_per_frame
        self._tokenizer, self._waiting = tokenizer, torch.zeros(0)
        self._stream = ExitStack()
        self._stream.enter_context(tokenizer.streaming(1))

    @property
    def seconds(self) -> float:
        """Seconds of audio whose frames have been heard."""
        config = self._tokenizer.config
        return self.turn.frames * config.samples_per_frame / config.sample_rate

    def push(self, samples: Float[Tensor, " S"]) -> str:
        """Appends the next samples at the tokenizer's rate, any number, and returns the text so far.

        Raises:
            ValueError: As HeardTurn.push, or the samples have a wrong shape or are not finite.
        """
        if samples.ndim != 1:
            raise ValueError(
                f"samples have shape {tuple(samples.shape)}: expected [S]; mix channels down first"
            )
        self._waiting = torch.cat([self._waiting, samples.float()])
        whole = len(self._waiting) // self._block * self._block
        ready, self._waiting = self._waiting[:whole], self._waiting[whole:]
        return self._hear(ready)

    def finish(self) -> str:
        """Returns the text of the whole turn, which the context keeps; see `HeardTurn.finish`."""
        self._hear(self._waiting)
        self._stream.close()
        with one_thread():
            return self.turn.finish()

    def cancel(self) -> None:
        """Ends the turn as `HeardTurn.cancel` does."""
        self._stream.close()
        self.turn.cancel()

    @torch.no_grad()
    def _hear(self, samples: Tensor) -> str:
        if not len(samples):
            return self.turn.text
        count = self.turn.session.model.config.num_codebooks
        with one_thread():
            audio = samples[None, None].to(self._tokenizer.device)
            codes, _ = self._tokenizer.encode(audio, num_codebooks=count)
            return self.turn.push(codes[0])
