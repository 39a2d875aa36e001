"""A server of a talker with random weights on the loopback."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
import uvicorn

from csm.generation.sampling import SamplingConfig
from csm.generation.talker import Talker
from csm.generation.voices import Voice
from csm.serving.app import make_app
from csm.serving.service import Service
from csm.serving.settings import ServerSettings
from tests.small_tokenizer import small_tokenizer

RATE = 8000


class SaysHello:
    """A recogniser for tones, which have no words."""

    name = "always hello"

    def __call__(self, samples: torch.Tensor) -> str:
        return "hello"


@pytest.fixture
def talker(tiny_model) -> Talker:
    torch.manual_seed(0)
    voices = {
        name: Voice(name, number, torch.eye(8)[number : number + 1], torch.eye(4)[number : number + 1])
        for number, name in enumerate(("JOE", "FAYE"))
    }
    sampling = SamplingConfig(max_seconds=1.2, seed=3)
    return Talker(model=tiny_model(), tokenizer=small_tokenizer(RATE), voices=voices, sampling=sampling)


@pytest.fixture
def serve(talker) -> Iterator[Callable[..., str]]:
    """Starts a server with these settings; returns its address, 127.0.0.1:PORT."""
    started = []

    def start(transcriber=None, talker=talker, styles=None, **settings) -> str:
        service = Service(
            talker=talker,
            styles=styles or {},
            transcriber=transcriber or SaysHello(),
            settings=ServerSettings(**{"sessions": 2, "port": 0, **settings}),
        )
        server = uvicorn.Server(
            uvicorn.Config(make_app(service), host="127.0.0.1", port=0, log_level="error", ws_max_size=2**18)
        )
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        started.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    yield start
    for server, thread in started:
        server.should_exit = True
        thread.join(20)
