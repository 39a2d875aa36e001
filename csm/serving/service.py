"""What all requests of a server share: the voice, the recogniser, places, limits and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from csm.conversation.backchannels import Backchannels
from csm.conversation.repliers import ChatReplier, EchoReplier, Replier, ScriptReplier
from csm.conversation.transcriber import Transcriber
from csm.conversation.turn_end import SilenceAlone, TurnEnd
from csm.generation.shared_lanes import SharedLanes
from csm.generation.shared_speech import SharedSteps
from csm.generation.talker import Talker
from csm.serving.admission import Admission, lanes_of, measured_places
from csm.serving.metrics import Metrics
from csm.serving.settings import ServerSettings

SCRIPT = (
    "Hello, it is good to talk with you. What brings you here?",
    "I see, tell me more about that. I have all the time in the world.",
    "That is a good one. I had a plane to catch once, and no time to lose.",
    "All right, go on.",
)


@dataclass(kw_only=True)
class Service:
    """Parts of a server.

    Attributes:
        talker: Voice; the frames of all its streams are made together.
        transcriber: Recogniser.
        settings: Limits.
        script: Lines of the script.
        chat: Chat endpoint; None offers none.
        styles: Emotion embeddings [1, M] by the names of styles (`Talker.with_style`).
        turn_end: What tells the end of a user's turn from a pause.
        backchannels: What separates them from short interruptions; None takes the words of `transcriber`.
        metrics: Numbers.
    """

    talker: Talker
    transcriber: Transcriber
    settings: ServerSettings
    script: tuple[str, ...] = SCRIPT
    chat: ChatReplier | None = None
    styles: Mapping[str, Tensor] = field(default_factory=dict)
    turn_end: TurnEnd = field(default_factory=SilenceAlone)
    backchannels: Backchannels | None = None
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.repliers: dict[str, Replier] = {"script": ScriptReplier(self.script), "echo": EchoReplier()}
        if self.chat is not None:
            self.repliers = {"chat": self.chat, **self.repliers}
        count, reason = self.settings.sessions, "as the server was started"
        if not count:
            count, reason = measured_places(self.talker)
        self.admission = Admission(count, reason, self.metrics)
        self.metrics.set("places", count)
        lanes = lanes_of(self.talker)
        expected = -(-count // lanes)
        self._lanes = SharedLanes(
            [
                SharedSteps(self.talker.tokenizer, expected=expected, observe=self._observe)
                for _ in range(lanes)
            ]
        )
        self.talker = replace(self.talker, shared=self._lanes)
        self._styled = {name: replace(self.talker, style=style) for name, style in self.styles.items()}
        for talker in (self.talker, *self._styled.values()):
            _ = talker.pause  # encoded here once, not while a request waits

    def close(self) -> None:
        """Ends the threads that speak."""
        self._lanes.close()

    def _observe(self, speeches: int, seconds: float) -> None:
        self.metrics.observe("batch_size", speeches)
        self.metrics.observe("step_seconds", seconds)

    def talker_in(self, style: Any) -> Talker:
        """Returns the talker in a style by its name; None is each voice's own.

        Raises:
            ValueError: The name is unknown.
        """
        if style is None:
            return self.talker
        if not isinstance(style, str) or style not in self._styled:
            names = ", ".join(self._styled) or "none: the server was started without --style"
            raise ValueError(f"style is {style!r}: expected null or one of the server's styles ({names})")
        return self._styled[style]

    def replier(self, name: Any) -> Replier:
        """Returns a replier by its name; None is the first.

        Raises:
            ValueError: The name is unknown.
        """
        if name is None:
            return next(iter(self.repliers.values()))
        if not isinstance(name, str) or name not in self.repliers:
            raise ValueError(f"replier is {name!r}: expected one of {', '.join(self.repliers)}")
        return self.repliers[name]
