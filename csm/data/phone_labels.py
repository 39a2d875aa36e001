"""Phone classes at steps of 20 ms, from forced alignment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from csm.data.alignment_cache import aligned_corpus
from csm.data.forced_alignment import symbols
from csm.data.manifest import Corpus
from csm.text import ByteCodec, text_codec

SECONDS_PER_STEP = 0.02
#: Class of steps without a label, which no loss counts.
NONE = -100


class PhoneLabels:
    """Labels of the turns of a corpus, computed where they are asked for.

    Args:
        codec: Text codec whose symbols were aligned.
        texts: Id and text of each turn; read once.
        ends: Turn id -> end of each symbol in seconds, of `align_corpus`.

    Attributes:
        classes: Text ids that occur, in the order of the classes.
    """

    def __init__(
        self, codec: ByteCodec, texts: Iterable[tuple[str, str]], ends: Mapping[str, Tensor]
    ) -> None:
        found: set[int] = set()
        for turn, text in texts:
            if turn in ends:
                found.update(symbols(codec, text).tolist())
        self.classes = sorted(found)
        self._place = torch.full((codec.vocab_size,), NONE)
        self._place[self.classes] = torch.arange(len(self.classes))
        self._codec, self._ends = codec, ends

    def steps(self, turn: str, text: str, start: float, count: int, speed: float = 1.0) -> Int[Tensor, " N"]:
        """Returns the class at the middle of each of `count` steps from `start` seconds on.

        It is NONE after the last symbol, and everywhere in a turn without alignment.

        Args:
            turn, text: Id and text of the turn.
            start: Seconds of the sound before the first step.
            count: Number of steps.
            speed: Factor by which the sound is faster than the turn.
        """
        if (ends := self._ends.get(turn)) is None:
            return torch.full((count,), NONE)
        classes = self._place[symbols(self._codec, text)]
        middles = speed * (start + (torch.arange(count) + 0.5) * SECONDS_PER_STEP)
        place = torch.searchsorted(ends, middles.to(ends.dtype), right=True)
        return torch.where(place < len(ends), classes[place.clamp(max=len(ends) - 1)], NONE)


def align_phones(corpus: Corpus, sample_rate: int) -> tuple[ByteCodec, Mapping[str, Tensor]]:
    """Returns the phone codec and the ends of `align_corpus` by turn id."""
    codec = text_codec("phones", 256)
    assert isinstance(codec, ByteCodec)
    return codec, aligned_corpus(corpus, sample_rate, codec, "phones")
