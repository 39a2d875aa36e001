"""Time of a frame of speech by length of the context, size of the batch and width of the model."""

from functools import partial

import pytest
import torch

from csm.generation.batch import Request, SpeakingTogether
from csm.generation.sampling import SamplingConfig
from csm.generation.session import Session
from csm.model import CSMConfig, CSMModel
from csm.sequences.turns import FRAMES_PER_SECOND, TurnFrames

FRAMES = 10
CONTEXTS, BATCHES, WIDTHS = (64, 256, 512, 1024, 2048), (1, 2, 4, 8, 16), (256, 512, 768, 1024)
SAMPLING = SamplingConfig(temperature=0.0, max_seconds=FRAMES / FRAMES_PER_SECOND, shortest=100.0)


def model_of(width: int, device: torch.device) -> CSMModel:
    """Returns a random model of six layers with the quickstart's 16 codebooks and depth decoder."""
    torch.manual_seed(0)
    config = CSMConfig(
        d_model=width, n_layers=6, n_heads=width // 64, depth_d_model=160, num_codebooks=16, max_context=2560
    )
    return CSMModel(config).to(device).eval()


def session_of(model: CSMModel, rows: int) -> Session:
    """Returns a conversation of about `rows` rows in turns of 48 frames."""
    session = Session(model, SAMPLING)
    generator = torch.Generator().manual_seed(0)
    while session.context.cache.length + 64 <= rows:
        session.listen(
            TurnFrames("earlier", "hello there", 0, torch.randint(0, 1024, (16, 48), generator=generator))
        )
    return session


def speak(session: Session) -> None:
    """Speaks ten frames and restores the conversation."""
    turns, length = list(session.turns), session.context.cache.length
    assert len(list(session.speak("hello there", 0))) == FRAMES
    session.context.turns, session.context.cache.length = turns, length


def speak_together(sessions: list[Session]) -> None:
    lengths = [session.context.cache.length for session in sessions]
    frames = list(SpeakingTogether([Request(session, "hello there", 0) for session in sessions]))
    assert len(frames) == FRAMES
    for session, length in zip(sessions, lengths, strict=True):
        session.turns.clear()
        session.context.cache.length = length


def named(value: int, first: int, word: str) -> str:
    return "csm" if value == first else f"{word} {value}"


@pytest.mark.parametrize("name", [named(rows, CONTEXTS[0], "context") for rows in CONTEXTS])
def test_context(name, device, compare):
    def contenders():
        model = model_of(512, device)
        return {
            named(rows, CONTEXTS[0], "context"): (lambda rows=rows: partial(speak, session_of(model, rows)))
            for rows in CONTEXTS
        }

    compare(name, f"{FRAMES} frames after a context of 64 rows", contenders, flops=0.0, moved=0.0, bars={})


@pytest.mark.parametrize("name", [named(size, 1, "batch") for size in BATCHES])
def test_batch(name, device, compare):
    def contenders():
        model = model_of(512, device)
        return {
            named(size, 1, "batch"): (
                lambda size=size: partial(speak_together, [Session(model, SAMPLING) for _ in range(size)])
            )
            for size in BATCHES
        }

    compare(name, f"{FRAMES} frames of one conversation", contenders, flops=0.0, moved=0.0, bars={})


@pytest.mark.parametrize("name", [named(width, WIDTHS[0], "width") for width in WIDTHS])
def test_width(name, device, compare):
    def contenders():
        return {
            named(width, WIDTHS[0], "width"): (
                lambda width=width: partial(speak, Session(model_of(width, device), SAMPLING))
            )
            for width in WIDTHS
        }

    compare(name, f"{FRAMES} frames, width {WIDTHS[0]}", contenders, flops=0.0, moved=0.0, bars={})
