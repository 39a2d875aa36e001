"""The clips that probes are trained and tested on, as codes, drawn once for all tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from csm.data.manifest import Corpus, Turn
from csm.data.phone_labels import PhoneLabels, align_phones
from csm.evaluation.core.draws import held_out_speakers
from csm.evaluation.metrics.coded_clips import (
    UNQUANTIZED,
    CodedClip,
    CodeVectors,
    ProbeConfig,
    encode_clips,
)
from csm.evaluation.metrics.twins import twin_turns
from csm.spelling import spell
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.semantic.semantic_encoder import SemanticEncoder
from csm.tokenizer.semantic.semantic_heads import SemanticHeads
from csm.tokenizer.semantic.semantic_tokenizer import SemanticTokenizer
from csm.training.recogniser import Recogniser

#: Frames of Whisper's window of 30 s.
LONGEST = 375

Tokenizer = ConversationalRVQ | SemanticTokenizer


class Coded:
    """The clips of a corpus as codes, drawn once for all tables.

    Args:
        tokenizer: Tokenizer in eval mode.
        corpus: The corpus.
        config: Sizes.
        recogniser, heads: See `what_the_codes_carry`.

    Attributes:
        vectors: What probes read.
        streams: Names of what is probed, the unquantized features last where they are measured.
        read, train: Turns that text readers and that probes are trained on, evenly over speakers at first.
        tested, voices: Turns that phones and words, and that speakers are tested on.
        labels: Phones. ends: Ends of the symbols of each turn.

    Raises:
        ValueError: There is no clip to test on.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        corpus: Corpus,
        config: ProbeConfig,
        recogniser: Path | None = None,
        heads: SemanticHeads | None = None,
    ) -> None:
        self.config, self.tokenizer, self.corpus, self.heads = config, tokenizer, corpus, heads
        self.recogniser = None if recogniser is None else Recogniser(recogniser, torch.device("cpu"))
        self.vectors = CodeVectors.of(tokenizer)
        self.read, self.tested, self.voices = _draw(corpus, config)
        self.train = self.read[: config.train_clips]
        self.twins = twin_turns(corpus, config.tested_clips)
        turns = [*self.read, *self.tested, *self.voices, *(turn for pair in self.twins for turn in pair)]
        unquantized = None if self.recogniser is None else whole_clip_encoder(self.recogniser, tokenizer)
        coded = encode_clips(tokenizer, corpus, list({turn.id: turn for turn in turns}.values()), unquantized)
        self._clips = {clip.turn.id: clip for clip in coded}
        self.streams = [*self.vectors.streams, *([] if unquantized is None else [UNQUANTIZED])]
        codec, self.ends = align_phones(corpus, tokenizer.config.sample_rate)
        self.labels = PhoneLabels(codec, ((turn.id, turn.text) for turn in corpus.turns()), self.ends)

    def clips(self, turns: Sequence[Turn]) -> list[CodedClip]:
        """Returns the clips of turns."""
        return [self._clips[turn.id] for turn in turns]

    def rows(self, stream: str) -> Callable[[CodedClip], Float[Tensor, "T C"]]:
        """Returns the function from a clip to what a probe reads of it."""
        return partial(self.vectors.rows, stream=stream)

    def steps(self, stream: str) -> Callable[[CodedClip], Float[Tensor, "N D"]] | None:
        """Returns the function from a clip to features that the recogniser's decoder reads, 50 a second.

        None where there are none: the tokenizer has no heads, or its features are of another width. The
        unquantized features are none either: of a clip without silence behind it Whisper repeats the text.
        """
        rows, heads, recogniser = self.rows(stream), self.heads, self.recogniser
        if recogniser is None or heads is None or stream == UNQUANTIZED:
            return None
        if heads.norm.normalized_shape[0] != recogniser.width:
            return None
        return lambda clip: heads.steps(rows(clip).unsqueeze(0))[0]


def whole_clip_encoder(recogniser: Recogniser, tokenizer: Tokenizer) -> SemanticEncoder:
    """Returns a recogniser's encoder whose attention sees the whole clip, up to 30 s."""
    device = next(tokenizer.parameters()).device
    config = replace(
        tokenizer.config,
        semantic_layers=4,
        semantic_width=384,
        semantic_heads=6,
        semantic_block_frames=LONGEST,
        semantic_past_frames=LONGEST,
    )
    encoder = SemanticEncoder(config).to(device)
    recogniser.start(encoder)
    return encoder.eval()


def _draw(corpus: Corpus, config: ProbeConfig) -> tuple[list[Turn], list[Turn], list[Turn]]:
    """Draws turns to train on, to test phones and words on and to test speakers on."""
    generator = np.random.default_rng([config.seed, 0])
    held_out = set(held_out_speakers(corpus))

    def shuffled(split: str | None) -> list[Turn]:
        turns = [turn for turn in corpus.turns(split) if turn.duration <= config.max_seconds]
        return [turns[i] for i in generator.permutation(len(turns))]

    def evenly(turns: Sequence[Turn]) -> list[tuple[int, Turn]]:
        """Every turn with its number among its speaker's, ordered by it."""
        counts: Counter[str] = Counter()
        numbered = []
        for turn in turns:
            numbered.append((counts[turn.speaker], turn))
            counts[turn.speaker] += 1
        return sorted(numbered, key=lambda pair: pair[0])

    pools = {split: shuffled(split) for split in ("train", "validation", "test")}
    train = [turn for _, turn in evenly(pools["train"]) if turn.speaker not in held_out][
        : config.reader_clips
    ]
    # Lines come back in other conversations: a tokenizer trained on their texts may have memorised them.
    familiar = {tuple(spell(turn.text)) for turn in corpus.turns("train") if turn.speaker not in held_out}
    strangers = [turn for turns in pools.values() for turn in turns if turn.speaker in held_out]
    candidates = strangers if held_out else pools["test"]
    tested = [turn for turn in candidates if spell(turn.text) and tuple(spell(turn.text)) not in familiar]
    # Figures are claimed of real speech: synthetic clips are tested only where there are no others.
    tested = [turn for turn in tested if not turn.synthetic] or tested
    counts = Counter(turn.speaker for turn in train[: config.train_clips])
    known = {name for name, count in counts.items() if count >= config.fewest_clips}
    numbered = evenly([t for t in (*pools["validation"], *pools["test"]) if t.speaker in known])
    voices = [turn for number, turn in numbered if number < config.tested_per_speaker]
    if not tested:
        raise ValueError(
            f"{corpus.root} has no clip of up to {config.max_seconds:g} s with a new line to test on: "
            f"expected one at least, of a held-out speaker or of the test split"
        )
    return train, tested[: config.tested_clips], voices
