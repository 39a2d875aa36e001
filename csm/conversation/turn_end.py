"""When a pause is the end of a turn: the silence that ends it, fixed or classified from the turn's audio.

A turn has ended once the silence after its speech has lasted long enough. How long that is depends on the
pause: after a question the voice may answer soon, in the middle of a sentence it waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from jaxtyping import Float
from torch import Tensor

from csm.conversation.worker import Task


class Patience(NamedTuple):
    """What was classified of a pause.

    Attributes:
        silence: Seconds of silence that end the turn, counted from its last speech.
        reason: For the log: "shift" or "hold", and the probability.
    """

    silence: float
    reason: str


class TurnEnd(Protocol):
    """Decides how long a silence ends a turn."""

    @property
    def name(self) -> str:
        """What decides, for the log."""

    @property
    def silence(self) -> float:
        """Seconds of silence that end a turn of which nothing was classified."""

    def classify(self, turn: Float[Tensor, " S"]) -> Task:
        """Returns the work of classifying a pause, which yields one Patience, or nothing.

        Args:
            turn: float32 [S] at 16 kHz, the turn so far with the silence of the pause.
        """


@dataclass(frozen=True)
class SilenceAlone:
    """The same silence ends every turn.

    Attributes:
        silence: Its seconds.
    """

    silence: float = 0.5
    name = "silence"

    def __post_init__(self) -> None:
        if not self.silence > 0:
            raise ValueError(f"silence is {self.silence}: expected above 0 s")

    def classify(self, turn: Float[Tensor, " S"]) -> Task:
        """Classifies nothing."""
        yield from ()
