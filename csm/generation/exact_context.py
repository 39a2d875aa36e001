"""The newest turns of one conversation as rows with cached keys and values, and a memory of older ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from csm.generation.heard_turn import context_rows
from csm.generation.spoken_turn import ContextTurn
from csm.generation.turn_length import phone_log_frames
from csm.network.conversation_network import ConversationNetwork
from csm.network.layers import KeyValueCache
from csm.network.phone_durations import text_ends
from csm.network.text_reading import TextReading
from csm.network.voice_reading import VoiceReading
from csm.sequences.packed_batch import RowBatch
from csm.sequences.past_turns import pack_past
from csm.sequences.turns import TurnFrames


class ExactContext:
    """What a session keeps: turns exactly, up to `max_context` rows, and older ones in the memory.

    Turns that no longer fit are written to the memory, and positions restart from 0. So positions never leave
    the trained range, and a conversation of any length takes bounded space.

    Attributes:
        turns: The turns that are kept exactly, oldest first.
        memory: Memory of older turns; None in a model without memory layers.
        cache: Keys and values of the rows of `turns`, and of a turn that is under way.

    Args:
        model: Network in eval mode.
    """

    def __init__(self, model: ConversationNetwork) -> None:
        self.model = model
        self.device = model.audio_embedding.weight.device
        self.turns: list[ContextTurn] = []
        self.memory = model.memory.empty(1, self.device) if model.backbone.memory_reads else None
        self.cache = self._new_cache()

    @property
    def longest(self) -> int:
        """Most rows that are kept exactly."""
        return self.model.config.max_context

    def copy(self) -> ExactContext:
        """Returns a context of the same turns that grows on its own."""
        other = ExactContext(self.model)
        other.turns, other.memory, other.cache = list(self.turns), self.memory, self.cache.copy()
        return other

    def add(self, context: ContextTurn) -> None:
        """Makes room for a finished turn and runs its rows.

        Raises:
            ValueError: The turn is longer than the context, or its row builder refuses it; the context stays
                as it was.
        """
        # Its rows are made once before anything moves: what is refused leaves the context as it was.
        self.make_room(len(self._turn_rows(context).text))
        self._run_turn(context)

    def take_back(self, count: int) -> list[TurnFrames]:
        """Removes the newest turns and returns them, oldest first.

        Raises:
            ValueError: There are fewer.
        """
        if not 0 <= count <= len(self.turns):
            raise ValueError(f"count is {count}: expected 0..{len(self.turns)}, the turns in the context")
        kept = len(self.turns) - count
        taken = [context.turn for context in self.turns[kept:]]
        # Rows attend to earlier rows alone: what the cache holds of the turns before stays valid.
        self.cache.length -= sum(map(self.rows_of, taken))
        del self.turns[kept:]
        return taken

    def rows_of(self, turn: TurnFrames) -> int:
        """Returns the rows that a turn takes."""
        return context_rows(self.model, turn)

    def make_room(self, rows: int) -> None:
        """Moves the oldest turns to the memory until `rows` more fit.

        Raises:
            ValueError: `rows` are more than max_context.
        """
        if rows > self.longest:
            raise ValueError(f"a turn of {rows} rows does not fit max_context {self.longest}: split it")
        if self.cache.length + rows > self.longest:
            self.rebuild(self.kept_beside(rows))

    def kept_beside(self, rows: int) -> list[ContextTurn]:
        """Writes the oldest turns to the memory until the rest leave `rows` free; returns the rest."""
        kept = list(self.turns)
        sizes = [self.rows_of(context.turn) for context in kept]
        while kept and rows + sum(sizes[-len(kept) :]) > self.longest:
            self._remember(kept.pop(0).turn)
        return kept

    def rebuild(self, turns: Sequence[ContextTurn]) -> None:
        """Runs the rows of these turns again, exactly as training does, with the memory as it is now."""
        self.turns, self.cache = [], self._new_cache()
        for context in turns:
            # A turn that was stopped before its first frame has no voice to keep.
            if context.turn.codes.shape[1]:
                self._run_turn(context)

    def forward(
        self,
        rows: Float[Tensor, "R D"],
        *,
        voice: VoiceReading | None = None,
        text: TextReading | None = None,
    ) -> Float[Tensor, "R D"]:
        """Runs rows that follow those of the cache, and keeps theirs; returns their hidden rows."""
        hidden = self._backbone(rows, voice, text)
        self.cache.advance(len(rows))
        return hidden

    def _new_cache(self) -> KeyValueCache:
        return KeyValueCache(len(self.model.backbone.blocks), self.longest)

    def _remember(self, turn: TurnFrames) -> None:
        if self.memory is None or turn.codes.shape[1] == 0:
            return
        past = pack_past([[turn]], self.model.codec, self.model.config.num_codebooks).to(self.device)
        self.memory = self.model.memory.write(self.memory, *self.model.turn_vectors(past))

    def _run_turn(self, context: ContextTurn) -> None:
        """Runs a turn's rows and keeps it, with predicted ends of its text ids if they are unknown."""
        turn = context.turn
        if turn.ends is None:
            ids = torch.tensor(self.model.codec.encode_turn(turn.text, turn.speaker), device=self.device)
            codes = torch.full((len(ids), self.model.config.num_codebooks), -1, device=self.device)
            # Without `advance`: these rows do not stay in the cache.
            rows = self._backbone(self.model.embed_rows(ids, codes))
            phones = phone_log_frames(self.model, rows)
            ends = None if phones is None else text_ends(phones, context.length)
            context = context._replace(turn=turn._replace(ends=ends))
        batch = self._turn_rows(context)
        rows = self.model.embed_rows(batch.text, batch.codes)
        self.forward(rows, voice=self.model.voice_reading(rows, batch.voice_spans))
        self.turns.append(context)

    def _turn_rows(self, context: ContextTurn) -> RowBatch:
        builder = self.model.new_rows()
        builder.add_spoken(context.turn, length=context.length, train=False)
        return builder.build().to(self.device)

    def _backbone(
        self, rows: Tensor, voice: VoiceReading | None = None, text: TextReading | None = None
    ) -> Float[Tensor, "R D"]:
        start = self.cache.length
        positions = torch.arange(start, start + len(rows), device=self.device)
        hidden: Tensor = self.model.backbone(
            rows, positions, self.cache, voice=voice, text=text, memory=self.memory
        )
        return hidden
