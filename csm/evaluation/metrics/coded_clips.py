"""Clips as codes, and the vectors that probes read of them.

A probe reads the code vectors of some codebooks of a frame: the sum over the semantic ones, that over the
acoustic ones, or both side by side. It is tested on clips that it was not trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import encoder_batches, read_turn
from csm.evaluation.core.clips import Clip
from csm.system.log import progress
from csm.system.threads import one_thread
from csm.tokenizer.codebook import CodebookStack
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.semantic.semantic_encoder import SemanticEncoder
from csm.tokenizer.semantic.semantic_tokenizer import SemanticTokenizer

#: Semantic codebooks of the shorter prefixes that are probed.
PREFIXES = (1, 4)
#: Name of the unquantized features beside the names of codebooks.
UNQUANTIZED = "recogniser's encoder, whole clip, unquantized"


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """How the probes are trained and tested.

    Attributes:
        train_clips: Most clips of the train split, drawn evenly over speakers: one speaker may have four
            tenths of a corpus.
        max_seconds: Longest clips in seconds; longer ones are left out everywhere.
        tested_clips: Most test clips for phones and words.
        fewest_clips: Fewest training clips of a speaker who is a class of the speaker probe.
        tested_per_speaker: Most clips of a speaker that the speaker probe is tested on.
        phone_epochs: Passes of the phone probe.
        reader_clips: Most clips that the text reader is trained on. reader_epochs: Its passes.
        ridge: L2 penalty of the speaker probe, on standardised features and the mean loss of a clip.
        repeats: Repeats of the bootstrap. seed: Seed of every draw.
    """

    train_clips: int = 1600
    max_seconds: float = 8.0
    tested_clips: int = 500
    fewest_clips: int = 20
    tested_per_speaker: int = 30
    phone_epochs: int = 6
    reader_clips: int = 20_000
    reader_epochs: int = 24
    ridge: float = 0.01
    repeats: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name not in ("ridge", "seed") and not value > 0:
                raise ValueError(f"{name} is {value}: expected above 0")
        if self.ridge < 0:
            raise ValueError(f"ridge is {self.ridge}: expected 0 or above")


class CodedClip(NamedTuple):
    """A clip as the probes read it.

    Attributes:
        turn: The turn with speaker and text.
        codes: Its codes, int64 [K, T].
        features: Unquantized features of each frame, float16 [T, D]; None where they are not measured.
    """

    turn: Turn
    codes: Int[Tensor, "K T"]
    features: Float[Tensor, "T D"] | None = None


class CodeVectors:
    """The vectors of a tokenizer's codes by stream.

    Args:
        semantic: The semantic codebooks.
        acoustic: The acoustic codebooks; None for a tokenizer that has none.

    Attributes:
        streams: Name -> first and last codebook, from the shortest prefix of the semantic codebooks on.
    """

    def __init__(self, semantic: CodebookStack, acoustic: CodebookStack | None) -> None:
        self.semantic, self.acoustic = semantic, acoustic
        first = semantic.num_codebooks
        parts = [(0, count - 1) for count in (*PREFIXES, first) if count <= first]
        if acoustic is not None and acoustic.num_codebooks:
            last = first + acoustic.num_codebooks - 1
            parts += [(first, last), (0, last)]
        self.streams = {named(low, high): (low, high) for low, high in parts}

    @classmethod
    def of(cls, tokenizer: ConversationalRVQ | SemanticTokenizer) -> CodeVectors:
        """Returns the vectors of a tokenizer."""
        if isinstance(tokenizer, SemanticTokenizer):
            return cls(tokenizer.stack, None)
        return cls(tokenizer.quantizer.semantic, tokenizer.quantizer.acoustic)

    def rows(self, clip: CodedClip, stream: str) -> Float[Tensor, "T C"]:
        """Returns what a probe reads of each frame of a clip, float32 on the CPU."""
        if stream == UNQUANTIZED:
            assert clip.features is not None, f"clip {clip.turn.id} has no unquantized features"
            return clip.features.float()
        (low, high), rows, first = self.streams[stream], clip.codes.T, self.semantic.num_codebooks
        parts = [self.semantic.lookup(rows[:, low : min(first, high + 1)])] if low < first else []
        if high >= first and self.acoustic is not None:
            parts.append(self.acoustic.lookup(rows[:, first : high + 1]))
        return torch.cat(parts, dim=1).detach()


def named(low: int, high: int) -> str:
    """Returns the name of a range of codebooks."""
    return f"{low}-{high}" if low < high else str(low)


@one_thread()
@torch.no_grad()
def encode_clips(
    tokenizer: ConversationalRVQ | SemanticTokenizer,
    corpus: Corpus,
    turns: Sequence[Turn],
    unquantized: SemanticEncoder | None = None,
) -> list[CodedClip]:
    """Encodes every turn, in the order of `turns`.

    Args:
        tokenizer: Tokenizer in eval mode.
        corpus: Corpus of the turns.
        turns: Turns.
        unquantized: Encoder whose features are kept beside the codes.
    """
    config = tokenizer.config
    device = next(tokenizer.parameters()).device
    found: dict[str, CodedClip] = {}
    with progress("codes", len(turns), unit="clip") as bar:
        for group in encoder_batches(turns):  # a causal encoder's codes do not depend on them
            waveforms = [read_turn(corpus, turn, config.sample_rate)[0] for turn in group]
            audio = pad_sequence(waveforms, batch_first=True).unsqueeze(1).to(device)
            codes = tokenizer.encode(audio)
            codes = codes if isinstance(codes, Tensor) else codes[0]
            for row, (turn, waveform) in enumerate(zip(group, waveforms, strict=True)):
                frames = -(-len(waveform) // config.samples_per_frame)
                features = None
                if unquantized is not None:
                    features = _features(unquantized, waveform.to(device), frames, config.samples_per_frame)
                found[turn.id] = CodedClip(turn, codes[row, :, :frames].cpu(), features)
            bar.update(len(group))
    return [found[turn.id] for turn in turns]


def _features(encoder: SemanticEncoder, waveform: Tensor, frames: int, size: int) -> Float[Tensor, "T D"]:
    """Returns a whole clip's features, the steps of a frame side by side."""
    whole = torch.nn.functional.pad(waveform, (0, frames * size - len(waveform)))
    steps = encoder.encoder(encoder.log_mel(whole.unsqueeze(0)))[0]
    return steps.unflatten(0, (frames, -1)).flatten(1).half().cpu()


def clip_of(turn: Turn) -> Clip:
    """Returns the clip of a turn, without its audio, for a score."""
    return Clip(id=turn.id, conversation=turn.conversation, speaker=turn.speaker, text=turn.text)


def scale_of(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Computes mean and standard deviation of each column; 1 for a column that does not vary."""
    deviation = rows.std(dim=0, correction=0)
    return rows.mean(dim=0), torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))
