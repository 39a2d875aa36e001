"""Who can speak: the voices that training has heard, and how each of them sounds to the tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from csm.data.code_shards import EncodedTurn
from csm.data.manifest import Corpus
from csm.data.turn_audio import read_turn
from csm.tokenizer.conversational_rvq import ConversationalRVQ

# Recordings whose manner is averaged: more change the mean by little, and each has to be read and encoded.
MANNER_CLIPS = 16


class Voice(NamedTuple):
    """A speaker as model and tokenizer know them.

    Attributes:
        name: In the corpus. number: The model's speaker id.
        speaker: float32 [1, E], unit length, the tokenizer's speaker embedding. emotion: [1, M] or None.
    """

    name: str
    number: int
    speaker: Tensor
    emotion: Tensor | None = None


def minutes_of_speakers(corpus: Corpus, split: str = "train") -> dict[str, float]:
    """Minutes of each speaker in a split, by name, in alphabetical order."""
    minutes: dict[str, float] = {}
    for turn in corpus.turns(split):
        minutes[turn.speaker] = minutes.get(turn.speaker, 0.0) + turn.duration / 60
    return dict(sorted(minutes.items()))


def main_speaker(corpus: Corpus) -> str:
    """The speaker with most training minutes; the first by name where two have as many.

    Raises:
        ValueError: The train split is empty.
    """
    minutes = minutes_of_speakers(corpus)
    if not minutes:
        raise ValueError(f"{corpus.root} has no turns in its train split: nobody's voice was learnt")
    return min(minutes, key=lambda name: (-minutes[name], name))


def voice_of(corpus: Corpus, encoded: Mapping[str, EncodedTurn], name: str, number: int) -> Voice:
    """A speaker's voice: the speaker embeddings of their train turns averaged and made unit length again.

    Raises:
        ValueError: No such speaker among the encoded turns of the train split; lists the names.
    """
    rows = [encoded[t.id].speaker for t in corpus.turns("train") if t.speaker == name and t.id in encoded]
    if not rows:
        known = ", ".join(minutes_of_speakers(corpus))
        raise ValueError(f"unknown speaker {name!r}: the voices that training has heard are {known}")
    mean = torch.stack(rows).float().mean(dim=0, keepdim=True)
    return Voice(name, number, F.normalize(mean, dim=-1))


@torch.no_grad()
def with_manner(voice: Voice, corpus: Corpus, tokenizer: ConversationalRVQ) -> Voice:
    """The same voice with the mean emotion embedding of some of its train recordings: its everyday manner."""
    turns = [turn for turn in corpus.turns("train") if turn.speaker == voice.name]
    device = tokenizer.decoder.embed.weight.device
    rows: list[Float[Tensor, "1 M"]] = []
    for turn in turns[:: max(1, len(turns) // MANNER_CLIPS)][:MANNER_CLIPS]:
        waveform = read_turn(corpus, turn, tokenizer.config.sample_rate).to(device)
        rows.append(tokenizer.encode(waveform.unsqueeze(0))[1].emotion)
    emotion = F.normalize(torch.cat(rows).mean(dim=0, keepdim=True), dim=-1)
    return voice._replace(speaker=voice.speaker.to(device), emotion=emotion)
