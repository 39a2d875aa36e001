"""Load of a running server: users talk to it in real time, and every block of audio has a deadline."""

from __future__ import annotations

import importlib
import json
import threading
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from csm.evaluation.conversation.users import RATE, ScriptedUser
from csm.system.extras import missing_package

BLOCK = RATE // 50  # 20 ms
DEADLINE_MS = 20.0  # a block that comes later leaves a gap in playback
LISTENS_S, AFTER_S, ASKS_EVERY_S = 2.5, 3.5, 10.0


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How a server is loaded.

    Attributes:
        url: Address of the server, http://127.0.0.1:8765.
        sessions: Users at once.
        minutes: How long they talk.
        token: The server's token; "" for none.
    """

    url: str
    sessions: int = 1
    minutes: float = 1.0
    token: str = ""

    def __post_init__(self) -> None:
        if not self.url.startswith("http://"):
            raise ValueError(f"url is {self.url!r}: expected http://HOST:PORT of csm serve")
        if self.sessions < 1 or not self.minutes > 0:
            raise ValueError(
                f"sessions is {self.sessions} and minutes {self.minutes}: expected 1 or more, and above 0"
            )


@dataclass
class Session:
    """What one user met: the delay of each block in ms, kinds of events, and why it ended early."""

    delays: list[float] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    failure: str = ""


def run_load(options: LoadOptions, users: Sequence[ScriptedUser]) -> dict[str, Any]:
    """Has users talk to a server for some minutes; returns the figures.

    Raises:
        ValueError: The server does not answer, or websockets is missing.
    """
    try:
        client: Any = importlib.import_module("websockets.sync.client")
    except ImportError as error:
        raise ValueError(missing_package("websockets", "a load")) from error
    memory = [_resident(options)]
    sessions = [Session() for _ in range(options.sessions)]
    threads = [
        threading.Thread(target=_talk, args=(client, options, audio_of(users, number), session), daemon=True)
        for number, session in enumerate(sessions)
    ]
    for thread in threads:
        thread.start()
    while alive := [thread for thread in threads if thread.is_alive()]:
        alive[0].join(ASKS_EVERY_S)
        memory.append(_resident(options))
    return figures(sessions, memory)


def audio_of(users: Sequence[ScriptedUser], number: int) -> Tensor:
    """Returns what one user says over and over, float32 [S]: each opening, and its event 2.5 s later."""
    pauses = [torch.zeros(round(seconds * RATE)) for seconds in (LISTENS_S, AFTER_S)]
    order = [users[(number + place) % len(users)] for place in range(len(users))]
    return torch.cat([part for one in order for part in (one.opening, pauses[0], one.event, pauses[1])])


def figures(sessions: Sequence[Session], memory: Sequence[float]) -> dict[str, Any]:
    """Summarises sessions: delays of all blocks, and the server's memory in MB over time.

    The first conversations make caches and thread heaps: growth is what lies between a tenth and the end.
    """
    delays = np.array([delay for session in sessions for delay in session.delays])
    events = [event for session in sessions for event in session.events]
    return {
        "sessions": len(sessions),
        "failed": {number: one.failure for number, one in enumerate(sessions) if one.failure},
        "blocks": len(delays),
        "delay_ms": {f"p{q}": round(float(np.percentile(delays, q)), 2) for q in (50, 95, 99, 100)}
        if len(delays)
        else None,
        "late": int((delays > DEADLINE_MS).sum()),
        "events": {kind: events.count(kind) for kind in sorted({*events})},
        "resident_mb": {
            "first": memory[0],
            "after_a_tenth": memory[len(memory) // 10],
            "last": memory[-1],
            "most": max(memory),
        },
    }


def _talk(client: Any, options: LoadOptions, audio: Tensor, session: Session) -> None:
    query = f"?token={options.token}" if options.token else ""
    try:
        with client.connect(options.url.replace("http", "ws", 1) + "/talk" + query) as socket:
            socket.send(json.dumps({"rate": RATE, "replier": "script"}))
            opened = json.loads(socket.recv(timeout=30))
            if opened["type"] != "ready":
                raise ValueError(opened.get("message", "not ready"))
            _send(socket, audio, 60 * options.minutes, session)
    except Exception as error:  # a session that ends early is counted with its reason
        session.failure = " ".join(str(error).split()) or type(error).__name__


def _send(socket: Any, audio: Tensor, seconds: float, session: Session) -> None:
    samples = (audio.clamp(-1, 1) * 32767).round().to(torch.int16).numpy()
    blocks = [samples[start : start + BLOCK].tobytes() for start in range(0, len(samples), BLOCK)]
    begin = time.monotonic()
    for number in range(round(seconds * RATE / BLOCK)):
        due = begin + number * BLOCK / RATE
        time.sleep(max(0.0, due - time.monotonic()))
        sent = time.monotonic()
        socket.send(blocks[number % len(blocks)])
        while isinstance(got := socket.recv(timeout=30), str):
            message = json.loads(got)
            session.events.append(str(message.get("kind", message["type"])))
        session.delays.append(1000 * (time.monotonic() - sent))


def _resident(options: LoadOptions) -> float:
    """Returns the server's resident memory in MB, by its /metrics."""
    headers = {"Authorization": f"Bearer {options.token}"} if options.token else {}
    request = urllib.request.Request(options.url + "/metrics", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
    except OSError as error:
        raise ValueError(f"no server at {options.url} ({error}): start csm serve first") from error
    found = [line.split()[1] for line in lines if line.startswith("csm_resident_bytes ")]
    return round(float(found[0]) / 1e6, 1) if found else 0.0
