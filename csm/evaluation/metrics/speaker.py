"""Speaker embeddings by Resemblyzer, and the mean voice of each speaker's recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from csm.data.corpora.transcription.resemblyzer_windows import package_resources
from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn
from csm.evaluation.core.clips import EVALUATION_RATE, Clip, as_clips
from csm.evaluation.core.draws import draw_turns
from csm.evaluation.core.evaluators import NotMeasurable, optional_import, package_version
from csm.evaluation.core.metric import Score, score_each

SHORTEST_RELIABLE = 1.6  # seconds: the window of the embedding network; weak below
LONGEST_REFERENCE = 6.0  # seconds; longer recordings cost time and change a mean voice by little
PARTIALS_PER_SECOND = 1.3  # Resemblyzer's default


class SpeakerEncoder:
    """Resemblyzer (GE2E, Wan et al. 2018; weights inside the package), on the CPU.

    Equal error rate 7.7 % on 14 roles of the quickstart corpus at a threshold of 0.80.

    Raises:
        EvaluatorUnavailable: Resemblyzer or webrtcvad, which it needs, is missing.
    """

    def __init__(self) -> None:
        with package_resources():
            self._library = optional_import("resemblyzer", package="Resemblyzer", metric="speaker similarity")
        self._encoder: Any = self._library.VoiceEncoder("cpu", verbose=False)
        self.evaluator = f"Resemblyzer {package_version('Resemblyzer')}"

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        """Computes the unit-length embedding [256] of a mono 16 kHz waveform [S].

        Silence is trimmed by the package's own rule; where that leaves less than 0.2 s (its voice detector
        may reject strange speech altogether) the untrimmed clip is embedded.

        Raises:
            ValueError: The clip is silent.
        """
        if not np.abs(waveform).max() > 1e-5:
            raise ValueError("the audio is silent")
        trimmed = self._library.preprocess_wav(waveform)
        if len(trimmed) < 0.2 * EVALUATION_RATE:
            trimmed = self._library.normalize_volume(waveform, -30, increase_only=True)
        return self._encoder.embed_utterance(trimmed, rate=PARTIALS_PER_SECOND)


@dataclass(frozen=True, kw_only=True)
class Voices:
    """Mean reference embedding of each speaker: `names` [N] and unit-length `means` [N, 256]."""

    names: tuple[str, ...]
    means: np.ndarray

    def cosines(self, embedding: np.ndarray) -> np.ndarray:
        """Computes the cosine of a unit embedding to every speaker's mean, [N]."""
        return self.means @ embedding

    def index(self, speaker: str) -> int:
        """Returns the position of a speaker.

        Raises:
            ValueError: There are no reference recordings of that speaker.
        """
        if speaker not in self.names:
            raise ValueError(f"no reference recordings of {speaker} in the train split")
        return self.names.index(speaker)


def mean_voices(encoder: SpeakerEncoder, references: Mapping[str, Sequence[np.ndarray]]) -> Voices:
    """Computes the mean voice of each speaker from 16 kHz reference recordings; silent ones are left out."""
    names, means = [], []
    for name in sorted(references):
        embeddings = [encoder.embed(wave) for wave in references[name] if np.abs(wave).max() > 1e-5]
        if embeddings:
            mean = np.mean(embeddings, axis=0)
            names.append(name)
            means.append(mean / np.linalg.norm(mean))
    return Voices(names=tuple(names), means=np.array(means).reshape(len(names), -1))


def embed_all(encoder: SpeakerEncoder, items: Sequence[Clip | tuple]) -> tuple[list[Score], list[np.ndarray]]:
    """Embeds clips; returns a score (0, or a failure) for every clip, and the embeddings of those without "
    "one."""
    embeddings: list[np.ndarray] = []

    def measure(clip: Clip) -> float:
        assert clip.waveform is not None
        embeddings.append(encoder.embed(clip.waveform))
        return 0.0

    return score_each(as_clips(items), measure), embeddings


class ReferenceVoices(NamedTuple):
    """Mean voices, the number of recordings behind each, and why recordings could not be read."""

    voices: Voices
    counts: dict[str, int]
    missing: list[str]


def reference_voices(
    corpus: Corpus,
    encoder: SpeakerEncoder,
    *,
    count: int,
    seed: int,
    speakers: Sequence[str] | None = None,
    prompts: Mapping[str, Sequence[Turn]] | None = None,
) -> ReferenceVoices:
    """Computes the mean voice of every speaker of the train split who has recordings of 1.6 to 6 s.

    Args:
        corpus: Corpus with the recordings.
        encoder: Speaker encoder.
        count: Most recordings of a speaker. seed: Seed of their draw.
        speakers: Names that are asked for; None for all of the train split.
        prompts: Recordings of further speakers, all of which are used.

    Raises:
        NotMeasurable: No speaker has such a recording.
    """
    turns: dict[str, list[Turn]] = {}
    for turn in corpus.turns("train"):
        if SHORTEST_RELIABLE <= turn.duration <= LONGEST_REFERENCE and not turn.overlap:
            if speakers is None or turn.speaker in speakers:
                turns.setdefault(turn.speaker, []).append(turn)
    drawn = {name: draw_turns(own, count, seed) for name, own in turns.items()}
    references: dict[str, list[np.ndarray]] = {}
    missing = []
    for name, own in [*drawn.items(), *(prompts or {}).items()]:
        for turn in own:
            try:
                waveform = read_turn(corpus, turn, EVALUATION_RATE)[0].numpy()
            except ValueError as error:
                missing.append(f"reference recording {turn.id} of {name}: {error}")
                continue
            references.setdefault(name, []).append(waveform)
    voices = mean_voices(encoder, references)
    if not voices.names:
        raise NotMeasurable(f"speaker similarity: the train split has no recording of {SHORTEST_RELIABLE} s")
    return ReferenceVoices(voices, {name: len(references[name]) for name in voices.names}, missing)
