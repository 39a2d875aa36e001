"""Clips as code vectors, and how linear probes on them are trained.

A probe reads, of each frame, the sum of the code vectors of the semantic codebooks, that of the acoustic
ones, or
both side by side. It is linear, so that what it finds is laid out in the vectors and not computed by the
probe
(Alain and Bengio 2016), and it is tested on clips that it was not trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn
from csm.evaluation.core.clips import Clip
from csm.system.log import progress
from csm.system.threads import one_thread
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.quantizer import SplitQuantizer

STREAMS = ("semantic", "acoustic", "all")
ENCODE_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """How the probes are trained and tested.

    Attributes:
        train_clips: Most clips of the train split, drawn evenly over speakers: one speaker may have four
            tenths of
            a corpus.
        max_seconds: Longest clips in seconds; longer ones are left out everywhere.
        tested_texts: Most test clips for the letter probe.
        fewest_clips: Fewest training clips of a speaker who is a class of the speaker probe.
        tested_per_speaker: Most clips of a speaker that the speaker probe is tested on.
        window: Number of frames whose vectors the letter probe's layer reads, odd, the frame's own in the
            middle.
        steps, batch, learning_rate: Adam of the letter probe; its rate falls linearly to 0.
        ridge: L2 penalty of the speaker probe, on standardised features and the mean loss of a clip.
        repeats: Repeats of the bootstrap. seed: Seed of every draw.
    """

    train_clips: int = 1600
    max_seconds: float = 4.0
    tested_texts: int = 500
    fewest_clips: int = 20
    tested_per_speaker: int = 30
    window: int = 3
    steps: int = 300
    batch: int = 64
    learning_rate: float = 0.001
    ridge: float = 0.01
    repeats: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.window < 1 or self.window % 2 == 0:
            raise ValueError(f"window={self.window}: expected an odd number of frames, 1 or more")
        for name, value in vars(self).items():
            if name not in ("ridge", "seed") and not value > 0:
                raise ValueError(f"{name}={value}: expected above 0")
        if self.ridge < 0:
            raise ValueError(f"ridge={self.ridge}: expected 0 or above")


class CodedClip(NamedTuple):
    """A clip as the probes read it.

    Attributes:
        turn: The turn with speaker and text.
        vectors: Code vectors by stream, fp32 [T, C]: "semantic", "acoustic", "all" (2 C wide).
    """

    turn: Turn
    vectors: dict[str, Tensor]


def code_vectors(quantizer: SplitQuantizer, codes: Int[Tensor, "K T"]) -> dict[str, Float[Tensor, "T C"]]:
    """Sums the code vectors of each frame, by stream."""
    rows, first = codes.T, quantizer.semantic_codebooks
    semantic = quantizer.semantic.lookup(rows[:, :first])
    acoustic = quantizer.acoustic.lookup(rows[:, first:])
    both = torch.cat([semantic, acoustic], dim=1)
    return dict(zip(STREAMS, (part.detach().cpu() for part in (semantic, acoustic, both)), strict=True))


@one_thread()
@torch.no_grad()
def encode_clips(tokenizer: ConversationalRVQ, corpus: Corpus, turns: Sequence[Turn]) -> list[CodedClip]:
    """Encodes every turn and returns its code vectors, in the order of `turns`."""
    config, device = tokenizer.config, next(tokenizer.parameters()).device
    # Neighbours in length share a batch: little padding, and a causal encoder's codes do not depend on it.
    ordered = sorted(turns, key=lambda turn: (turn.duration, turn.id))
    found: dict[str, CodedClip] = {}
    with progress("code vectors", len(ordered), unit="clip") as bar:
        for start in range(0, len(ordered), ENCODE_BATCH):
            group = ordered[start : start + ENCODE_BATCH]
            waveforms = [read_turn(corpus, turn, config.sample_rate)[0] for turn in group]
            lengths = torch.tensor([len(waveform) for waveform in waveforms])
            audio = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True).unsqueeze(1)
            codes, _ = tokenizer.encode(audio.to(device), lengths)
            for row, turn in enumerate(group):
                frames = -(-int(lengths[row]) // config.samples_per_frame)
                found[turn.id] = CodedClip(turn, code_vectors(tokenizer.quantizer, codes[row, :, :frames]))
            bar.update(len(group))
    return [found[turn.id] for turn in turns]


def clip_of(turn: Turn) -> Clip:
    """Returns the clip of a turn, without its audio, for a score."""
    return Clip(id=turn.id, conversation=turn.conversation, speaker=turn.speaker, text=turn.text)


def scale_of(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Computes mean and standard deviation of each column; 1 for a column that does not vary."""
    deviation = rows.std(dim=0, correction=0)
    return rows.mean(dim=0), torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))
