"""Opens a page on which a voice is talked with, and an HTTP server for programs.

    csm serve                                    the packaged voice: http://127.0.0.1:8765
    csm serve --voice my_voice --script lines.txt
    csm serve --style angry=angry.wav            a style to choose, in the manner of a recording
    csm serve --chat http://127.0.0.1:8000/v1    words from an OpenAI-compatible endpoint
    csm serve --host 0.0.0.0 --token WORD        for other machines; the page is then /?token=WORD

docs/serving.md describes the page, the WebSocket and the endpoints.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import torch
import uvicorn
from torch import Tensor

from csm.audio.files import read_audio
from csm.cli.options import add_backchannels, add_turn_end, add_voice
from csm.conversation.backchannels import available_backchannels
from csm.conversation.repliers import ChatReplier
from csm.conversation.smart_turn import available_turn_end
from csm.conversation.transcriber import HEARING, transcriber_of
from csm.generation.talker import Talker
from csm.generation.voice_card import is_marked
from csm.serving.app import make_app
from csm.serving.service import Service
from csm.serving.settings import ServerSettings
from csm.system.log import log


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    defaults = ServerSettings()
    add_voice(parser)
    parser.add_argument("--host", default=defaults.host, help="address of the server (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=defaults.port, help="port of the server (default: %(default)s)"
    )
    parser.add_argument(
        "--token",
        default=os.environ.get("CSM_TOKEN", ""),
        help="token that clients must send (default: $CSM_TOKEN)",
    )
    parser.add_argument(
        "--sessions", type=int, default=0, metavar="N", help="number of speakers at once (default: measured)"
    )
    parser.add_argument(
        "--hearing",
        choices=HEARING,
        default=HEARING[0],
        help="recogniser of speech: tiny.en, or the voice's own model (experimental)",
    )
    add_turn_end(parser)
    add_backchannels(parser)
    parser.add_argument(
        "--style",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="style that the page offers: a recording in whose manner to speak; may be given several times",
    )
    parser.add_argument("--script", type=Path, metavar="FILE", help="text file of replies, one a line")
    parser.add_argument("--chat", metavar="URL", help="OpenAI-compatible endpoint that writes the words")
    parser.add_argument(
        "--chat-model", default="default", metavar="NAME", help="name of the endpoint's model"
    )


def run(options: argparse.Namespace) -> None:
    """Serves until it is interrupted."""
    settings = ServerSettings(
        host=options.host, port=options.port, token=options.token, sessions=options.sessions
    )
    # Each conversation has a thread: more inside one only delay the others.
    torch.set_num_threads(1)
    service = _service(options, settings)
    where = f"http://{settings.host}:{settings.port}/"
    print(f"talk with {next(iter(service.talker.voices))}: {where}", flush=True)
    print(f"{service.admission.places} speakers at once ({service.admission.reason})", flush=True)
    uvicorn.run(
        make_app(service),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        ws_max_size=2**18,
        timeout_keep_alive=5,
        h11_max_incomplete_event_size=2**14,
    )


def _service(options: argparse.Namespace, settings: ServerSettings) -> Service:
    chosen: dict[str, Any] = {}
    if options.script is not None:
        if not options.script.is_file():
            raise ValueError(f"no file {options.script}: --script takes a text file, one reply a line")
        lines = options.script.read_text(encoding="utf-8").splitlines()
        chosen["script"] = tuple(line.strip() for line in lines if line.strip())
    if options.chat is not None:
        key = os.environ.get("OPENAI_API_KEY", "")
        chosen["chat"] = ChatReplier(url=options.chat, model=options.chat_model, key=key)
    if is_marked(options.voice):
        log.warning(
            "the card of %s asks for a watermark: speech that is streamed carries none", options.voice
        )
    talker = Talker.from_pretrained(options.voice)
    transcriber = transcriber_of(options.hearing, talker)
    return Service(
        talker=talker,
        transcriber=transcriber,
        settings=settings,
        styles=_styles(options.style, talker),
        turn_end=available_turn_end(options.turn_end),
        backchannels=available_backchannels(options.backchannels, transcriber),
        **chosen,
    )


def _styles(given: list[str], talker: Talker) -> dict[str, Tensor]:
    """Returns the emotion embedding of each NAME=FILE.

    Raises:
        ValueError: A name or a file is missing, a name occurs twice, or the recording cannot be read.
    """
    found: dict[str, Tensor] = {}
    rate = talker.tokenizer.config.sample_rate
    for text in given:
        name, _, file = text.partition("=")
        if not name or not file or name in found:
            raise ValueError(
                f"--style is {text!r}: expected NAME=FILE with a name of its own, as angry=angry.wav"
            )
        style = talker.with_style(read_audio(file, sample_rate=rate), rate).style
        assert style is not None, "with_style sets it"
        found[name] = style
    return found
