"""Forced alignment: the end time of every symbol of a text, learned from recordings and texts alone.

A symbol is a byte or a phone, whichever the text codec encodes turns in. A small network predicts the mean
cepstra of a symbol from the symbol and its neighbours. Training begins with uniform durations (flat start);
each later step computes the best monotonic path of a batch through its symbols and fits the means to it. This
is Viterbi training of hidden Markov models with one Gaussian per symbol (Young et al., The HTK Book, 2006),
with a network in place of a tree for tying contexts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn
from csm.system.log import progress_of
from csm.text import ByteCodec

# Steps of 13 ms, the shortest duration of a symbol.
STEPS_PER_SECOND = 75
MELS, CEPSTRA, WIDTH = 40, 16, 192
BATCH, LEARNING_RATE = 24, 3e-3
# Share of the training on uniform paths; share with a penalty for the distance from a uniform path;
# the penalty per squared symbol of distance.
UNIFORM_SHARE, PENALISED_SHARE, PENALTY = 0.08, 0.5, 0.05
IMPOSSIBLE = np.float32(-1e9)
# Turns that the aligner is trained on (35 MB per hour of speech), its training steps, turns aligned at once.
MOST_TURNS, FEWEST_STEPS, MOST_STEPS, PART = 10_000, 60, 800, 4096


class SpokenText(NamedTuple):
    """The features of a recording and the symbols of its text.

    Attributes:
        id: Id of the turn.
        cepstra: Features float32 [T, 32] of `cepstra`.
        symbols: Text ids int64 [L] of `symbols`.
    """

    id: str
    cepstra: Tensor
    symbols: Tensor


def symbols(codec: ByteCodec, text: str) -> Int[Tensor, " L"]:
    """Returns the ids of the codec's `encode_turn` without the first, capitals as lower case.

    The speaker id, always that of speaker 0, stands for the audio before the text, the end id for that after
    it.
    """
    ids = torch.tensor(codec.encode_turn(text, 0)[1:])
    capital = (ids >= ord("A")) & (ids <= ord("Z"))
    return ids + capital * (ord("a") - ord("A"))


def cepstra(waveform: Float[Tensor, "1 S"], sample_rate: int) -> Float[Tensor, "T 32"]:
    """Computes mel cepstra and their slopes at every step of 13 ms, minus the mean over the recording."""
    hop = round(sample_rate / STEPS_PER_SECOND)
    steps = -(-waveform.shape[1] // hop)
    bands, cosines = _transforms(sample_rate, hop)
    # Windows are centred on the middle of each step.
    sound = F.pad(waveform, (0, steps * hop - waveform.shape[1] + hop))[:, hop // 2 :]
    sound = F.pad(sound, (0, max(0, 2 * hop + 1 - sound.shape[1])))  # reflection padding needs this length
    log_mel = bands(sound)[0].T[:steps].clamp_min(1e-5).log()
    static = (log_mel - log_mel.mean(dim=0)) @ cosines
    near = F.pad(static.T.unsqueeze(0), (2, 2), mode="replicate")[0].T
    slopes = near[4:] - near[:-4] + (near[3:-1] - near[1:-3]) / 2
    return torch.cat([static, slopes], dim=1)


@cache
def _transforms(sample_rate: int, hop: int) -> tuple[nn.Module, Tensor]:
    """Returns the mel filter bank and the cosine transform, which take longer to make than to apply."""
    bands = torchaudio.transforms.MelSpectrogram(
        sample_rate, n_fft=4 * hop, win_length=3 * hop, hop_length=hop, n_mels=MELS, power=1
    )
    return bands, torchaudio.functional.create_dct(CEPSTRA, MELS, "ortho")


class ForcedAligner(nn.Module):
    """Predicts the mean cepstra of symbols in context; learns one variance per cepstrum.

    Args:
        scale: Standard deviation [32] of each cepstrum, by which the cepstra are divided.
        num_symbols: Number of text ids.
    """

    scale: Tensor

    def __init__(self, scale: Float[Tensor, " 32"], num_symbols: int) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.embedding = nn.Embedding(num_symbols, WIDTH)
        self.neighbours = nn.Sequential(
            nn.Conv1d(WIDTH, WIDTH, 5, padding=2),
            nn.ReLU(),
            nn.Conv1d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
        )
        self.mean = nn.Linear(WIDTH, 2 * CEPSTRA)
        self.log_variance = nn.Parameter(torch.zeros(2 * CEPSTRA))

    def forward(self, symbols: Int[Tensor, "B L"], valid: Bool[Tensor, "B L"]) -> Float[Tensor, "B L 32"]:
        """Returns the scaled mean cepstra of every symbol; `valid` is False on padding."""
        embedded = self.embedding(symbols) * valid.unsqueeze(2)
        return self.mean(embedded + self.neighbours(embedded.transpose(1, 2)).transpose(1, 2))


class _Batch(NamedTuple):
    """Padded items.

    Attributes:
        cepstra: Scaled features float32 [B, T, 32].
        symbols: Text ids int64 [B, L].
        valid: Whether a symbol is no padding, bool [B, L].
        steps: Number of steps of each item, int64 [B].
        counts: Number of symbols of each item, int64 [B].
    """

    cepstra: Tensor
    symbols: Tensor
    valid: Tensor
    steps: Tensor
    counts: Tensor


def _batch(items: Sequence[SpokenText], scale: Tensor) -> _Batch:
    padded = pad_sequence([item.symbols for item in items], batch_first=True)
    counts = torch.tensor([len(item.symbols) for item in items])
    return _Batch(
        pad_sequence([item.cepstra / scale for item in items], batch_first=True),
        padded,
        torch.arange(padded.shape[1]) < counts.unsqueeze(1),
        torch.tensor([len(item.cepstra) for item in items]),
        counts,
    )


def uniform_paths(batch_steps: Tensor, counts: Tensor) -> Int[Tensor, "B T"]:
    """Returns the symbol index of every step if all symbols have the same duration."""
    steps = torch.arange(int(batch_steps.max()))
    return (steps * counts.unsqueeze(1) // batch_steps.unsqueeze(1)).minimum(counts.unsqueeze(1) - 1)


def best_paths(
    scores: Float[Tensor, "B T L"], steps: Int[Tensor, " B"], counts: Int[Tensor, " B"]
) -> Int[Tensor, "B T"]:
    """Returns the symbol index of every step on the most probable monotonic path (Viterbi 1967).

    A path starts at the first symbol, stays or advances by one symbol per step, and ends at the last one.

    Args:
        scores: Log probability of each step at each symbol.
        steps, counts: Numbers of steps and symbols of each item, at least as many steps as symbols. Steps of
            padding get the last symbol.
    """
    table = scores.numpy()
    items, longest, width = table.shape
    best = np.full((items, width), IMPOSSIBLE, np.float32)
    best[:, 0] = table[:, 0, 0]
    advanced = np.zeros((longest, items, width), bool)
    edge = np.full((items, 1), IMPOSSIBLE, np.float32)
    for t in range(1, longest):
        before = np.concatenate([edge, best[:, :-1]], axis=1)
        advanced[t] = before > best
        best = np.maximum(best, before) + table[:, t]
    paths = np.zeros((items, longest), np.int64)
    symbol, each = counts.numpy() - 1, np.arange(items)
    for t in range(longest - 1, -1, -1):
        paths[:, t] = symbol
        symbol = symbol - (advanced[t, each, symbol] & (t < steps.numpy()))
    return torch.from_numpy(paths)


@torch.enable_grad()
def train_aligner(
    recordings: Sequence[SpokenText], steps: int, num_symbols: int, seed: int = 0
) -> ForcedAligner:
    """Trains an aligner on the CPU; recordings with fewer steps than symbols are left out.

    Raises:
        ValueError: No recording is long enough for its text.
    """
    usable = [item for item in recordings if len(item.cepstra) >= len(item.symbols)]
    if not usable:
        raise ValueError(
            f"all of {len(recordings)} recordings are too short: expected 13 ms for each symbol of the text; "
            f"check that texts and recordings belong together"
        )
    scale = torch.cat([item.cepstra for item in usable]).std(dim=0, correction=0).clamp_min(1e-5)
    # Batches of similar length need little padding.
    usable.sort(key=lambda item: (len(item.cepstra), item.id))
    batches = [usable[first : first + BATCH] for first in range(0, len(usable), BATCH)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        aligner = ForcedAligner(scale, num_symbols)
        optimizer = torch.optim.AdamW(aligner.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
        for step in progress_of(range(steps), "align", steps, unit="step"):
            batch = _batch(batches[int(torch.randint(len(batches), ()))], scale)
            share = step / steps
            means = aligner(batch.symbols, batch.valid)
            if share < UNIFORM_SHARE:
                paths = uniform_paths(batch.steps, batch.counts)
            else:
                penalty = PENALTY * max(0.0, 1 - share / PENALISED_SHARE)
                paths = _paths(aligner, batch, means.detach(), penalty)
            expected = means.gather(1, paths.unsqueeze(2).expand(-1, -1, means.shape[2]))
            precision = (-aligner.log_variance).exp()
            cost = ((batch.cepstra - expected).square() * precision + aligner.log_variance).sum(dim=2)
            inside = torch.arange(cost.shape[1]) < batch.steps.unsqueeze(1)
            optimizer.zero_grad()
            cost[inside].mean().backward()
            nn.utils.clip_grad_norm_(aligner.parameters(), 5.0)
            optimizer.step()
            schedule.step()
    return aligner.eval()


@torch.no_grad()
def align(aligner: ForcedAligner, recordings: Sequence[SpokenText]) -> dict[str, Float[Tensor, " L"]]:
    """Aligns recordings; those with fewer steps than symbols get uniform durations.

    Returns:
        Id -> end time of every symbol in seconds, float32 [L]; the last one ends with the recording.
    """
    ends = {}
    ordered = sorted(recordings, key=lambda item: (len(item.cepstra), item.id))
    for first in range(0, len(ordered), BATCH):
        items = ordered[first : first + BATCH]
        batch = _batch(items, aligner.scale)
        paths = _paths(aligner, batch, aligner(batch.symbols, batch.valid), 0.0)
        for item, path in zip(items, paths, strict=True):
            steps, count = len(item.cepstra), len(item.symbols)
            if steps < count:
                durations = torch.full((count,), steps / count)
            else:
                durations = torch.bincount(path[:steps], minlength=count).float()
            ends[item.id] = durations.cumsum(0) / STEPS_PER_SECOND
    return ends


def align_corpus(
    corpus: Corpus, sample_rate: int, codec: ByteCodec
) -> Iterator[tuple[str, Float[Tensor, " L"]]]:
    """Trains an aligner on up to MOST_TURNS turns of a corpus and aligns all turns that have a text.

    Takes less than a minute for 6,500 turns (4.6 hours) on one CPU core. Holds the features of the turns that
    it trains on and PART turns; the numbers of all turns take 8 bytes each for a moment.

    Args:
        corpus: Corpus of any number of turns.
        sample_rate: Sample rate of the features in Hz.
        codec: Text codec, whose `encode_turn` gives the symbols.

    Yields:
        Turn id and end time of every symbol in seconds, float32 [L].
    """

    def spoken(turn: Turn) -> SpokenText:
        return SpokenText(
            turn.id, cepstra(read_turn(corpus, turn, sample_rate), sample_rate), symbols(codec, turn.text)
        )

    count = sum(1 for _ in _with_text(corpus))
    chosen = set(np.random.default_rng(0).permutation(count)[:MOST_TURNS].tolist())
    kept = {turn.id: spoken(turn) for index, turn in enumerate(_with_text(corpus)) if index in chosen}
    batches = -(-len(kept) // BATCH)
    steps = min(MOST_STEPS, max(FEWEST_STEPS, 10 * batches))
    aligner = train_aligner(list(kept.values()), steps, codec.vocab_size)
    turns = _with_text(corpus)
    while part := list(islice(turns, PART)):
        yield from align(aligner, [kept.get(turn.id) or spoken(turn) for turn in part]).items()


def _with_text(corpus: Corpus) -> Iterator[Turn]:
    return (turn for turn in corpus.turns() if turn.text.strip())


def _paths(aligner: ForcedAligner, batch: _Batch, means: Tensor, penalty: float) -> Tensor:
    """Returns `best_paths`, minus `penalty` per squared symbol of distance from a uniform path."""
    precision = (-aligner.log_variance.detach()).exp()
    scores = (batch.cepstra * precision) @ means.transpose(1, 2)
    scores = scores - (means.square() * precision).sum(dim=2).unsqueeze(1) / 2
    if penalty:
        counts = batch.counts.view(-1, 1, 1)
        uniform = torch.arange(scores.shape[1]).view(1, -1, 1) * counts / batch.steps.view(-1, 1, 1)
        scores = scores - penalty * (torch.arange(scores.shape[2]) + 0.5 - uniform).square()
    return best_paths(scores.masked_fill(~batch.valid.unsqueeze(1), IMPOSSIBLE), batch.steps, batch.counts)
