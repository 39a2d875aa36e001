"""One conversation over a WebSocket: audio both ways, and what happens as JSON."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocket, WebSocketDisconnect

from csm.conversation.events import Event
from csm.conversation.live import LiveConversation
from csm.conversation.live_config import LiveConfig
from csm.conversation.worker import ThreadWorker
from csm.generation.talker import Talker
from csm.serving.audio_codecs import OPUS_RATE, AudioLine, PcmLine, line_of
from csm.serving.service import Service

BAD, TOO_MUCH, TIME_OVER = 1008, 1009, 1000  # WebSocket close codes
OPEN_WITHIN_S = 10.0


class Talk:
    """A conversation and its limits.

    Args:
        socket: Accepted socket.
        service: Voice, settings and metrics of the server.
    """

    def __init__(self, socket: WebSocket, service: Service) -> None:
        self._socket, self._service = socket, service
        self._live: LiveConversation | None = None
        self._line: AudioLine = PcmLine()
        self._rate, self._sent, self._heard_s = 0, 0, 0.0
        self._began = time.monotonic()

    async def run(self) -> None:
        """Holds the conversation until either side ends it."""
        try:
            await self._open()
            while True:
                await self._message(await self._receive(self._service.settings.idle))
        except WebSocketDisconnect:
            pass
        except (ValueError, TypeError) as error:
            self._service.metrics.count("bad_requests_total")
            await self._end(BAD, str(error))
        except asyncio.TimeoutError:
            await self._end(TIME_OVER, f"no message for {self._service.settings.idle:g} s")
        finally:
            if self._live is not None:
                await run_in_threadpool(self._live.close)

    async def _receive(self, patience: float) -> dict[str, Any]:
        message: Any = await asyncio.wait_for(self._socket.receive(), patience)
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1000))
        return dict(message)

    async def _open(self) -> None:
        """Reads the first message, {"rate": 16000, "speaker": null, "replier": "script", "codec": "pcm"}.

        "style" names a style of the server, null or none is the voice's own.
        """
        first = _json((await self._receive(OPEN_WITHIN_S)).get("text"))
        codec, speaker = first.get("codec", "pcm"), first.get("speaker")
        line = line_of(codec, self._service.talker.tokenizer.config.sample_rate)
        rate = first.get("rate", OPUS_RATE if codec == "opus" else None)
        if not isinstance(rate, int) or not 8000 <= rate <= 96_000:
            raise ValueError(f"rate is {rate!r}: expected 8000 to 96000 Hz, a whole number")
        if codec == "opus" and rate != OPUS_RATE:
            raise ValueError(f"rate is {rate}: expected {OPUS_RATE} Hz with codec opus; leave it out")
        if speaker is not None and not isinstance(speaker, str):
            raise ValueError(f"speaker is {speaker!r}: expected a name or null")
        self._rate, self._line = rate, line
        talker = self._service.talker_in(first.get("style"))
        self._live = await run_in_threadpool(self._conversation, talker, speaker, first.get("replier"))
        self._service.metrics.count("conversations_total")
        await self._socket.send_json({"type": "ready", "rate": self._live.rate, "speaker": speaker})

    def _conversation(self, talker: Talker, speaker: str | None, replier: Any) -> LiveConversation:
        service = self._service
        return LiveConversation(
            talker,
            service.replier(replier),
            LiveConfig(),
            speaker=speaker,
            worker=ThreadWorker(),
            transcriber=service.transcriber,
            turn_end=service.turn_end,
            backchannels=service.backchannels,
        )

    async def _message(self, message: dict[str, Any]) -> None:
        live = self._live
        assert live is not None
        if message.get("bytes") is not None:
            await self._audio(live, message["bytes"])
        else:
            self._command(live, _json(message.get("text")))
        for event in live.log.after(self._sent):
            self._sent += 1
            self._measure(live, event)
            await self._socket.send_json({"type": "event", **event._asdict()})

    async def _audio(self, live: LiveConversation, data: bytes) -> None:
        """Takes the user's audio and answers with the voice's of the same time."""
        samples = self._line.decode(data)
        self._heard_s += len(samples) / self._rate
        early = self._heard_s - (time.monotonic() - self._began)
        settings = self._service.settings
        if early > settings.ahead:
            raise ValueError(f"audio is {early:.1f} s ahead of time: expected real time")
        if self._heard_s > settings.longest_session:
            raise ValueError(f"the conversation has lasted {settings.longest_session:g} s, the limit")
        for message in self._line.encode(live.step(samples, self._rate)):
            await self._socket.send_bytes(message)

    def _command(self, live: LiveConversation, command: dict[str, Any]) -> None:
        if command.get("type") == "text" and isinstance(command.get("text"), str):
            longest = self._service.settings.longest_text
            if len(command["text"]) > longest:
                raise ValueError(f"text has {len(command['text'])} characters: expected at most {longest}")
            live.type(command["text"])
        elif command.get("type") == "interrupt":
            live.interrupt()
        else:
            raise ValueError(f"type is {command.get('type')!r}: expected text (with text) or interrupt")

    def _measure(self, live: LiveConversation, event: Event) -> None:
        metrics = self._service.metrics
        if event.kind == "underrun":
            metrics.count("underruns_total")
        elif event.kind == "barge_in":
            metrics.count("barge_ins_total")
        elif event.kind == "voice_begins" and (ends := live.log.of("user_ends")):
            metrics.observe("gap_seconds", (event.at - ends[-1].since) / live.rate)

    async def _end(self, code: int, reason: str) -> None:
        try:
            await self._socket.send_json({"type": "error", "message": reason})
            await self._socket.close(code, reason[:100])
        except (RuntimeError, WebSocketDisconnect):
            pass  # the other side is gone already


def _json(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError) as error:
        raise ValueError("message is no JSON: expected an object") from error
    if not isinstance(value, dict):
        raise ValueError(f"message is {type(value).__name__}: expected an object")
    return value
