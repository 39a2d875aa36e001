"""Letters of a transcribed turn, predicted frame by frame as its audio arrives (CTC, Graves et al. 2006)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from csm.network.cross_attention import starts
from csm.network.initialise import draw
from csm.network.layers import PackedSequences, RMSNorm, near_rows
from csm.sequences.packed_batch import TextSpan
from csm.spelling import LETTERS, read_letters
from csm.word_search import WordPairs, search_words


class HeardRows(NamedTuple):
    """Rows of a batch that spell: the frames and the end row of each transcribed turn.

    Attributes:
        rows: int64 [N], rows of the batch, turn after turn.
        turns: Where the rows of each turn lie; of no turn, one of no rows.
        letters: int64 [M], letters of all turns that have some (`csm.spelling`), turn after turn.
    """

    rows: Tensor
    turns: PackedSequences
    letters: Tensor

    @classmethod
    def of(cls, spans: Sequence[TextSpan]) -> HeardRows:
        """Returns the rows of the spans with frames."""
        heard = [span for span in spans if span.num_keys]
        parts = [torch.arange(span.first_key, span.first_query + 1) for span in heard]
        sizes = [len(part) for part in parts] or [0]
        return cls(
            torch.cat([torch.zeros(0, dtype=torch.int64), *parts]),
            PackedSequences.of(starts(sizes), max(1, *sizes)),
            torch.tensor([letter for span in heard for letter in span.letters], dtype=torch.int64),
        )


class LetterHead(nn.Module):
    """Backbone rows of transcribed frames to log probabilities of letters.

    The backbone is causal, and how a sound is spelled depends on what follows it: residual blocks over
    neighbouring rows of the turn read `AHEAD` rows before and after each one.

    Args:
        width: Width D of the rows.
        per_frame: Letters L that a frame may spell.

    Attributes:
        words: Words and their pairs, by which whole turns are read; None: by the argmax of each step.
    """

    BLOCKS, NEIGHBOURS = 3, 5
    #: Rows on either side that a row's letters depend on: 480 ms.
    AHEAD = BLOCKS * (NEIGHBOURS // 2)

    def __init__(self, width: int, per_frame: int) -> None:
        super().__init__()
        self.per_frame = per_frame
        self.blocks = nn.ModuleList(_Block(width, self.NEIGHBOURS) for _ in range(self.BLOCKS))
        self.norm = RMSNorm(width)
        self.project = nn.Linear(width, per_frame * len(LETTERS))
        self.words: WordPairs | None = None

    def reset_parameters(self) -> None:
        """Draws the initial weights."""
        for block in self.blocks:
            cast(_Block, block).reset_parameters()
        draw(self.project)
        nn.init.zeros_(self.project.bias)

    def forward(self, rows: Float[Tensor, "N D"], turns: PackedSequences) -> Float[Tensor, "N L A"]:
        """Returns log probabilities [N, L, letters] in float32; `turns` gives the rows of each turn."""
        for block in self.blocks:
            rows = block(rows, turns)
        scores: Tensor = self.project(self.norm(rows)).unflatten(-1, (self.per_frame, -1))
        return scores.float().log_softmax(-1)

    def symbols(self, rows: Float[Tensor, "N D"]) -> list[int]:
        """Returns the most probable symbols of the rows of one turn, N * L of them."""
        found: list[int] = self._scores(rows).argmax(-1).tolist()
        return found

    def text(self, rows: Float[Tensor, "N D"]) -> str:
        """Returns the text of all rows of one turn."""
        if self.words is None:
            return read_letters(self.symbols(rows))
        return search_words(self._scores(rows), self.words)

    def loss(self, rows: Float[Tensor, "N D"], letters: Sequence[int]) -> float:
        """Returns minus the log probability of letters given all rows of one turn, nats.

        It is CTC's, the sum over all alignments of the letters with the rows; infinite where they do not fit,
        0 of no letters.
        """
        if not letters:
            return 0.0
        scores = self._scores(rows).cpu()
        sizes = torch.tensor([len(scores)]), torch.tensor([len(letters)])
        return float(F.ctc_loss(scores[:, None], torch.tensor([*letters])[None], *sizes, reduction="sum"))

    def _scores(self, rows: Float[Tensor, "N D"]) -> Float[Tensor, "M A"]:
        """Log probabilities at the N * L steps of one turn."""
        one = PackedSequences.of(starts([len(rows)]).to(rows.device), len(rows))
        return self(rows, one).flatten(0, 1)


class _Block(nn.Module):
    """Two layers over neighbouring rows, added to the residual stream."""

    def __init__(self, width: int, neighbours: int) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.norm = RMSNorm(width)
        self.mix = nn.Linear(neighbours * width, width)
        self.out = nn.Linear(width, width)

    def reset_parameters(self) -> None:
        draw(self.mix, self.out)
        nn.init.zeros_(self.mix.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, rows: Float[Tensor, "N D"], turns: PackedSequences) -> Float[Tensor, "N D"]:
        return rows + self.out(F.silu(self.mix(near_rows(self.norm(rows), turns, self.neighbours))))


def letter_cross_entropy(
    scores: Float[Tensor, "N L A"],
    rows: Sequence[int],
    letters: Int[Tensor, " M"],
    sizes: Sequence[int],
) -> Float[Tensor, ""]:
    """Returns the CTC loss summed over turns, nats.

    Args:
        scores: Log probabilities of all transcribed rows; padding may follow.
        rows: Rows of each turn, in the order of `scores`.
        letters: Letters of all turns, turn after turn, on the device of `scores`; padding may follow.
        sizes: Letters of each turn; 0 of a turn that is no target.
    """
    kept = [turn for turn, size in enumerate(sizes) if size]
    total = scores.sum() * 0
    if not kept:
        return total
    per_frame, parts = scores.shape[1], scores[: sum(rows)].split(list(rows))
    padded = pad_sequence([parts[turn].flatten(0, 1) for turn in kept])
    return total + F.ctc_loss(
        padded,
        letters[: sum(sizes)],
        torch.tensor([rows[turn] * per_frame for turn in kept]),
        torch.tensor([sizes[turn] for turn in kept]),
        reduction="sum",
        zero_infinity=True,
    )
