"""The user's side of a conversation: onsets, pauses and ends of turns, from voice activity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from csm.audio.voice_activity import load_detector
from csm.system.extras import missing_package

RATE = 16_000  # required by silero-vad
WINDOW = 512  # 32 ms
LEVEL_RATE = 0.02  # of the mean over the user's speech: about 1.6 s

Change = Literal["onset", "long", "pause", "resumed", "ended"]


class Heard(NamedTuple):
    """A change in the user's speech.

    Attributes:
        change: "onset": speech has lasted `shortest_speech`; "long": it is no backchannel; "pause": it
            has paused, and a reply may be prepared; "resumed": it lasts on; "ended": the turn is over.
        at: Seconds at which the change is certain.
        since: Seconds at which it began: the first or last speech.
    """

    change: Change
    at: float
    since: float


@dataclass(frozen=True, kw_only=True)
class ListenerConfig:
    """Thresholds of the listener; times in seconds.

    Attributes:
        speech, silence: Probabilities of voice activity at which speech begins and ends.
        shortest_speech: Speech below this length is no speech: 60 ms of a transient is not.
        longest_backchannel: Speech over the voice that lasts longer is a turn.
        pause: Silence after which a reply is prepared.
        distance: Decibels below the user's own level at which speech is somebody else's, farther away.
    """

    speech: float = 0.5
    silence: float = 0.35
    shortest_speech: float = 0.16
    longest_backchannel: float = 1.0
    pause: float = 0.16
    distance: float = 16.0

    def __post_init__(self) -> None:
        if not 0 < self.silence <= self.speech < 1:
            raise ValueError(
                f"speech is {self.speech} and silence {self.silence}: expected 0 < silence <= speech < 1"
            )
        if not 0 < self.shortest_speech < self.longest_backchannel:
            raise ValueError(
                f"shortest_speech is {self.shortest_speech}: expected above 0 and below "
                f"longest_backchannel, {self.longest_backchannel}"
            )
        if not self.distance > 0:
            raise ValueError(f"distance is {self.distance}: expected above 0 dB")
        if not self.pause > 0:
            raise ValueError(f"pause is {self.pause}: expected above 0 s")


class VoiceActivity(Protocol):
    """Probability of speech in one window after the other."""

    def __call__(self, window: Float[Tensor, " 512"]) -> float:
        """Returns the probability, 0 to 1, of the window that follows."""


class SileroActivity:
    """silero-vad on one stream; its weights travel in the package.

    Raises:
        ValueError: The package is missing.
    """

    def __init__(self) -> None:
        try:
            self._model: Any = load_detector()
        except ImportError as error:
            raise ValueError(missing_package("silero-vad", "a live conversation")) from error

    @torch.no_grad()
    def __call__(self, window: Tensor) -> float:
        """Returns the probability of speech in 512 samples at 16 kHz."""
        return float(self._model(window, RATE))


class Listener:
    """Follows one stream of speech.

    Args:
        config: Thresholds.
        activity: Probability of speech; None is silero-vad.
        silence: Seconds of silence after which a turn is over, unless `wait` says otherwise.

    Raises:
        ValueError: The silence is shorter than a pause, or silero-vad is missing.
    """

    def __init__(
        self, config: ListenerConfig, activity: VoiceActivity | None = None, *, silence: float = 0.5
    ) -> None:
        if not config.pause <= silence:
            raise ValueError(f"silence is {silence}: expected at least that of a pause, {config.pause} s")
        self.config = config
        self._silence_s = self._limit = silence
        self._activity = activity or SileroActivity()
        self._waiting = torch.zeros(0)
        self._time = 0.0  # end of the newest window
        self._loud = False
        self._run: float | None = None  # begin of speech without a pause
        self._turn: float | None = None  # begin of the turn; None outside turns
        self._last = 0.0  # end of the newest speech that counts
        self._paused = self._long = False
        self._level: float | None = None  # mean power of the user's speech
        self._power, self._windows = 0.0, 0  # of the speech without a pause

    @property
    def in_turn(self) -> bool:
        """Whether a turn of the user has begun and not ended."""
        return self._turn is not None

    def push(self, samples: Float[Tensor, " S"]) -> Iterator[Heard]:
        """Takes samples at 16 kHz, any number; yields the changes that they make certain."""
        self._waiting = torch.cat([self._waiting, samples])
        while len(self._waiting) >= WINDOW:
            window, self._waiting = self._waiting[:WINDOW], self._waiting[WINDOW:]
            begin = self._time
            self._time += WINDOW / RATE
            threshold = self.config.silence if self._loud else self.config.speech
            self._loud = self._activity(window) >= threshold
            if self._loud:
                self._measure(window)
            yield from self._speech(begin) if self._loud else self._silence()

    def wait(self, silence: float) -> None:
        """Sets the seconds of silence that end the turn in its present pause; speech undoes it."""
        if self._paused:
            self._limit = silence

    def forget(self) -> None:
        """Ends the turn without a change: what was said was no turn."""
        self._turn = self._run = None
        self._paused = self._long = False
        self._limit = self._silence_s

    def _near(self) -> bool:
        """Whether the speech since the last pause is as loud as the user's is."""
        return self._level is None or self._power >= self._level * 10 ** (-self.config.distance / 10)

    def _measure(self, window: Tensor) -> None:
        """Follows the power of this stretch of speech, and of the user's turns."""
        power = float(window.square().mean())
        self._windows = 1 if self._run is None else self._windows + 1
        self._power = power if self._windows == 1 else self._power + (power - self._power) / self._windows
        if self.in_turn:
            self._level = power if self._level is None else self._level + LEVEL_RATE * (power - self._level)

    def _speech(self, begin: float) -> Iterator[Heard]:
        if self._run is None:
            self._run = begin
        if self._time - self._run < self.config.shortest_speech or not self._near():
            return
        self._last = self._time
        if self._turn is None:
            self._turn = self._run
            yield Heard("onset", self._time, self._run)
        elif self._paused:
            self._paused, self._limit = False, self._silence_s
            yield Heard("resumed", self._time, self._run)
        if not self._long and self._time - self._turn > self.config.longest_backchannel:
            self._long = True
            yield Heard("long", self._time, self._turn)

    def _silence(self) -> Iterator[Heard]:
        self._run = None
        if self._turn is None:
            return
        silence = self._time - self._last
        if not self._paused and silence >= self.config.pause:
            self._paused = True
            yield Heard("pause", self._time, self._last)
        if silence >= self._limit:
            self.forget()
            yield Heard("ended", self._time, self._last)
