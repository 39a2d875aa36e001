"""A talker of random weights, a user whose loudness is speech, and a clock that charges fixed times."""

from collections.abc import Callable, Iterator

import pytest
import torch

from csm.conversation.backchannels import LengthAlone
from csm.conversation.listener import ListenerConfig
from csm.conversation.live import LiveConversation
from csm.conversation.live_config import LiveConfig
from csm.conversation.repliers import ScriptReplier
from csm.conversation.worker import SimulatedWorker
from csm.generation.sampling import SamplingConfig
from csm.generation.talker import Talker
from csm.generation.voices import Voice
from tests.small_tokenizer import small_tokenizer

RATE = 8000
STEP = 160  # 20 ms


@pytest.fixture
def talker(tiny_model) -> Talker:
    """Speaks turns of about a second at 8 kHz, 640 samples a frame."""
    torch.manual_seed(0)
    voices = {"JOE": Voice("JOE", 0, torch.eye(8)[:1], torch.eye(4)[:1])}
    sampling = SamplingConfig(max_seconds=2.8, seed=3)
    return Talker(model=tiny_model(), tokenizer=small_tokenizer(RATE), voices=voices, sampling=sampling)


class LoudIsSpeech:
    """Voice activity of made-up users."""

    def __call__(self, window: torch.Tensor) -> float:
        return float(window.square().mean().sqrt() > 0.05)


class SaysHello:
    """A recogniser of made-up users, whose tones are no words."""

    name = "always hello"

    def __call__(self, samples: torch.Tensor) -> str:
        return "hello"


@pytest.fixture
def conversation(talker) -> Iterator[Callable[..., LiveConversation]]:
    """Makes a conversation in which every unit of work costs 30 ms."""
    made: list[LiveConversation] = []

    def make(
        *lines: str,
        charge: float = 0.03,
        talker=talker,
        turn_end=None,
        worker=None,
        transcriber=None,
        activity=None,
        backchannels=None,
        **settings,
    ) -> LiveConversation:
        config = LiveConfig(
            **{
                "gap": 0.0,
                "gap_spread": 0.0,
                "listener": ListenerConfig(longest_backchannel=0.7, pause=0.2),
                **settings,
            }
        )
        live = LiveConversation(
            talker,
            ScriptReplier(lines or ("one two three four five six seven eight",)),
            config,
            worker=worker or SimulatedWorker(lambda measured: charge),
            transcriber=transcriber or SaysHello(),
            activity=activity or LoudIsSpeech(),
            turn_end=turn_end,
            backchannels=backchannels or LengthAlone(),
        )
        made.append(live)
        return live

    yield make
    for live in made:
        live.close()


def sound(seconds: float, pitch: float = 200.0) -> torch.Tensor:
    """A tone, which LoudIsSpeech takes for speech."""
    return 0.3 * torch.sin(2 * torch.pi * pitch * torch.arange(round(seconds * RATE)) / RATE)


def silence(seconds: float) -> torch.Tensor:
    return torch.zeros(round(seconds * RATE))


def hold(live: LiveConversation, *parts: torch.Tensor) -> torch.Tensor:
    """Steps a conversation through the user's audio; returns the voice's."""
    user = torch.cat(parts)
    return torch.cat([live.step(part, RATE) for part in user.split(STEP)])
