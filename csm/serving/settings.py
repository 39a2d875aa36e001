"""Limits of a server and the token of its clients."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from ipaddress import ip_address


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Limits of one server.

    Attributes:
        host: Address that it listens on.
        port: Port; 0 takes a free one.
        token: Word that every request carries; needed beyond the loopback.
        sessions: Most speakers at once, conversations and requests together; 0 measures how many keep up.
        longest_text: Characters of a text.
        largest_upload: Bytes of an audio file.
        idle: Seconds without a message after which a conversation ends.
        longest_session: Seconds of a conversation.
        ahead: Seconds by which a user's audio may be ahead of time; more is a flood.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    token: str = ""
    sessions: int = 0
    longest_text: int = 2000
    largest_upload: int = 10_000_000
    idle: float = 30.0
    longest_session: float = 1800.0
    ahead: float = 2.0

    def __post_init__(self) -> None:
        if not self.token and not is_loopback(self.host):
            raise ValueError(
                f"host is {self.host!r}, which other machines reach: expected a --token as well, or 127.0.0.1"
            )
        if not 0 <= self.port < 65536:
            raise ValueError(f"port is {self.port}: expected 0 to 65535")
        if self.sessions < 0:
            raise ValueError(f"sessions is {self.sessions}: expected 1 or more, or 0 to measure")

    def admits(self, token: str) -> bool:
        """Returns whether a request with this token may be served."""
        return not self.token or hmac.compare_digest(token.encode(), self.token.encode())


def is_loopback(host: str) -> bool:
    """Returns whether only this machine reaches an address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
