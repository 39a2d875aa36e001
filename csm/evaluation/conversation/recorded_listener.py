"""The listener with a turn-end decision, on recorded speech: as in a live conversation, without the voice."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from csm.conversation.listener import RATE, Heard, Listener, ListenerConfig, VoiceActivity
from csm.conversation.turn_end import TurnEnd
from csm.conversation.user_audio import MARGIN_S

LONGEST_S, BETWEEN_S = 30.0, 1.0  # audio that is kept within turns and between them


class RecordedListener:
    """A listener of recorded speech: each pause is classified when it is found.

    Args:
        config: Thresholds.
        turn_end: What decides.
        activity: Probability of speech; None is silero-vad.
        cost: Seconds of audio that pass until a classification is there.
    """

    def __init__(
        self,
        config: ListenerConfig,
        turn_end: TurnEnd,
        activity: VoiceActivity | None = None,
        cost: float = 0.0,
    ) -> None:
        self._listener = Listener(config, activity, silence=turn_end.silence)
        self._turn_end, self._cost = turn_end, cost
        self._past, self._begin, self._onset = torch.zeros(0), 0, 0
        self._answer: tuple[float, float] | None = None  # when it is there, and the silence

    @property
    def in_turn(self) -> bool:
        """Whether a turn of the user has begun and not ended."""
        return self._listener.in_turn

    def push(self, samples: Float[Tensor, " S"]) -> Iterator[Heard]:
        """Takes samples at 16 kHz, at most a window; yields the changes that they make certain."""
        self._past = torch.cat([self._past, samples])
        kept = LONGEST_S if self.in_turn else BETWEEN_S
        if (extra := len(self._past) - round(kept * RATE)) > RATE:
            self._past, self._begin = self._past[extra:], self._begin + extra
        time = (self._begin + len(self._past)) / RATE
        if self._answer is not None and self._answer[0] < time:
            self._listener.wait(self._answer[1])
            self._answer = None
        for change in self._listener.push(samples):
            if change.change == "onset":
                self._onset = round((change.since - MARGIN_S) * RATE)
            elif change.change == "pause":
                self._classify(change.at)
            elif change.change == "resumed":
                self._answer = None
            yield change

    def _classify(self, at: float) -> None:
        turn = self._past[max(0, self._onset - self._begin) : round(at * RATE) - self._begin]
        for patience in self._turn_end.classify(turn):
            self._answer = (at + self._cost, patience.silence)
