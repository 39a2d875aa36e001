"""Speech and transcription by HTTP, in the form of OpenAI's API."""

from __future__ import annotations

import asyncio
import struct
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from csm.audio.files import read_audio
from csm.conversation.transcriber import LONGEST_S, RATE
from csm.generation.audio_stream import SpeechStream
from csm.serving.service import Service

FORMATS = {"wav": "audio/wav", "pcm": "audio/pcm"}
UNKNOWN_LENGTH = 0xFFFFFFFF


async def speech(request: Request, service: Service) -> Response:
    """POST /v1/audio/speech: {"input", "voice", "response_format": wav or pcm, "speed": 1}; streams.

    Raises:
        ValueError: A field is wrong.
        Full: All places are taken.
    """
    body = await _object(request, service)
    text, name, kind = body.get("input"), body.get("voice"), body.get("response_format", "wav")
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"input is {str(text)[:40]!r}: expected a text to speak")
    if len(text) > service.settings.longest_text:
        raise ValueError(
            f"input has {len(text)} characters: expected at most {service.settings.longest_text}"
        )
    if kind not in FORMATS:
        raise ValueError(f"response_format is {kind!r}: expected one of {', '.join(FORMATS)}")
    if body.get("speed", 1) != 1:
        raise ValueError(f"speed is {body['speed']!r}: expected 1; the voice has no other pace")
    voice = service.talker.voice(None if name in (None, "default", "alloy") else str(name)).name
    began = time.monotonic()
    with ExitStack() as places:
        places.enter_context(service.admission.place())
        stream = service.talker.generate(text, voice, stream=True)
        try:
            first = await run_in_threadpool(_pcm, stream)
        except BaseException:
            await _close(stream)
            raise
        service.metrics.observe("first_audio_seconds", time.monotonic() - began)
        head = wav_header(service.talker.tokenizer.config.sample_rate) if kind == "wav" else b""
        kept = places.pop_all()
    return StreamingResponse(_audio(stream, head + first, kept), media_type=FORMATS[kind])


async def _audio(stream: SpeechStream, first: bytes, place: ExitStack) -> AsyncIterator[bytes]:
    with place:
        try:
            yield first
            while data := await run_in_threadpool(_pcm, stream):
                yield data
        finally:
            await _close(stream)


async def _close(stream: SpeechStream) -> None:
    """Closes a stream on another thread, also where the request is cancelled: it waits for a step."""
    await asyncio.shield(run_in_threadpool(stream.close))


def _pcm(stream: SpeechStream) -> bytes:
    """Next chunk as PCM16; empty at the end."""
    chunk = next(stream, None)
    return b"" if chunk is None else (chunk[0].clamp(-1, 1) * 32767).round().short().numpy().tobytes()


def wav_header(rate: int) -> bytes:
    """Header of a mono PCM16 WAV whose length is not known yet: its data reach to the end."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return (
        struct.pack("<4sI4s", b"RIFF", UNKNOWN_LENGTH, b"WAVE")
        + form
        + struct.pack("<4sI", b"data", UNKNOWN_LENGTH)
    )


async def transcription(request: Request, service: Service) -> Response:
    """POST /v1/audio/transcriptions: a form with `file`, at most 29 s of one channel.

    Raises:
        ValueError: The upload is missing, too large, or no audio.
        Full: All places are taken.
    """
    await _body(request, service)  # read once within the limit; the form parser reads the kept copy
    form = await request.form(max_files=1, max_fields=10)
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise ValueError("file is missing: expected an audio file in the form's field file")
    with service.admission.place():
        text = await run_in_threadpool(_transcribed, await file.read(), service)
    return JSONResponse({"text": text})


def _transcribed(data: bytes, service: Service) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        path.write_bytes(data)
        audio = read_audio(path, sample_rate=RATE)[0]
    if len(audio) > (LONGEST_S - 1) * RATE:
        raise ValueError(f"file has {len(audio) / RATE:.1f} s: expected at most {LONGEST_S - 1:g} s")
    return service.transcriber(audio)


async def _object(request: Request, service: Service) -> dict[str, Any]:
    await _body(request, service)
    try:
        body = await request.json()
    except (ValueError, RecursionError) as error:
        raise ValueError("body is no JSON: expected an object") from error
    if not isinstance(body, dict):
        raise ValueError(f"body is {type(body).__name__}: expected an object")
    return body


async def _body(request: Request, service: Service) -> None:
    """Reads the body into the request, at most the largest upload."""
    limit = service.settings.largest_upload
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise ValueError(f"body has more than {limit} bytes: expected no more; send less")
        parts.append(part)
    request._body = b"".join(parts)
