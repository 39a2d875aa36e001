"""Scripted users: recorded turns, and what happens while the voice answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from csm.audio.files import read_audio
from csm.conversation.backchannels import is_backchannel, words_of
from csm.conversation.listener import ListenerConfig
from csm.data.manifest import Corpus, Turn
from csm.pronunciation import is_word
from csm.system.files import order_by_hash

RATE = 16_000
EventKind = Literal[
    "barge_in",
    "short_interruption",
    "backchannel",
    "cough",
    "slam",
    "side_talk",
    "music",
    "silence",
    "hesitation",
]
# What shall happen: the voice yields, or it speaks on. A hesitating speaker is not to be cut off.
YIELDS: dict[EventKind, bool] = {
    "barge_in": True,
    "short_interruption": True,
    "backchannel": False,
    "cough": False,
    "slam": False,
    "side_talk": False,
    "music": False,
    "silence": False,
}
SHORT_S = ListenerConfig().longest_backchannel  # longer speech over the voice is a turn, whatever its words
LOUDNESS = 0.05  # RMS of all recorded speech
SIDE_TALK = 10 ** (-26 / 20)  # another room: 26 dB below the user


class ScriptedUser(NamedTuple):
    """One user.

    Attributes:
        name: For the report.
        kind: What happens.
        opening: float32 [S] at 16 kHz, the turn that is answered.
        event: float32 [S], what comes while the voice answers; empty for a hesitating speaker.
    """

    name: str
    kind: EventKind
    opening: Tensor
    event: Tensor


def scripted_users(corpus: Corpus, count: int, seed: int = 0) -> list[ScriptedUser]:
    """Makes `count` users of each kind from held-out turns; the draw depends on the seed alone.

    Turns of at most 1 s are backchannels where all their words are those of backchannels, and short
    interruptions where other words are among them, all of the lexicon. Where the held-out turns have too
    few, other splits' turns follow: nothing here was trained on. Users share those of which there are fewer.

    Raises:
        ValueError: The corpus has too few turns.
    """
    long = _drawn(corpus, seed, lambda turn: 1.5 <= turn.duration <= 6.0)
    murmurs, words = _drawn(corpus, seed, _is_backchannel), _drawn(corpus, seed, _is_short_interruption)
    if len(long) < 3 * count or not murmurs or not words:
        raise ValueError(
            f"{corpus.root}: has {len(long)} turns of 1.5 to 6 s, {len(murmurs)} backchannels and "
            f"{len(words)} short interruptions: expected at least {3 * count}, 1 and 1; lower --users"
        )
    return [*_users(corpus, (long, murmurs, words), count, seed)]


def _users(
    corpus: Corpus, turns: tuple[Sequence[Turn], ...], count: int, seed: int
) -> Iterator[ScriptedUser]:
    long, murmurs, words = turns
    for number in range(count):
        opening, other, third = (recorded_speech(corpus, turn) for turn in long[3 * number : 3 * number + 3])
        generator = torch.Generator().manual_seed(seed * 1000 + number)
        events: dict[EventKind, Tensor] = {
            "silence": torch.zeros(RATE),
            "barge_in": other,
            "short_interruption": recorded_speech(corpus, words[number % len(words)]),
            "backchannel": recorded_speech(corpus, murmurs[number % len(murmurs)]),
            "cough": cough(generator),
            "slam": slam(generator),
            "side_talk": SIDE_TALK * third,
            "music": music(generator),
        }
        for kind, event in events.items():
            yield ScriptedUser(f"{kind} {number}", kind, opening, event)
        hesitating = hesitation(opening, other, generator)
        yield ScriptedUser(f"hesitation {number}", "hesitation", hesitating, torch.zeros(0))


def _drawn(corpus: Corpus, seed: int, suits: Callable[[Turn], bool]) -> list[Turn]:
    """Turns in a drawn order, held-out ones first."""
    found = []
    for split in ("test", "validation", "train"):
        turns = {turn.id: turn for turn in corpus.turns(split) if suits(turn)}
        found += [turns[name] for name in order_by_hash(turns, seed)]
    return found


def _is_backchannel(turn: Turn) -> bool:
    return turn.duration <= SHORT_S and bool(turn.text) and is_backchannel(turn.text)


def _is_short_interruption(turn: Turn) -> bool:
    """Whether a turn is short, and words: "(sigh)" and "Ungh!" are none."""
    if turn.duration > SHORT_S or is_backchannel(turn.text) or turn.text.startswith("("):
        return False
    return all(map(is_word, words_of(turn.text)))


def recorded_speech(corpus: Corpus, turn: Turn) -> Float[Tensor, " S"]:
    """A turn without the silence around it, at one loudness."""
    audio = read_audio(
        corpus.root / turn.audio, sample_rate=RATE, start=turn.start, end=turn.end, channel=turn.channel
    )[0]
    first, last = audible_span(audio)
    audio = audio[first:last]
    return audio * (LOUDNESS / audio.square().mean().sqrt().clamp_min(1e-6))


def audible_span(audio: Float[Tensor, " S"]) -> tuple[int, int]:
    """First and last sample above -35 dB of the peak; (0, 0) for silence."""
    loud = (audio.abs() > audio.abs().max() * 10 ** (-35 / 20)).nonzero()
    return (int(loud[0]), int(loud[-1]) + 1) if len(loud) and bool(audio.any()) else (0, 0)


def cough(generator: torch.Generator) -> Float[Tensor, " S"]:
    """Two bursts of noise with a sharp onset, 0.12 s each."""
    burst = torch.randn(round(0.12 * RATE), generator=generator)
    burst *= torch.exp(-torch.linspace(0, 5, len(burst)))
    pause = torch.zeros(round(0.1 * RATE))
    return 0.4 * torch.cat([burst, pause, 0.7 * burst])


def slam(generator: torch.Generator) -> Float[Tensor, " S"]:
    """Low noise that decays in 0.3 s."""
    noise = torch.randn(round(0.3 * RATE), generator=generator)
    low = torch.nn.functional.avg_pool1d(noise[None], 25, stride=1, padding=12)[0]
    return 2.0 * low * torch.exp(-torch.linspace(0, 8, len(low)))


def music(generator: torch.Generator) -> Float[Tensor, " S"]:
    """Four chords of three harmonic tones, 0.4 s each."""
    time = torch.arange(round(0.4 * RATE)) / RATE
    chords = []
    for _ in range(4):
        root = 130.8 * 2 ** (int(torch.randint(0, 12, (), generator=generator)) / 12)
        tones = [root * ratio * n for ratio in (1, 5 / 4, 3 / 2) for n in (1, 2, 3)]
        chord = torch.stack([torch.sin(2 * math.pi * tone * time) for tone in tones]).mean(0)
        chords.append(chord * torch.exp(-2 * time))
    return 0.15 * torch.cat(chords)


def hesitation(first: Tensor, second: Tensor, generator: torch.Generator) -> Float[Tensor, " S"]:
    """Two stretches of speech with a pause of 0.3 to 0.9 s between them."""
    seconds = 0.3 + 0.6 * float(torch.rand((), generator=generator))
    return torch.cat([first, torch.zeros(round(seconds * RATE)), second])
