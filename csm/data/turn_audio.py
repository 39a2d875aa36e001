"""The waveform of one turn, wherever in its file it stands."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from csm.audio.files import read_audio
from csm.data.manifest import Corpus, Turn


def read_turn(corpus: Corpus, turn: Turn, sample_rate: int) -> Float[Tensor, "1 S"]:
    """The waveform of a turn at `sample_rate` (Hz): its stretch of its channel, nothing else of the file.

    Raises:
        ValueError: The file is missing or bad, or does not reach to the turn's end; the message names it.
    """
    return read_audio(
        corpus.root / turn.audio,
        sample_rate=sample_rate,
        start=turn.start,
        end=turn.end,
        channel=turn.channel,
    )
