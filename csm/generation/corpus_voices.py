"""Voices of a corpus's speakers, computed from their training recordings."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from csm.data.code_shards import EncodedTurn
from csm.data.consent import consents
from csm.data.lazy_sequence import items_of
from csm.data.manifest import Corpus
from csm.data.turn_audio import read_turn
from csm.generation.voices import Voice
from csm.system.log import progress_of
from csm.tokenizer.opening import VoiceTokenizer

# Recordings whose emotion embedding is averaged: more change the mean by little, and each has to be read and
# encoded.
EMOTION_CLIPS = 16
# Turns whose embeddings are put into one tensor: a tensor for each turn takes half a kilobyte.
PART = 4096


class CorpusVoices(Mapping[str, Voice]):
    """Voices of the speakers of a corpus's train split, by name; each is computed when it is first used.

    The speaker with most training minutes comes first, the others in alphabetical order.

    Args:
        corpus: Corpus with the recordings.
        encoded: Encoded turns, by id.
        numbers: Speaker indices of the model, by name.
        tokenizer: Tokenizer that encoded the turns, in eval mode.
        without: Names of speakers to leave out.

    Raises:
        ValueError: No speaker is left.
    """

    def __init__(
        self,
        corpus: Corpus,
        encoded: Mapping[str, EncodedTurn],
        numbers: Mapping[str, int],
        tokenizer: VoiceTokenizer,
        *,
        without: Sequence[str] = (),
    ) -> None:
        self._corpus, self._encoded, self._numbers = corpus, encoded, numbers
        self._tokenizer = tokenizer
        main = main_speaker(corpus, without)
        names = [name for name in minutes_of_speakers(corpus) if name not in without]
        self._names = sorted(names, key=lambda name: (name != main, name))
        self._voices: dict[str, Voice] = {}

    def __getitem__(self, name: str) -> Voice:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._voices:
            voice = voice_of(self._corpus, self._encoded, name, self._numbers[name])
            self._voices[name] = with_emotion(voice, self._corpus, self._tokenizer)
        return self._voices[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def computed(self) -> dict[str, Voice]:
        """Returns all voices, with a progress bar while they are computed."""
        return {
            name: self[name] for name in progress_of(self._names, "voices", len(self._names), unit="voice")
        }


def minutes_of_speakers(corpus: Corpus, split: str = "train") -> dict[str, float]:
    """Returns the minutes of each speaker in a split, by name, in alphabetical order."""
    minutes: dict[str, float] = {}
    for turn in corpus.turns(split):
        minutes[turn.speaker] = minutes.get(turn.speaker, 0.0) + turn.duration / 60
    return dict(sorted(minutes.items()))


def main_speaker(corpus: Corpus, without: Sequence[str] = ()) -> str:
    """Returns the speaker with most training minutes; the first by name of several with as many.

    Raises:
        ValueError: The train split is empty, or all its speakers are left out.
    """
    minutes = {name: time for name, time in minutes_of_speakers(corpus).items() if name not in without}
    if not minutes:
        raise ValueError(f"{corpus.root} has no turns in its train split: expected at least one speaker's")
    return min(minutes, key=lambda name: (-minutes[name], name))


def voice_of(corpus: Corpus, encoded: Mapping[str, EncodedTurn], name: str, number: int) -> Voice:
    """Returns a speaker's voice: the mean speaker embedding of the train turns, normalised to unit length.

    The speaker's consent, where it is on record, comes with it.

    Raises:
        ValueError: None of the speaker's train turns is encoded.
    """
    rows = (encoded[t.id].speaker for t in corpus.turns("train") if t.speaker == name and t.id in encoded)
    parts = [torch.stack(part) for part in iter(lambda: list(islice(rows, PART)), [])]
    if not parts:
        known = ", ".join(minutes_of_speakers(corpus))
        raise ValueError(f"speaker {name!r} has no encoded train turns: expected one of {known}")
    mean = torch.cat(parts).float().mean(dim=0, keepdim=True)
    consent = consents(corpus).get(name, "")
    return Voice(name, number, F.normalize(mean, dim=-1), consent=consent)


@torch.no_grad()
def with_emotion(voice: Voice, corpus: Corpus, tokenizer: VoiceTokenizer) -> Voice:
    """Returns the voice with the mean emotion embedding of some of the speaker's train recordings.

    A voice without a speaker embedding is of a tokenizer without either: it stays as it is.
    """
    if not voice.speaker.shape[1]:
        return voice
    numbers = array("q", (n for n, turn in enumerate(corpus.turns("train")) if turn.speaker == voice.name))
    chosen = numbers[:: max(1, len(numbers) // EMOTION_CLIPS)][:EMOTION_CLIPS]
    device = tokenizer.device
    rows: list[Float[Tensor, "1 M"]] = []
    for turn in items_of(corpus.turns("train"), chosen):
        waveform = read_turn(corpus, turn, tokenizer.config.sample_rate).to(device)
        rows.append(tokenizer.encode(waveform.unsqueeze(0))[1].emotion)
    emotion = F.normalize(torch.cat(rows).mean(dim=0, keepdim=True), dim=-1)
    return voice._replace(speaker=voice.speaker.to(device), emotion=emotion)
