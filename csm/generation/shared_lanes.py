"""Shared steps beside each other, for machines on which one core is not all that may speak."""

from __future__ import annotations

from collections.abc import Sequence

from csm.generation.session import Session
from csm.generation.shared_speech import SharedSpeech, SharedSteps
from csm.generation.voices import Voice


class SharedLanes:
    """Several `SharedSteps`, each with a thread of its own; a speech is made by the one with the fewest.

    Args:
        lanes: Steps with the same voices, at least one.
    """

    def __init__(self, lanes: Sequence[SharedSteps]) -> None:
        self._lanes = lanes

    @property
    def speeches(self) -> int:
        """Number of speeches that are open."""
        return sum(lane.speeches for lane in self._lanes)

    def open(self, session: Session, voice: Voice) -> SharedSpeech:
        """Returns a new speech of a voice in a session; close it."""
        return min(self._lanes, key=lambda lane: lane.speeches).open(session, voice)

    def close(self) -> None:
        """Ends all speeches with an error, and all threads."""
        for lane in self._lanes:
            lane.close()
