"""Turns that are spoken on a device with one wait for it a frame, several in the same CUDA graphs."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from threading import RLock

import torch
from jaxtyping import Int
from torch import Tensor

from csm.generation.depth_sampler import has_hooks
from csm.generation.spoken_turn import SpokenTurn
from csm.generation.static_frames import FrameDraw, LaterRule
from csm.generation.static_lane import RowInputs, StaticLane, addresses_of
from csm.network.conversation_network import ConversationNetwork


class StaticTurns:
    """Speaks up to any number of turns of one model at once, in one lane (`StaticLane`).

    A frame of all turns takes two launches, one for its codes and one for its row, and one wait. A turn may
    begin and end between any two frames. Lanes outlive their turns: later turns of the same model find the
    graphs captured. One thread at a time may call it.

    Args:
        model: Network in eval mode.
        count: Turns that are expected at once; more of them move to a larger lane, in which later ones begin.
        guided: Whether guided turns are expected; where one comes unexpected, all move to another lane.
    """

    def __init__(self, model: ConversationNetwork, count: int = 1, guided: bool = False) -> None:
        self.model, self._count, self._guided = model, count, guided
        self._held: StaticLane | None = None
        # Not weak: a finalizer of what held a turn may end it, after weak references to it are gone.
        self._places: dict[SpokenTurn, int] = {}
        # Rows of each turn's cache that are in the session's own memory too.
        self._stored: dict[SpokenTurn, int] = {}

    def begin(self, turn: SpokenTurn) -> None:
        """Gives a turn whose text has been run a place; its rows are run here from now on, until `end`."""
        guided = turn.unread is not None
        if self._held is None:
            self._held = take_lane(self.model, self._count, guided or self._guided)
        elif len(self._places) == self._held.count:
            self._move(2 * self._held.count, guided or self._held.guided)
        elif guided and not self._held.guided:
            self._move(self._held.count, True)
        self._load(turn)
        turn.steps = self

    def next_frames(self, turns: Sequence[SpokenTurn]) -> list[Int[Tensor, " K"] | None]:
        """Returns the next frame of each of these turns on the CPU, or None where it ends.

        Turns whose later codes follow by different rules (`LaterRule`) take a launch and a wait a rule.

        Raises:
            ValueError: A code could not be sampled.
        """
        draws = {turn: FrameDraw(self.model.config, turn) for turn in turns if not turn.at_limit}
        frames: dict[SpokenTurn, Tensor | None] = {}
        for rule in {LaterRule.of(turn.sampling) for turn in draws}:
            places = {self._places[t]: d for t, d in draws.items() if LaterRule.of(t.sampling) == rule}
            codes = self._lane.frames({place: draw.inputs for place, draw in places.items()}, rule)
            frames.update({draw.turn: draw.frame(codes[place]) for place, draw in places.items()})
        for turn in turns:
            if frames.get(turn) is None:
                turn.ended = "limit" if turn.at_limit else "end_code"
        return [frames.get(turn) for turn in turns]

    def run(self, turns: Sequence[SpokenTurn]) -> None:
        """Runs the next row of each of these turns; the hidden rows stay on the device."""
        rows = {
            self._places[turn]: RowInputs(turn.next_codes(), turn.cache.length, turn.rows_run + 1)
            for turn in turns
        }
        self._lane.run(rows)
        for turn in turns:
            turn.cache.advance(1)
            if turn.unread is not None:
                turn.unread.advance(1)

    def end(self, turn: SpokenTurn) -> None:
        """Gives a turn's rows back to its session, and its place to another turn."""
        self._store(turn)
        self._leave(turn)

    def drop(self, turn: SpokenTurn) -> None:
        """Gives the place of a turn that cannot be ended to another turn; its rows are lost."""
        self._places.pop(turn, None)
        self._stored.pop(turn, None)
        self._leave(turn)

    def _leave(self, turn: SpokenTurn) -> None:
        turn.steps = None
        if not self._places:
            give_lane(self.model, self._lane)
            self._held = None

    @property
    def _lane(self) -> StaticLane:
        assert self._held is not None, "no turn has begun"
        return self._held

    def _load(self, turn: SpokenTurn) -> None:
        place = min({*range(self._lane.count)} - {*self._places.values()})
        self._lane.load(place, turn)
        self._places[turn], self._stored[turn] = place, turn.cache.length
        turn.hidden = self._lane.hidden[place]

    def _store(self, turn: SpokenTurn) -> None:
        place = self._places.pop(turn)
        self._lane.store(place, turn, self._stored.pop(turn))
        turn.hidden = turn.hidden.clone()

    def _move(self, count: int, guided: bool) -> None:
        """Moves all turns to another lane; if there is no memory for one, none moves."""
        other, turns = take_lane(self.model, count, guided), list(self._places)
        for turn in turns:
            self._store(turn)
        # The outgrown lane goes: a server would keep memory of every size that it ever had.
        self._held, self._count = other, other.count
        for turn in turns:
            self._load(turn)


# ---- lanes that no turn is in, by model ----

_FREE: weakref.WeakKeyDictionary[ConversationNetwork, list[StaticLane]] = weakref.WeakKeyDictionary()
# Reentrant: a turn that is dropped unfinished may be collected, and ended, anywhere.
_LOCK = RLock()


def take_lane(model: ConversationNetwork, count: int, guided: bool = False) -> StaticLane:
    """Returns a lane that no turn is in; its places are the least power of two that is at least `count`."""
    count, addresses = places_for(count), addresses_of(model)
    with _LOCK:
        # Graphs hold the addresses of the weights: those of weights that have moved are of no use.
        free = [lane for lane in _FREE.get(model, []) if lane.addresses == addresses]
        fitting = next((lane for lane in free if (lane.count, lane.guided) == (count, guided)), None)
        _FREE[model] = [lane for lane in free if lane is not fitting]
    return fitting or StaticLane(model, count, guided)


def give_lane(model: ConversationNetwork, lane: StaticLane) -> None:
    """Keeps a lane for a later `take_lane`."""
    with _LOCK:
        _FREE.setdefault(model, []).append(lane)


def keep_lanes(model: ConversationNetwork, count: int, guided: bool = False) -> None:
    """Frees the memory of all lanes that no turn is in, but one that `take_lane` returns for these."""
    with _LOCK:
        wanted = places_for(count), guided
        fitting = [lane for lane in _FREE.pop(model, []) if (lane.count, lane.guided) == wanted]
        _FREE[model] = fitting[:1]


def places_for(count: int) -> int:
    """Returns the least power of two that is at least `count`, which is at least 1."""
    return 1 << (count - 1).bit_length()


def can_capture(model: ConversationNetwork) -> bool:
    """Returns whether a graph computes what the modules would: in eval mode, without autocast and hooks."""
    if torch.is_autocast_enabled(model.audio_embedding.weight.device.type):
        return False
    return not any(module.training or has_hooks(module) for module in model.modules())
