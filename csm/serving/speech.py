"""Speech and transcription by HTTP, in the form of OpenAI's API."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
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
from csm.serving.audio_codecs import OggOpus, PcmFile, wav_header
from csm.serving.service import Service

FORMATS = {"wav": "audio/wav", "pcm": "audio/pcm", "opus": "audio/ogg"}


async def speech(request: Request, service: Service) -> Response:
    """POST /v1/audio/speech: {"input", "voice", "response_format", "speed", "style"}; streams.

    The format is one of FORMATS, "wav" without one; the speed is 0.5 to 2; the style is one of the server's.

    Raises:
        ValueError: A field is wrong, or the package of Opus is missing.
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
    speed = body.get("speed")
    if speed is not None and (isinstance(speed, bool) or not isinstance(speed, int | float)):
        raise ValueError(f"speed is {speed!r}: expected a number, 1 for the voice's own pace")
    if speed is not None and not 0.5 <= speed <= 2:
        raise ValueError(f"speed is {str(speed)[:20]}: expected 0.5 (half the rate) to 2 (double)")
    talker = service.talker_in(body.get("style"))
    if speed not in (None, 1) and not talker.model.predicts_durations():
        raise ValueError(f"speed is {speed}: expected 1; the voice's model predicts no durations of phones")
    voice = talker.voice(None if name in (None, "default", "alloy") else str(name)).name
    began = time.monotonic()
    with ExitStack() as places:
        places.enter_context(service.admission.place())
        file = _file_of(kind, service.talker.tokenizer.config.sample_rate)
        stream = talker.generate(text, voice, speed=None if speed is None else float(speed), stream=True)
        parts = _coded(stream, file)
        try:
            first = await run_in_threadpool(next, parts)
        except BaseException:
            await _close(stream)
            raise
        service.metrics.observe("first_audio_seconds", time.monotonic() - began)
        kept = places.pop_all()
    return StreamingResponse(_audio(stream, first, parts, kept), media_type=FORMATS[kind])


async def _audio(
    stream: SpeechStream, first: bytes, parts: Iterator[bytes], place: ExitStack
) -> AsyncIterator[bytes]:
    with place:
        try:
            yield first
            while (data := await run_in_threadpool(next, parts, None)) is not None:
                yield data
        finally:
            await _close(stream)


async def _close(stream: SpeechStream) -> None:
    """Closes a stream on another thread, also where the request is cancelled: it waits for a step."""
    await asyncio.shield(run_in_threadpool(stream.close))


def _coded(stream: SpeechStream, file: PcmFile | OggOpus) -> Iterator[bytes]:
    """Yields the bytes of a speech as they are known; at least one part, none of them empty but the last."""
    for chunk in stream:
        if data := file.push(chunk[0]):
            yield data
    yield file.finish()


def _file_of(kind: str, rate: int) -> PcmFile | OggOpus:
    """Returns what codes a speech, one of FORMATS, at the voice's rate.

    Raises:
        ValueError: The package of Opus is missing.
    """
    if kind == "opus":
        return OggOpus(rate)
    return PcmFile(wav_header(rate) if kind == "wav" else b"")


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
