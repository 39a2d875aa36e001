"""When each letter of a text is said: an aligner that learns from recordings with their texts alone.

Where the text codec speaks phones, these are the letters.

A small network says from a letter and its neighbours what its cepstra are on average. From an even pace on
(flat start), each step of training finds the best monotonic path of a batch through its letters and moves the
means towards what lies on it: hidden Markov models with one Gaussian a letter, trained by Viterbi's path
(Young et al., The HTK Book, 2006), and the contexts tied by the network instead of a tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn
from csm.text import ByteCodec

# Steps of 13 ms: the shortest that a letter can last.
STEPS_PER_SECOND = 75
MELS, CEPSTRA, WIDTH = 40, 16, 192
BATCH, LEARNING_RATE = 24, 3e-3
# Shares of the training: at an even pace, and by paths that are drawn to it, per squared letter of distance.
EVEN_SHARE, DRAWN_SHARE, DRAW = 0.08, 0.5, 0.05
IMPOSSIBLE = np.float32(-1e9)
# Of a corpus: turns that the aligner learns from, 35 MB an hour; its steps; turns aligned at a time.
MOST_TURNS, FEWEST_STEPS, MOST_STEPS, PART = 10_000, 60, 800, 4096


class SpokenText(NamedTuple):
    """A recording and what is said in it.

    Attributes:
        id: Of the turn.
        cepstra: float32 [T, 32], of `cepstra`.
        symbols: int64 [L], of `symbols`.
    """

    id: str
    cepstra: Tensor
    symbols: Tensor


def symbols(codec: ByteCodec, text: str) -> Int[Tensor, " L"]:
    """Ids of the codec's `encode_turn` after the first, capitals as small letters.

    One speaker's id, whoever speaks, stands for what precedes the first letter, the end's for what follows.
    """
    ids = torch.tensor(codec.encode_turn(text, 0)[1:])
    capital = (ids >= ord("A")) & (ids <= ord("Z"))
    return ids + capital * (ord("a") - ord("A"))


def cepstra(waveform: Float[Tensor, "1 S"], sample_rate: int) -> Float[Tensor, "T 32"]:
    """Mel cepstra and their slopes at every step of 13 ms, without the mean over the recording."""
    hop = round(sample_rate / STEPS_PER_SECOND)
    steps = -(-waveform.shape[1] // hop)
    bands = torchaudio.transforms.MelSpectrogram(
        sample_rate, n_fft=4 * hop, win_length=3 * hop, hop_length=hop, n_mels=MELS, power=1
    )
    # Windows are centred on the steps' middles.
    sound = F.pad(waveform, (0, steps * hop - waveform.shape[1] + hop))[:, hop // 2 :]
    sound = F.pad(sound, (0, max(0, 2 * hop + 1 - sound.shape[1])))  # its window reflects both ends
    log_mel = bands(sound)[0].T[:steps].clamp_min(1e-5).log()
    static = (log_mel - log_mel.mean(dim=0)) @ torchaudio.functional.create_dct(CEPSTRA, MELS, "ortho")
    near = F.pad(static.T.unsqueeze(0), (2, 2), mode="replicate")[0].T
    slopes = near[4:] - near[:-4] + (near[3:-1] - near[1:-3]) / 2
    return torch.cat([static, slopes], dim=1)


class ForcedAligner(nn.Module):
    """Mean cepstra of letters between their neighbours, and one variance of each cepstrum.

    Args:
        scale: [32], standard deviations of the cepstra, which are divided by them.
        num_symbols: Ids that there are.
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

    def forward(self, letters: Int[Tensor, "B L"], known: Bool[Tensor, "B L"]) -> Float[Tensor, "B L 32"]:
        """Mean cepstra, scaled, of every letter; `known` is False on padding."""
        rows = self.embedding(letters) * known.unsqueeze(2)
        return self.mean(rows + self.neighbours(rows.transpose(1, 2)).transpose(1, 2))


class _Batch(NamedTuple):
    heard: Tensor  # float32 [B, T, 32], scaled
    letters: Tensor  # int64 [B, L]
    known: Tensor  # bool [B, L]
    steps: Tensor  # int64 [B]
    counts: Tensor  # int64 [B]


def _batch(items: Sequence[SpokenText], scale: Tensor) -> _Batch:
    letters = pad_sequence([item.symbols for item in items], batch_first=True)
    counts = torch.tensor([len(item.symbols) for item in items])
    return _Batch(
        pad_sequence([item.cepstra / scale for item in items], batch_first=True),
        letters,
        torch.arange(letters.shape[1]) < counts.unsqueeze(1),
        torch.tensor([len(item.cepstra) for item in items]),
        counts,
    )


def even_paths(batch_steps: Tensor, counts: Tensor) -> Int[Tensor, "B T"]:
    """The letter of every step where all letters last equally long."""
    steps = torch.arange(int(batch_steps.max()))
    return (steps * counts.unsqueeze(1) // batch_steps.unsqueeze(1)).minimum(counts.unsqueeze(1) - 1)


def best_paths(
    scores: Float[Tensor, "B T L"], steps: Int[Tensor, " B"], counts: Int[Tensor, " B"]
) -> Int[Tensor, "B T"]:
    """The letter of every step on the likeliest path that stays or moves on by one (Viterbi 1967).

    Args:
        scores: Log probabilities of the steps at the letters.
        steps, counts: Of each item; at least as many steps as letters. Letters past the end are steps' last.
    """
    table = scores.numpy()
    items, longest, letters = table.shape
    best = np.full((items, letters), IMPOSSIBLE, np.float32)
    best[:, 0] = table[:, 0, 0]
    moved = np.zeros((longest, items, letters), bool)
    wall = np.full((items, 1), IMPOSSIBLE, np.float32)
    for t in range(1, longest):
        before = np.concatenate([wall, best[:, :-1]], axis=1)
        moved[t] = before > best
        best = np.maximum(best, before) + table[:, t]
    paths = np.zeros((items, longest), np.int64)
    letter, rows = counts.numpy() - 1, np.arange(items)
    for t in range(longest - 1, -1, -1):
        paths[:, t] = letter
        letter = letter - (moved[t, rows, letter] & (t < steps.numpy()))
    return torch.from_numpy(paths)


@torch.enable_grad()
def train_aligner(
    recordings: Sequence[SpokenText], steps: int, num_symbols: int, seed: int = 0
) -> ForcedAligner:
    """An aligner of these recordings, on the CPU; those with fewer steps than letters are left out.

    Raises:
        ValueError: No recording can be aligned.
    """
    usable = [item for item in recordings if len(item.cepstra) >= len(item.symbols)]
    if not usable:
        raise ValueError(
            f"none of {len(recordings)} recordings has 13 ms for each letter of its text: nothing to align"
        )
    scale = torch.cat([item.cepstra for item in usable]).std(dim=0, correction=0).clamp_min(1e-5)
    # Neighbours in length share a batch.
    usable.sort(key=lambda item: (len(item.cepstra), item.id))
    batches = [usable[first : first + BATCH] for first in range(0, len(usable), BATCH)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        aligner = ForcedAligner(scale, num_symbols)
        optimizer = torch.optim.AdamW(aligner.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
        for step in tqdm(range(steps), desc="align", ascii=True, unit="step"):
            batch = _batch(batches[int(torch.randint(len(batches), ()))], scale)
            share = step / steps
            means = aligner(batch.letters, batch.known)
            if share < EVEN_SHARE:
                paths = even_paths(batch.steps, batch.counts)
            else:
                paths = _paths(aligner, batch, means.detach(), DRAW * max(0.0, 1 - share / DRAWN_SHARE))
            expected = means.gather(1, paths.unsqueeze(2).expand(-1, -1, means.shape[2]))
            precision = (-aligner.log_variance).exp()
            surprise = ((batch.heard - expected).square() * precision + aligner.log_variance).sum(dim=2)
            inside = torch.arange(surprise.shape[1]) < batch.steps.unsqueeze(1)
            optimizer.zero_grad()
            surprise[inside].mean().backward()
            nn.utils.clip_grad_norm_(aligner.parameters(), 5.0)
            optimizer.step()
            schedule.step()
    return aligner.eval()


@torch.no_grad()
def align(aligner: ForcedAligner, recordings: Sequence[SpokenText]) -> dict[str, Float[Tensor, " L"]]:
    """Where every symbol of every recording ends, in seconds; the last one ends with the sound.

    Recordings with fewer steps than letters are taken to be read at an even pace.
    """
    ends = {}
    ordered = sorted(recordings, key=lambda item: (len(item.cepstra), item.id))
    for first in range(0, len(ordered), BATCH):
        items = ordered[first : first + BATCH]
        batch = _batch(items, aligner.scale)
        paths = _paths(aligner, batch, aligner(batch.letters, batch.known), 0.0)
        for item, path in zip(items, paths, strict=True):
            steps, letters = len(item.cepstra), len(item.symbols)
            if steps < letters:
                spent = torch.full((letters,), steps / letters)
            else:
                spent = torch.bincount(path[:steps], minlength=letters).float()
            ends[item.id] = spent.cumsum(0) / STEPS_PER_SECOND
    return ends


def align_corpus(corpus: Corpus, sample_rate: int, codec: ByteCodec) -> dict[str, Float[Tensor, " L"]]:
    """`align` of all turns of a corpus that have a text, by an aligner of up to MOST_TURNS of them.

    Less than a minute for 6,500 turns (4.6 hours) on one CPU core.
    """
    turns = [turn for turn in corpus.turns() if turn.text.strip()]
    chosen = set(np.random.default_rng(0).permutation(len(turns))[:MOST_TURNS].tolist())

    def spoken(turn: Turn) -> SpokenText:
        return SpokenText(
            turn.id, cepstra(read_turn(corpus, turn, sample_rate), sample_rate), symbols(codec, turn.text)
        )

    known = {turn.id: spoken(turn) for index, turn in enumerate(turns) if index in chosen}
    batches = -(-len(known) // BATCH)
    steps = min(MOST_STEPS, max(FEWEST_STEPS, 10 * batches))
    aligner = train_aligner(list(known.values()), steps, codec.vocab_size)
    ends: dict[str, Tensor] = {}
    for first in range(0, len(turns), PART):
        part = turns[first : first + PART]
        ends |= align(aligner, [known.get(turn.id) or spoken(turn) for turn in part])
    return ends


def _paths(aligner: ForcedAligner, batch: _Batch, means: Tensor, draw: float) -> Tensor:
    """Best paths; `draw` times the squared distance to an even pace, in letters, counts against a letter."""
    precision = (-aligner.log_variance.detach()).exp()
    scores = (batch.heard * precision) @ means.transpose(1, 2)
    scores = scores - (means.square() * precision).sum(dim=2).unsqueeze(1) / 2
    if draw:
        counts = batch.counts.view(-1, 1, 1)
        pace = torch.arange(scores.shape[1]).view(1, -1, 1) * counts / batch.steps.view(-1, 1, 1)
        scores = scores - draw * (torch.arange(scores.shape[2]) + 0.5 - pace).square()
    return best_paths(scores.masked_fill(~batch.known.unsqueeze(1), IMPOSSIBLE), batch.steps, batch.counts)
