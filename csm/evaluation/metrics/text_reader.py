"""Text reader: words from the vectors of codes alone, by a small convolutional CTC network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from csm.evaluation.core.metric import Score, scored
from csm.evaluation.core.statistics import seed_for
from csm.evaluation.metrics.coded_clips import CodedClip, ProbeConfig, clip_of, scale_of
from csm.evaluation.metrics.text_normalisation import normalise_text
from csm.evaluation.metrics.words import aligned_words
from csm.spelling import LETTERS, outputs_needed, read_letters, spell
from csm.system.threads import one_thread

#: CTC outputs in a frame: 20 ms hold one letter of fast speech.
OUTPUTS = 4
WIDTH, BLOCKS, KERNEL = 384, 5, 7
#: Most clips that the scale of the vectors is measured on.
SCALED = 1000
BATCH, POOL, LEARNING_RATE, WARMUP, WEIGHT_DECAY = 24, 20, 1.5e-3, 100, 0.05
#: Share of frames that training replaces by the mean, and of channels dropped inside.
MASKED, DROPOUT = 0.1, 0.15


class TextReader(nn.Module):
    """Vectors [B, T, C] to log probabilities of letters [B, 4 T, A].

    Residual blocks of a depthwise convolution over frames and a two-layer network, as in ConvNeXt (Liu et
    al. 2022); a letter is read from 1.2 s on either side.

    Args:
        width_in: Width C of the vectors, which are standardised.
    """

    def __init__(self, width_in: int) -> None:
        super().__init__()
        self.into = nn.Linear(width_in, WIDTH)
        self.blocks = nn.ModuleList(_Block() for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(WIDTH)
        self.letters = nn.Linear(WIDTH, OUTPUTS * len(LETTERS))

    def forward(self, vectors: Float[Tensor, "B T C"], mask: Float[Tensor, "B T"]) -> Tensor:
        """Returns log probabilities; `mask` is 0 on padding, which the convolutions read as zeros."""
        x = self.into(vectors)
        for block in self.blocks:
            x = block(x, mask.unsqueeze(2))
        scores = self.letters(self.norm(x)).unflatten(2, (OUTPUTS, -1)).flatten(1, 2)
        return scores.float().log_softmax(-1)


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.over_frames = nn.Conv1d(WIDTH, WIDTH, KERNEL, padding=KERNEL // 2, groups=WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.hidden = nn.Linear(WIDTH, 2 * WIDTH)
        self.out = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        inner = self.over_frames((x * mask).transpose(1, 2)).transpose(1, 2)
        inner = self.out(F.gelu(self.hidden(self.norm(inner))))
        return x + F.dropout(inner, DROPOUT, self.training)


@one_thread()
def word_scores(
    train: Sequence[CodedClip],
    held_out: Sequence[CodedClip],
    rows: Callable[[CodedClip], Float[Tensor, "T C"]],
    config: ProbeConfig,
    say: Callable[[str], None] = lambda line: None,
) -> list[Score]:
    """Trains a reader and scores the word error rate of what it reads from held-out clips.

    CTC (Graves et al. 2006), decoded by argmax, without a language model or dictionary.

    Args:
        train, held_out: Clips; training leaves out those without letters or with more letters than outputs.
        rows: Vectors of a clip's frames.
        config: How to train.
        say: Receives a line with the loss after each pass.

    Returns:
        Word errors / words of each held-out clip with words, weighted by words; `detail` is what was read.

    Raises:
        ValueError: There is no clip to train on.
    """
    texts = [spell(clip.turn.text) for clip in train]
    usable = [
        i for i, clip in enumerate(train) if 0 < outputs_needed(texts[i]) <= OUTPUTS * clip.codes.shape[1]
    ]
    if not usable:
        raise ValueError(
            f"none of {len(train)} training clips has a text that its frames can hold; check the texts"
        )
    clips = [train[i] for i in usable]
    mean, scale = scale_of(torch.cat([rows(clip) for clip in clips[:: 1 + len(clips) // SCALED]]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(config.seed, "reader") % 2**63)
        reader = TextReader(len(mean))
        examples = _Examples(clips, [texts[i] for i in usable], lambda clip: (rows(clip) - mean) / scale)
        _train(reader, examples, config.reader_epochs, say)
    read = []
    with torch.no_grad():
        for clip in held_out:
            vectors = ((rows(clip) - mean) / scale).unsqueeze(0)
            read.append(letters_of(reader(vectors, torch.ones(vectors.shape[:2]))[0]))
    return word_errors(held_out, read)


def word_errors(clips: Sequence[CodedClip], texts: Sequence[str]) -> list[Score]:
    """Scores word errors / words of what was read of each clip with words; `detail` is what was read."""
    scores = []
    for clip, read in zip(clips, texts, strict=True):
        if count := len(normalise_text(clip.turn.text).split()):
            found = aligned_words(clip.turn.text, read)
            errors = found.substitutions + found.deletions + found.insertions
            scores.append(scored(clip_of(clip.turn), errors / count, weight=count, detail=read))
    return scores


def letters_of(scores: Float[Tensor, "N A"]) -> str:
    """Returns the text of a clip's letter scores by argmax, single spaces between words."""
    return read_letters(scores.argmax(-1).tolist())


class _Examples(NamedTuple):
    """What a reader is trained on: clips, their letters, and the standardised vectors of a clip."""

    clips: Sequence[CodedClip]
    texts: Sequence[Sequence[int]]
    rows: Callable[[CodedClip], Tensor]


def _train(reader: TextReader, examples: _Examples, epochs: int, say: Callable[[str], None]) -> None:
    """AdamW with bfloat16 products, one cosine; leaves the reader in eval mode."""
    optimizer = torch.optim.AdamW(
        reader.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98)
    )
    steps = epochs * -(-len(examples.clips) // BATCH)
    warmup = min(WARMUP, steps // 4 + 1)
    rising = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, 1.0, total_iters=warmup)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - warmup))
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [rising, falling], [warmup])
    reader.train()
    for epoch in range(epochs):
        batches = _batches([clip.codes.shape[1] for clip in examples.clips])
        total = 0.0
        for picks in batches:
            loss = _loss(reader, examples, picks)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        say(f"pass {epoch + 1} of {epochs}, {total / len(batches):.3f} nats a letter")
    reader.eval()


def _loss(reader: TextReader, examples: _Examples, picks: Sequence[int]) -> Tensor:
    parts = [examples.rows(examples.clips[i]) for i in picks]
    lengths = torch.tensor([len(part) for part in parts])
    vectors = pad_sequence(parts, batch_first=True)
    mask = torch.arange(vectors.shape[1]) < lengths.unsqueeze(1)
    kept = mask & (torch.rand(mask.shape) >= MASKED)
    with torch.autocast("cpu", torch.bfloat16):
        scores = reader(vectors * kept.unsqueeze(2), mask.float())
    texts = [torch.tensor(examples.texts[i]) for i in picks]
    sizes = torch.tensor([len(text) for text in texts])
    return F.ctc_loss(scores.transpose(0, 1), torch.cat(texts), lengths * OUTPUTS, sizes)


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Draws batches of clips of similar length in random order."""
    order = torch.randperm(len(lengths)).tolist()
    pools = [order[first : first + BATCH * POOL] for first in range(0, len(order), BATCH * POOL)]
    batches = []
    for pool in pools:
        pool.sort(key=lambda i: lengths[i])
        batches += [pool[first : first + BATCH] for first in range(0, len(pool), BATCH)]
    return [batches[i] for i in torch.randperm(len(batches)).tolist()]
