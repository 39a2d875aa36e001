"""Places for several turns on a device, and the two functions that speak them: a frame, and a row."""

from __future__ import annotations

import weakref
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor

from csm.generation.captured import Captured, upload
from csm.generation.spoken_turn import SpokenTurn, guided_rows
from csm.generation.static_frames import SETTINGS, LaterRule, static_frames
from csm.network.conversation_network import ConversationNetwork
from csm.network.memory import MemoryState
from csm.network.static_context import StaticCaches, StaticTexts

# Numbers of a row's inputs beside its codes: position, place in the turn, and whether it is run.
PLACES = 3


class RowInputs(NamedTuple):
    """A row to be run at one place of a lane.

    Attributes:
        codes: int64 [K], on the CPU.
        position: Rows before it in its conversation.
        place: Rows since the text of its turn, 1 for the first frame.
    """

    codes: Tensor
    position: int
    place: int


class StaticLane:
    """Contexts of up to `count` turns at fixed addresses; a CUDA graph for a frame of all, one for a row.

    Both compute all places, also those without a turn, whose results count for nothing. A guided lane has a
    second context for each place, of the same rows without what they read of the text.

    Args:
        model: Network in eval mode; the lane does not keep it alive.
        count: Number of places.
        guided: Whether turns may have guidance, which doubles the rows of all.

    Attributes:
        hidden: [count, D], hidden row of each place's newest row.
        guided: As the argument.
        addresses: Of the model's weights when the lane was made (`addresses_of`).
    """

    def __init__(self, model: ConversationNetwork, count: int, guided: bool = False) -> None:
        self._model = cast(ConversationNetwork, weakref.proxy(model))
        self.count, self.guided, self.addresses = count, guided, addresses_of(model)
        config, table = model.config, model.audio_embedding.weight.detach()
        books, capacity, layers = config.num_codebooks, config.max_context, model.backbone.voice_layers()
        self.caches = StaticCaches(model.backbone, count * (2 if guided else 1), capacity, table)
        self.texts = StaticTexts(layers, count, capacity, config.cross_window, table) if layers else None
        self.memory = model.memory.empty(count, table.device) if model.backbone.memory_reads else None
        self.hidden = table.new_zeros(count, config.d_model)
        self.guidance = torch.zeros(count, 1, device=table.device)
        # Inputs of places without a turn: codes are the argmax of all, rows go where they count for nothing.
        self._idle_frames = torch.zeros(count, books + SETTINGS, dtype=torch.float64)
        self._idle_frames[:, -3:-1] = config.audio_vocab_size
        self._idle_rows = torch.zeros(count, books + PLACES, dtype=torch.int64)
        self._idle_rows[:, -PLACES:] = torch.tensor([self.caches.spare, 1, 0])
        idle = self._idle_frames, self._idle_rows
        self._of_frame, self._of_row = (t.to(table.device, copy=True) for t in idle)
        self._frames: dict[LaterRule, Captured] = {}
        self._run = Captured(self._run_rows, table.device)

    def load(self, index: int, turn: SpokenTurn) -> None:
        """Copies the context of a turn whose text has been run to a place."""
        self.caches.load(index, turn.cache)
        self.hidden[index] = turn.hidden
        self.guidance[index] = 0.0 if turn.unread is None else turn.sampling.guidance
        if turn.unread is not None:
            self.caches.load(self.count + index, turn.unread)
        if self.texts is not None and turn.reading is not None:
            self.texts.load(index, turn.reading, turn.expected)
        if self.memory is not None and turn.memory is not None:
            for mine, theirs in zip(self.memory, turn.memory, strict=True):
                mine[index] = theirs[0]

    def store(self, index: int, turn: SpokenTurn, first: int) -> None:
        """Copies the rows of a turn from `first` on back to its conversation."""
        self.caches.store(index, turn.cache, first)
        if turn.unread is not None:
            self.caches.store(self.count + index, turn.unread, first)

    def frames(self, inputs: dict[int, Tensor], rule: LaterRule) -> dict[int, list[int]]:
        """Returns the codes that follow the hidden rows of some places; it waits for the device once.

        Args:
            inputs: `FrameDraw.inputs` of each place.
            rule: How later codes follow.
        """
        if rule not in self._frames:
            function = partial(static_frames, self._model, self.hidden, self._of_frame, rule)
            self._frames[rule] = Captured(function, self.hidden.device)
        host = self._idle_frames.clone()
        for index, values in inputs.items():
            host[index] = values
        upload(host, self._of_frame)
        codes = self._frames[rule]().tolist()
        return {index: codes[index] for index in inputs}

    def run(self, rows: dict[int, RowInputs]) -> None:
        """Runs a row at some places: their caches and hidden rows move on, those of other places stay."""
        host = self._idle_rows.clone()
        for index, row in rows.items():
            host[index, :-PLACES] = row.codes
            host[index, -PLACES:] = torch.tensor([row.position, row.place, 1])
        upload(host, self._of_row)
        self._run()

    def _run_rows(self) -> Tensor:
        model, codes = self._model, self._of_row[:, :-PLACES]
        position, place, runs = self._of_row[:, -PLACES:].unbind(1)
        rows = model.embed_rows(torch.full_like(position, -1), codes)
        if self.guided:
            # Rows beyond the reading's, one of each turn, read no text.
            rows, position = torch.cat([rows, rows]), torch.cat([position, position])
        hidden = model.backbone(
            rows,
            position,
            self.caches.attention(position),
            voice=None if self.texts is None else self.texts.reading(place),
            memory=self._memories(),
        )
        if self.guided:
            read, unread = hidden.chunk(2)
            hidden = guided_rows(read, unread, self.guidance)
        return self.hidden.copy_(torch.where(runs.unsqueeze(1) > 0, hidden, self.hidden))

    def _memories(self) -> MemoryState | None:
        """Memory of each row."""
        if self.memory is None or not self.guided:
            return self.memory
        return MemoryState(*(torch.cat([part, part]) for part in self.memory))


def addresses_of(model: ConversationNetwork) -> tuple[int, ...]:
    """Returns where a model's weights and constants lie."""
    return tuple(tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers()))
