"""The server's routes: who is asked for what, and how errors are answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from csm import __version__
from csm.serving import speech
from csm.serving.admission import Full
from csm.serving.audio_codecs import available_codecs
from csm.serving.service import Service
from csm.serving.talking import BAD, Talk
from csm.system.host_memory import resident_memory

PAGE = Path(__file__).resolve().parent / "page"
TRY_AGAIN = 1013  # WebSocket close code

Handler = Callable[[Request], Awaitable[Response]]


def make_app(service: Service) -> Starlette:
    """Returns the application of a service."""

    def guarded(work: Callable[[Request, Service], Awaitable[Response]]) -> Handler:
        async def handler(request: Request) -> Response:
            return await answered(request, service, work)

        return handler

    async def talk(socket: WebSocket) -> None:
        await _talk(socket, service)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.close)

    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/", _page),
            Route("/health", guarded(_health)),
            Route("/metrics", guarded(_metrics)),
            Route("/v1/audio/speech", guarded(speech.speech), methods=["POST"]),
            Route("/v1/audio/transcriptions", guarded(speech.transcription), methods=["POST"]),
            WebSocketRoute("/talk", talk),
            Mount("/page", StaticFiles(directory=PAGE)),
        ],
    )


async def answered(
    request: Request, service: Service, work: Callable[[Request, Service], Awaitable[Response]]
) -> Response:
    """Answers a request; bad input is 400 with one line, one speaker too many 503, no token 401."""
    if not service.settings.admits(token_of(request)):
        return _error(401, "token is missing or wrong: expected Authorization: Bearer TOKEN")
    try:
        return await work(request, service)
    except Full as error:
        return _error(503, str(error))
    except ValueError as error:
        service.metrics.count("bad_requests_total")
        return _error(400, str(error))


def token_of(connection: HTTPConnection) -> str:
    """Returns the token of a request: its header's, or the query's, which a browser's socket can set."""
    header = connection.headers.get("authorization", "")
    return header.removeprefix("Bearer ") if header else connection.query_params.get("token", "")


def same_origin(connection: HTTPConnection) -> bool:
    """Returns whether a socket comes from the server's own page, or from no page at all.

    Browsers let every page open sockets to the loopback; the Origin header names the page.
    """
    origin = connection.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == connection.headers.get("host")


async def _talk(socket: WebSocket, service: Service) -> None:
    await socket.accept()
    if not same_origin(socket):
        await socket.close(BAD, "the page is another server's")
    elif not service.settings.admits(token_of(socket)):
        await socket.close(BAD, "token is missing or wrong")
    else:
        try:
            with service.admission.place():
                await Talk(socket, service).run()
        except Full as error:
            await socket.send_json({"type": "error", "message": str(error)})
            await socket.close(TRY_AGAIN, str(error)[:100])


async def _page(request: Request) -> Response:
    return FileResponse(PAGE / "talk.html")


async def _health(request: Request, service: Service) -> Response:
    return JSONResponse(
        {
            "status": "ok",
            "version": __version__,
            "rate": service.talker.tokenizer.config.sample_rate,
            "codecs": available_codecs(),
            "voices": list(service.talker.voices),
            "styles": list(service.styles),
            "repliers": list(service.repliers),
            "places": service.admission.places,
            "taken": service.admission.taken,
        }
    )


async def _metrics(request: Request, service: Service) -> Response:
    service.metrics.set("resident_bytes", resident_memory())
    return PlainTextResponse(service.metrics.text())


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error"}}, status)
