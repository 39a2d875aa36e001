"""Single utterances for the tokenizer's training: whole clips with their text, in a fixed random order."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csm.data.augmentation import augmented
from csm.data.lazy_sequence import Chosen
from csm.data.manifest import Corpus, Turn
from csm.data.turn_sounds import TurnSounds
from csm.spelling import spell

# Batches are padded to a multiple of this many frames.
FRAME_STEP = 10
# Most turns whose order is held at a time.
LONGEST_SPAN = 4_000_000
# Turns whose prosody is measured before the first step, of a corpus that does not fit into memory.
MEASURED = 1000


@dataclass(frozen=True, kw_only=True)
class UtteranceConfig:
    """How utterances are drawn.

    Attributes:
        items: Number of utterances of a micro-batch.
        max_seconds: Longest clip in seconds; longer ones are cut to a random stretch (and then have no text).
        slice_frames: Number of frames of every utterance that are decoded and compared; the encoder reads the
            whole utterance.
        gain_db: Range of the random gain in dB, plus and minus; no gain where each turn is encoded once
            (`CodedUtterances`).
        exclude_speakers: Names of speakers that are excluded from training.
        speeds: Factors of speed and pitch, one of which is drawn for each training clip.
        narrow_share: Share of the training clips that are limited to the bandwidth of a telephone.
        synthetic_times: Number of draws of a synthetic turn for each draw of any other turn: a corpus may
            hold few hours of wide-band speech beside many of telephone speech.
    """

    items: int = 16
    max_seconds: float = 4.0
    slice_frames: int = 18
    gain_db: float = 6.0
    exclude_speakers: tuple[str, ...] = ()
    speeds: tuple[float, ...] = (1.0,)
    narrow_share: float = 0.0
    synthetic_times: int = 1

    def __post_init__(self) -> None:
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise ValueError(f"speeds is {self.speeds}: expected one factor from 0.5 to 2 or more")
        if not 0 <= self.narrow_share <= 1:
            raise ValueError(f"narrow_share is {self.narrow_share}: expected a share from 0 to 1")
        if self.synthetic_times < 1:
            raise ValueError(f"synthetic_times is {self.synthetic_times}: expected 1 or more")
        if self.items < 1 or self.slice_frames < 2 or self.max_seconds <= 0:
            raise ValueError(
                f"items={self.items}, slice_frames={self.slice_frames}, max_seconds={self.max_seconds}: "
                f"expected at least 1, at least 2 and above 0"
            )


@dataclass
class UtteranceBatch:
    """A micro-batch of utterances.

    Attributes:
        ids, texts: Ids and texts of the turns.
        places: Places of the turns in `UtteranceDataset.turns`.
        audio: float32 [B, 1, S], padded with zeros to whole frames.
        lengths: int64 [B], samples before padding.
        first_sample: int64 [B], where a stretch that was cut out begins in its turn; 0 for a whole turn.
        speed: float32 [B], factor of speed of each clip.
        speaker: int64 [B], index into `UtteranceDataset.speakers`.
        statistics: float32 [B, 6], prosody statistics, standardised over the dataset.
        text: int64 [B, L], CTC symbols, 0 beyond text_lengths (0 long where a stretch was cut out).
        text_lengths: int64 [B].
        slice_start: int64 [B], first decoded frame.
        levels: float32 [B, 3] uniform draws, for quantizer dropout, its depth and the quantizer's bypass.
        condition: float32 [B] uniform draws, for condition dropout.
    """

    ids: list[str]
    texts: list[str]
    places: list[int]
    audio: Tensor
    lengths: Tensor
    first_sample: Tensor
    speed: Tensor
    speaker: Tensor
    statistics: Tensor
    text: Tensor
    text_lengths: Tensor
    slice_start: Tensor
    levels: Tensor
    condition: Tensor

    def to(self, device: torch.device) -> UtteranceBatch:
        """Returns the same batch on a device."""
        moved = {n: v.to(device, non_blocking=True) for n, v in vars(self).items() if isinstance(v, Tensor)}
        return UtteranceBatch(ids=self.ids, texts=self.texts, places=self.places, **moved)


class UtteranceDataset:
    """All utterances of some splits; their files are read as they come, or once where all fit into memory.

    `batch(step, micro_batch)` is a pure function: every epoch is one permutation, cut into pools of similar
    length so that little is padded. A turn is read from the corpus with its sound; of those that are not held
    some 30 bytes are in memory.

    Args:
        corpus: The corpus.
        split: Its split.
        sample_rate, samples_per_frame: Those of the tokenizer, in Hz and samples.
        config: How to draw.
        seed: Seed of the order and of every random draw.
        micro-batches: Micro-batches per step.

    Attributes:
        turns: The usable turns, read where they are asked for.
        lengths: int64 [N], samples of each.

    Raises:
        ValueError: Fewer usable turns than one micro-batch takes, an utterance limit below one frame, or a
            file that cannot be read.
    """

    def __init__(
        self,
        corpus: Corpus,
        split: str,
        *,
        sample_rate: int,
        samples_per_frame: int,
        config: UtteranceConfig,
        seed: int,
        micro_batches: int,
    ) -> None:
        self.config, self.seed, self.micro_batches = config, seed, micro_batches
        self.sample_rate, self.samples_per_frame = sample_rate, samples_per_frame
        turns = corpus.turns(split)
        usable, times, lengths = array("i"), array("i"), array("q")
        for number, turn in enumerate(turns):
            if turn.speaker not in config.exclude_speakers:
                usable.append(number)
                times.append(config.synthetic_times if turn.synthetic else 1)
                lengths.append(round(turn.duration * sample_rate))
        self.turns: Sequence[Turn] = Chosen(turns, np.array(usable))
        if len(self.turns) < config.items:
            raise ValueError(
                f"{corpus.root} has {len(self.turns)} usable turns in split {split!r}: expected at least "
                f"items={config.items}; add recordings or lower `utterances.items`"
            )
        if int(config.max_seconds * sample_rate) < samples_per_frame:
            raise ValueError(
                f"max_seconds={config.max_seconds}: expected at least one frame, "
                f"{samples_per_frame / sample_rate} s at this tokenizer"
            )
        self._drawn = np.repeat(np.arange(len(self.turns), dtype=np.int32), times)
        self.speakers = corpus.speakers()
        self._numbers = {name: number for number, name in enumerate(self.speakers)}
        self.lengths = np.array(lengths)
        self.sounds = TurnSounds(corpus, self.turns, self.lengths, sample_rate)
        measured = range(len(self.turns))
        if self.sounds.fit:
            self.lengths = np.array([len(self.sounds[place].samples) for place in measured])
        else:
            order = np.random.default_rng([seed, 4]).permutation(len(self.turns))
            measured = order[:MEASURED].tolist()
        raw = torch.stack([self.sounds[place].statistics for place in measured])
        self.statistics_mean, self.statistics_std = raw.mean(dim=0), raw.std(dim=0).clamp_min(1e-3)
        self._span = lru_cache(maxsize=2)(self._batches_of)

    def __len__(self) -> int:
        return len(self.turns)

    def batch(self, step: int, micro_batch: int) -> UtteranceBatch:
        """Returns the utterances of one micro-batch of one step.

        Args:
            step: The optimizer step.
            micro-batch: From 0 to `micro_batches` - 1.
        """
        index = step * self.micro_batches + micro_batch
        span, place = divmod(index, len(self._drawn) * self.epochs // self.config.items)
        rng, changes = (np.random.default_rng([self.seed, part, index]) for part in (1, 5))
        return self._collate(self._span(span)[place], rng, changes if self.augments else None)

    @property
    def augments(self) -> bool:
        """Whether the training's clips are changed."""
        return self.config.speeds != (1.0,) or self.config.narrow_share > 0

    def in_order(self, first: int, count: int) -> UtteranceBatch:
        """Returns utterances from a fixed random order, for validation: the same at every call.

        Args:
            first: Place in that order, from 0.
            count: How many; fewer come where the order ends.
        """
        order = np.random.default_rng([self.seed, 2]).permutation(len(self.turns))
        return self._collate(order[first : first + count], np.random.default_rng([self.seed, 3, first]))

    @property
    def epochs(self) -> int:
        """Epochs of a span: the fewest whose turns fill micro-batches without a rest."""
        epochs = self.config.items // math.gcd(len(self._drawn), self.config.items)
        # A span is held whole. Beyond, an epoch drops fewer than `items` turns, others each time.
        return 1 if epochs * len(self._drawn) > LONGEST_SPAN else epochs

    def _batches_of(self, span: int) -> NDArray[np.int32]:
        """Returns a span's micro-batches [B, items]: each epoch's in random order, its rest in the next."""
        rng = np.random.default_rng([self.seed, 0, span])
        batches: list[NDArray[np.int32]] = []
        rest = np.zeros(0, dtype=np.int32)
        for _ in range(self.epochs):
            order = np.concatenate([rest, rng.permutation(self._drawn)])
            usable = len(order) // self.config.items * self.config.items
            rest = order[usable:]
            epoch = self._similar(order[:usable])
            batches.append(epoch[rng.permutation(len(epoch))])
        return np.concatenate(batches)

    def _similar(self, order: NDArray[np.int32]) -> NDArray[np.int32]:
        """Cuts an order into micro-batches of turns of similar length, [B, items]."""
        items, found = self.config.items, np.empty_like(order)
        for start in range(0, len(order), items * 16):
            chosen = order[start : start + items * 16]
            found[start : start + items * 16] = chosen[np.argsort(self.lengths[chosen], kind="stable")]
        return found.reshape(-1, items)

    def statistics(self, chosen: Sequence[int] | np.ndarray) -> Tensor:
        """Returns the prosody statistics of turns, float32 [B, 6], standardised over the dataset."""
        raw = torch.stack([self.sounds[int(place)].statistics for place in chosen])
        return (raw - self.statistics_mean) / self.statistics_std

    def _collate(
        self,
        chosen: Sequence[int] | np.ndarray,
        rng: np.random.Generator,
        changes: np.random.Generator | None = None,
    ) -> UtteranceBatch:
        """Makes a batch; clips are changed only where `changes`, which draws how, is given."""
        config, frame = self.config, self.samples_per_frame
        longest = int(config.max_seconds * self.sample_rate) // frame * frame
        clips, texts, starts, firsts, speeds = [], [], [], [], []
        places = [int(place) for place in chosen]
        turns = []
        for place in places:
            turn, samples, _ = self.sounds[place]
            turns.append(turn)
            clip, text, begin = samples.float() / 32767, spell(turn.text), 0
            speed = 1.0
            if changes is not None:
                clip, speed = augmented(
                    clip, self.sample_rate, changes, speeds=config.speeds, narrow_share=config.narrow_share
                )
            speeds.append(speed)
            if len(clip) > longest:
                begin = int(rng.integers(0, len(clip) - longest + 1))
                clip, text = clip[begin : begin + longest], []
            clips.append(clip * float(10 ** (rng.uniform(-config.gain_db, config.gain_db) / 20)))
            texts.append(text)
            firsts.append(begin)
            frames = -(-len(clip) // frame)
            starts.append(int(rng.integers(0, max(1, frames - config.slice_frames + 1))))
        lengths = torch.tensor([len(c) for c in clips])
        # A few sizes only: cuDNN plans every new shape, for tens of milliseconds a layer.
        frames = max(int(-(-lengths.max() // frame)), config.slice_frames)
        size = -(-frames // FRAME_STEP) * FRAME_STEP * frame
        audio = torch.zeros(len(clips), 1, size)
        symbols = torch.zeros(len(clips), max(1, max(map(len, texts))), dtype=torch.int64)
        for row, (clip, text) in enumerate(zip(clips, texts, strict=True)):
            audio[row, 0, : len(clip)] = clip.clamp(-1, 1)
            symbols[row, : len(text)] = torch.tensor(text, dtype=torch.int64)
        return UtteranceBatch(
            ids=[turn.id for turn in turns],
            texts=[turn.text for turn in turns],
            places=places,
            audio=audio,
            lengths=lengths,
            first_sample=torch.tensor(firsts),
            speed=torch.tensor(speeds, dtype=torch.float32),
            speaker=torch.tensor([self._numbers[turn.speaker] for turn in turns]),
            statistics=self.statistics(places),
            text=symbols,
            text_lengths=torch.tensor([len(t) for t in texts]),
            slice_start=torch.tensor(starts),
            levels=torch.from_numpy(rng.random((len(clips), 3)).astype(np.float32)),
            condition=torch.from_numpy(rng.random(len(clips)).astype(np.float32)),
        )
