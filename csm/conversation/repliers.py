"""Where the words of a reply come from: a script, an echo, or a chat endpoint that streams them."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class SaidTurn(NamedTuple):
    """Recognised words of one turn.

    Attributes:
        user: Whether the user said them.
        text: The words; of an interrupted reply those that were played.
    """

    user: bool
    text: str


class Replier(Protocol):
    """Chooses the words of replies."""

    def reply(self, turns: Sequence[SaidTurn]) -> Iterator[str]:
        """Yields the reply to the last turn, the user's, in pieces cut anywhere, as they arrive.

        A call may be dropped when the user speaks on, and made again with more words; it changes no state.

        Raises:
            ValueError: There is no reply; the conversation logs why and listens on.
        """


@dataclass(frozen=True)
class ScriptReplier:
    """Says line after line, one for each turn of the user's that was answered; the last one repeats.

    Attributes:
        lines: Lines, at least one.
    """

    lines: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.lines or not all(line.strip() for line in self.lines):
            raise ValueError("the script has no line or an empty one: expected one line of text a reply")

    def reply(self, turns: Sequence[SaidTurn]) -> Iterator[str]:
        """Yields the line after those that were said."""
        said = sum(not turn.user for turn in turns)
        yield self.lines[min(said, len(self.lines) - 1)]


@dataclass(frozen=True)
class EchoReplier:
    """Repeats the user's words."""

    def reply(self, turns: Sequence[SaidTurn]) -> Iterator[str]:
        """Yields what the user said last."""
        yield f"You said: {turns[-1].text}"


@dataclass(frozen=True, kw_only=True)
class ChatReplier:
    """Calls an OpenAI-compatible endpoint, /v1/chat/completions, and streams its tokens.

    Attributes:
        url: Base address, "http://127.0.0.1:8000/v1" for one.
        model: Name of the model there.
        instructions: System prompt.
        key: Bearer token; "" sends none.
        timeout: Seconds without a byte after which the reply fails.
        longest: Characters at which a reply is cut.
    """

    url: str
    model: str = "default"
    instructions: str = "You talk on the telephone. Answer in one or two short sentences, without lists."
    key: str = ""
    timeout: float = 10.0
    longest: int = 600

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url is {self.url!r}: expected http://... or https://..., up to /v1")

    def reply(self, turns: Sequence[SaidTurn]) -> Iterator[str]:
        """Yields tokens as they arrive."""
        left = self.longest
        try:
            with urllib.request.urlopen(self._request(turns), timeout=self.timeout) as response:
                for line in response:
                    token = _token(line)
                    yield token[:left]
                    left -= len(token)
                    if left <= 0:
                        return
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason: object = error
            if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
                reason = error.reason
            raise ValueError(
                f"chat endpoint {self.url}: {reason}; check the address and the model"
            ) from error

    def _request(self, turns: Sequence[SaidTurn]) -> urllib.request.Request:
        messages = [{"role": "system", "content": self.instructions}]
        messages += [
            {"role": "user" if turn.user else "assistant", "content": turn.text}
            for turn in turns
            if turn.text
        ]
        body = json.dumps({"model": self.model, "messages": messages, "stream": True}).encode()
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        return urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", body, headers)


def _token(line: bytes) -> str:
    """Returns the text of one line of server-sent events; "" for lines that carry none."""
    data = line.strip().removeprefix(b"data:").strip()
    if not line.startswith(b"data:") or data == b"[DONE]":
        return ""
    try:
        choices = json.loads(data)["choices"]
        return str(choices[0]["delta"].get("content") or "") if choices else ""
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"answered {data[:80]!r}, expected choices[0].delta.content") from error
