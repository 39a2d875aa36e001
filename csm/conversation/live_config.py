"""How a live conversation is held."""

from __future__ import annotations

from dataclasses import dataclass, field

from csm.conversation.listener import ListenerConfig


@dataclass(frozen=True, kw_only=True)
class LiveConfig:
    """How a conversation is held; times in seconds.

    Attributes:
        listener: Thresholds of the user's side.
        hold: Whether the voice pauses while speech over it may still be a backchannel.
        jitter: Audio that waits before a reply begins.
        ahead: Most audio that is synthesised before it is played.
        gap: Median of the gap between the user's last sound and the reply, where the reply is ready by then.
        gap_spread: Standard deviation of the gap's logarithm. Both are stated, not trained: conversations in
            ten languages have a mode of 0 to 0.2 s and a long tail (Stivers et al. 2009, Heldner & Edlund
            2010), and no corpus at hand has two speakers in one recording.
        longest_turn: Audio of a user's turn that is kept; older audio is dropped.
        playout_delay: Time between a returned sample and the user's ear.
        seed: Of gaps and of the session.
    """

    listener: ListenerConfig = field(default_factory=ListenerConfig)
    hold: bool = True
    jitter: float = 0.1
    ahead: float = 1.0
    gap: float = 0.3
    gap_spread: float = 0.5
    longest_turn: float = 30.0
    playout_delay: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("jitter", "ahead", "gap", "gap_spread", "playout_delay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"LiveConfig.{name} is {getattr(self, name)}: expected 0 or more; raise it")
        if not self.jitter < self.ahead:
            raise ValueError(f"LiveConfig.jitter is {self.jitter}: expected below ahead, {self.ahead}")
        if not self.longest_turn > 0:
            raise ValueError(f"LiveConfig.longest_turn is {self.longest_turn}: expected above 0 s")
