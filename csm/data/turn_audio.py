"""The waveform of one turn of a corpus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jaxtyping import Float
from torch import Tensor

from csm.audio.files import read_audio
from csm.data.manifest import Conversation, Corpus, Turn
from csm.system.digests import entered_digest, require_intact, sha256_of

#: Most turns and most seconds, padding included, of one batch of an encoder; 0.5 GB at 24 kHz.
BATCH_TURNS, BATCH_SECONDS = 32, 256.0


def encoder_batches(turns: Sequence[Turn]) -> Iterator[list[Turn]]:
    """Yields turns in batches of similar lengths, the longest first.

    Neighbours in length share a batch: little padding. The later batches fit into what the first ones free;
    in the other order each needs more than any before has freed, and the process grows (docs/LOG.md).
    """
    ordered = sorted(turns, key=lambda turn: (-turn.duration, turn.id))
    first = 0
    while first < len(ordered):
        size = min(BATCH_TURNS, max(1, int(BATCH_SECONDS // ordered[first].duration)))
        yield ordered[first : first + size]
        first += size


def read_turn(corpus: Corpus, turn: Turn, sample_rate: int) -> Float[Tensor, "1 S"]:
    """Reads the waveform of a turn from its channel and its interval of the file.

    Args:
        corpus: Corpus of the turn.
        turn: Turn to read.
        sample_rate: Sample rate of the result in Hz.

    Returns:
        float32 [1, S], full scale = 1.

    Raises:
        ValueError: The file is missing, bad, or ends before the turn does; the message names the file.
    """
    path = corpus.root / turn.audio
    require_intact(path, "prepare the corpus again, or copy it again", folder=corpus.folder_of(turn))
    return read_audio(
        path,
        sample_rate=sample_rate,
        start=turn.start,
        end=turn.end,
        channel=turn.channel,
    )


def audio_digests(corpus: Corpus, conversation: Conversation) -> dict[str, str]:
    """Returns the SHA-256 of a conversation's audio files by path: as entered in the corpus, or computed."""
    found: dict[str, str] = {}
    for turn in conversation.turns:
        if turn.audio not in found:
            path = corpus.root / turn.audio
            found[turn.audio] = entered_digest(path, corpus.folder_of(turn)) or sha256_of(path)
    return found
