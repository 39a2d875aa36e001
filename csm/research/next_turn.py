"""How well the text of the next turn is predicted from the turn before it, with or without its voice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from csm.data.turn_table import TurnTable
from csm.evaluation.core.metric import MetricInfo, Score, Scores
from csm.spelling import LETTERS, spell
from csm.system.threads import one_thread
from csm.training.reproducibility import seed_everything

NEXT_TURN = "next_turn_nats"
BATCH, LEARNING_RATE, WEIGHT_DECAY = 32, 2e-3, 1e-2
#: Letters of either turn that are read and predicted.
LONGEST = 120
END = len(LETTERS)


class Pair(NamedTuple):
    """Two turns in a row.

    Attributes:
        id: Id of the second turn. conversation: Number of the conversation.
        before: Letters of the first turn. codes: Its codes, int64 [K, T].
        after: Letters of the second turn, END last.
    """

    id: str
    conversation: str
    before: Tensor
    codes: Tensor
    after: Tensor


def next_turn_info() -> MetricInfo:
    """Describes the metric."""
    return MetricInfo(
        name=NEXT_TURN,
        title="Nats of the next turn's text",
        area="next turn",
        unit="nats per letter",
        direction="lower",
        evaluator="csm.research.next_turn (our own, trained on the corpus' train split)",
        definition="cross-entropy of the letters of a turn's text given the text of the turn before it, and "
        "the mean and spread of its codes' embeddings where the arm has its voice",
    )


def pairs_of(table: TurnTable, conversations: int | None = None) -> list[Pair]:
    """Returns the pairs of all or of the first conversations of a table."""
    found = []
    for number in range(min(table.conversations, conversations or table.conversations)):
        count = len(table.rows_of(number))
        turns = table.turns_of(number, 0, count)
        for a, b in zip(turns, turns[1:], strict=False):
            before, after = (
                torch.tensor([*spell(turn.text)][:LONGEST], dtype=torch.int64) for turn in (a, b)
            )
            if len(before) and len(after):
                after = torch.cat([after, torch.tensor([END])])
                found.append(Pair(b.id, turns[0].id, before, a.codes, after))
    return found


class NextTurnProbe(nn.Module):
    """A recurrent language model of the next turn's letters, given the turn before.

    Args:
        books: Range of codebooks whose codes are given; None: the text alone.
        vocab: Codes per codebook.
        width: Width of all layers.
    """

    def __init__(self, books: range | None, vocab: int, width: int = 96) -> None:
        super().__init__()
        self.books, self.vocab = books, vocab
        self.letters = nn.Embedding(END + 1, width)
        self.reader, self.writer = (nn.GRU(width, width, batch_first=True) for _ in range(2))
        self.codes = nn.Embedding(len(books or ()) * vocab + 1, width)
        self.voice = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(0.2)
        self.scores = nn.Linear(width, END + 1)

    def forward(self, pairs: Sequence[Pair], voices: Sequence[Tensor]) -> tuple[Float[Tensor, " B"], Tensor]:
        """Returns the nats of each pair's second turn [B] and its number of letters [B]."""
        before = pad_sequence([pair.before for pair in pairs], batch_first=True)
        states, _ = self.reader(self.letters(before))
        last = torch.tensor([len(pair.before) - 1 for pair in pairs])
        given = states[torch.arange(len(pairs)), last]
        if self.books is not None:
            given = given + self.voice(torch.stack([self._voice(codes) for codes in voices]))
        after = pad_sequence([pair.after for pair in pairs], batch_first=True, padding_value=-1)
        shifted = F.pad(after[:, :-1], (1, 0), value=END).clamp_min(0)
        rows, _ = self.writer(self.dropout(self.letters(shifted)), self.dropout(given)[None].contiguous())
        nats = F.cross_entropy(
            self.scores(self.dropout(rows)).transpose(1, 2), after, ignore_index=-1, reduction="none"
        )
        return nats.sum(dim=1), (after >= 0).sum(dim=1)

    def _voice(self, codes: Int[Tensor, "K T"]) -> Float[Tensor, " D2"]:
        """Returns mean and spread over frames of the sums of the codes' embeddings."""
        assert self.books is not None
        chosen = codes[self.books.start : self.books.stop].long()
        offsets = torch.arange(len(chosen))[:, None] * self.vocab
        frames = self.codes(chosen + offsets).sum(dim=0)
        return torch.cat([frames.mean(dim=0), frames.std(dim=0, correction=0)])


@one_thread()
def next_turn_scores(
    train: Sequence[Pair],
    tested: Sequence[Pair],
    books: range | None,
    *,
    vocab: int,
    steps: int,
    seed: int,
    permuted: bool = False,
) -> Scores:
    """Trains a probe and scores the nats of each tested pair.

    Args:
        train, tested: Pairs of different conversations.
        books: Codebooks of the first turn's voice that are given; None: its text alone.
        vocab: Codes per codebook.
        steps: Optimizer steps.
        seed: Of weights, batches and permutations.
        permuted: Whether every pair has the voice of another one, in training too.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        seed_everything(seed, "next turn")
        probe = NextTurnProbe(books, vocab)
        voices = _voices(train, generator if permuted else None)
        optimizer = torch.optim.AdamW(probe.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        for _ in range(steps):
            chosen = torch.randint(len(train), (min(BATCH, len(train)),), generator=generator).tolist()
            nats, letters = probe([train[i] for i in chosen], [voices[i] for i in chosen])
            optimizer.zero_grad()
            (nats.sum() / letters.sum()).backward()
            optimizer.step()
    return _scored(probe.eval(), tested, _voices(tested, generator if permuted else None))


@torch.no_grad()
def _scored(probe: NextTurnProbe, pairs: Sequence[Pair], voices: Sequence[Tensor]) -> Scores:
    scores = []
    for first in range(0, len(pairs), BATCH):
        part = pairs[first : first + BATCH]
        nats, letters = probe(part, voices[first : first + BATCH])
        for pair, total, count in zip(part, nats.tolist(), letters.tolist(), strict=True):
            scores.append(
                Score(clip=pair.id, conversation=pair.conversation, value=total / count, weight=float(count))
            )
    return Scores(info=next_turn_info(), scores=scores)


def _voices(pairs: Sequence[Pair], generator: torch.Generator | None) -> list[Tensor]:
    """Returns the voice of each pair's first turn, or with a generator those of other pairs."""
    codes = [pair.codes for pair in pairs]
    if generator is None or len(pairs) < 2:
        return codes
    # A rotation in a random order: no pair keeps its own.
    order = torch.randperm(len(pairs), generator=generator).tolist()
    found = list(codes)
    for place, index in enumerate(order):
        found[index] = codes[order[(place + 1) % len(order)]]
    return found
