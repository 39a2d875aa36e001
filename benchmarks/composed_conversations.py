"""Conversations made of a corpus's recordings: who speaks when, and what, is known exactly."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.signal
import torch

from csm.audio.files import read_audio, write_audio
from csm.audio.resampling import resample
from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn

RATE = 16_000
FRAME = 0.01  # seconds
FLOOR_DB, LONGEST_PAUSE = -35.0, 0.3  # of a clip's loudest frame; pauses below this are speech


@dataclass(frozen=True)
class Said:
    """A turn of a composed conversation: its speaker, times of speech in seconds, text, and place."""

    speaker: str
    start: float
    end: float
    text: str
    channel: int
    backchannel: bool = False


@dataclass
class Conversation:
    """A composed conversation: its turns, and the waveform [C, S] at RATE."""

    turns: list[Said] = field(default_factory=list)
    waveform: torch.Tensor = field(default_factory=lambda: torch.zeros(2, 0))


def compose(
    corpus: Corpus,
    seed: int,
    *,
    speakers: int = 2,
    minutes: float = 2.0,
    gaps: tuple[float, float] = (0.1, 1.0),
    backchannels: float = 0.0,
    noise_db: float | None = None,
    crosstalk_db: float | None = None,
    echo: float = 0.0,
) -> Conversation:
    """Composes a conversation with one channel a speaker.

    Args:
        corpus: Corpus of clips of one speaker each.
        seed: Seed of all draws.
        speakers: Number of people, drawn among those with three minutes.
        minutes: Length.
        gaps: Bounds in seconds of the uniform draw of a gap; below 0 is overlap.
        backchannels: Share of turns during which another one says something of less than a second.
        noise_db: Level of white noise below the speech, None for none.
        crosstalk_db: Level of each speaker on the other channels below that on their own, None for none.
        echo: Reverberation time of the leak in seconds; 0 is a leak without a room.
    """
    draw = random.Random(seed)
    clips = _clips(corpus)
    people = draw.sample(sorted(clips), speakers)
    made, parts, position, last = Conversation(), [], 0.5, ""
    while position < 60 * minutes:
        speaker = draw.choice([name for name in people if name != last] or people)
        clip, turn = _drawn(corpus, draw, clips[speaker], 1.0, 8.0)
        start = max(0.2, position + draw.uniform(*gaps) if made.turns else position)
        end = start + len(clip) / RATE
        parts.append((people.index(speaker), start, clip))
        made.turns.append(Said(speaker, start, end, turn.text, people.index(speaker)))
        if draw.random() < backchannels and end - start > 3.5:
            other = draw.choice([name for name in people if name != speaker])
            short, said = _drawn(corpus, draw, clips[other], 0.2, 1.0)
            at = start + draw.uniform(1.1, end - start - 1.1 - len(short) / RATE)
            parts.append((people.index(other), at, short))
            made.turns.append(
                Said(other, at, at + len(short) / RATE, said.text, people.index(other), backchannel=True)
            )
        position, last = end, speaker
    made.waveform = _mixed(parts, speakers, noise_db, seed)
    if crosstalk_db is not None:
        made.waveform = _leaking(made.waveform, crosstalk_db, echo, seed)
    return made


def write(conversation: Conversation, path: Path, *, rate: int, mono: bool) -> None:
    """Writes a conversation as a WAV file of one channel, or of one a speaker."""
    waveform = conversation.waveform.sum(0, keepdim=True) if mono else conversation.waveform
    waveform = waveform / max(1.0, float(waveform.abs().max()) / 0.98)
    if rate != RATE:
        waveform = torch.stack([resample(channel, RATE, rate) for channel in waveform])
    write_audio(path, waveform, rate)


def read_wave(path: Path, channel: int = 0) -> torch.Tensor:
    """Reads one channel at RATE."""
    return read_audio(path, sample_rate=RATE, channel=channel)


def _clips(corpus: Corpus) -> dict[str, list[Turn]]:
    found: dict[str, list[Turn]] = {}
    for turn in corpus.turns():
        found.setdefault(turn.speaker, []).append(turn)
    return {name: turns for name, turns in found.items() if sum(t.duration for t in turns) > 180}


def _drawn(
    corpus: Corpus, draw: random.Random, turns: list[Turn], shortest: float, longest: float
) -> tuple[np.ndarray, Turn]:
    """Draws a clip whose speech has a length within the bounds, without the silence around it."""
    for _ in range(300):
        turn = draw.choice(turns)
        if turn.duration < shortest or turn.duration > longest + 1.5:
            continue
        clip = _trimmed(read_turn(corpus, turn, RATE)[0].numpy())
        if shortest <= len(clip) / RATE <= longest:
            return 0.5 * clip / np.abs(clip).max(), turn
    raise ValueError(f"{turns[0].speaker} has no clip of {shortest} to {longest} s")


def _trimmed(clip: np.ndarray) -> np.ndarray:
    hop = round(FRAME * RATE)
    frames = clip[: len(clip) // hop * hop].reshape(-1, hop)
    level = 10 * np.log10((frames**2).mean(1) + 1e-10)
    loud = np.flatnonzero(level > level.max() + FLOOR_DB)
    return clip[loud[0] * hop : (loud[-1] + 1) * hop]


def _mixed(parts: list, channels: int, noise_db: float | None, seed: int) -> torch.Tensor:
    length = round((max(start + len(clip) / RATE for _, start, clip in parts) + 0.5) * RATE)
    waveform = np.zeros((channels, length), np.float32)
    for channel, start, clip in parts:
        first = round(start * RATE)
        waveform[channel, first : first + len(clip)] += clip
    if noise_db is not None:
        speech = np.sqrt(np.mean(np.concatenate([clip for *_, clip in parts]) ** 2))
        noise = np.random.default_rng(seed).standard_normal(waveform.shape)
        waveform += (speech * 10 ** (-noise_db / 20) * noise).astype(np.float32)
    return torch.from_numpy(waveform)


def _leaking(waveform: torch.Tensor, crosstalk_db: float, echo: float, seed: int) -> torch.Tensor:
    """Adds every channel to every other one: 3 ms later, through a room of its own where there is an echo."""
    generator = np.random.default_rng(seed)
    found = waveform.numpy().copy()
    delay = round(0.003 * RATE)
    for target in range(len(found)):
        for source in range(len(found)):
            room = np.zeros(delay + max(1, round(echo * RATE)))
            decay = 10 ** (-3 * np.arange(len(room) - delay) / max(1, len(room) - delay))
            room[delay:] = generator.standard_normal(len(decay)) * decay if echo else 1.0
            room *= 10 ** (-crosstalk_db / 20) / np.sqrt((room**2).sum())
            if source != target:
                leak = scipy.signal.fftconvolve(waveform[source].numpy(), room)[: found.shape[1]]
                found[target] += leak.astype(np.float32)
    return torch.from_numpy(found)
