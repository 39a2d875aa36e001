"""Intelligibility: word and character error rate by a speech recogniser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from csm.data.recogniser_models import MODEL, recogniser_model
from csm.evaluation.core.clips import EVALUATION_RATE, Clip, ClipSet, at_rate
from csm.evaluation.core.evaluators import EvaluatorUnavailable, optional_import, package_version
from csm.evaluation.core.metric import Metric, MetricInfo, Score, Scores, failed, score_each, scored
from csm.evaluation.metrics.text_normalisation import normalise_text
from csm.system.files import file_sha256


class SpeechRecogniser(Protocol):
    """A speech recogniser: waveform in, transcript out."""

    evaluator: str

    def transcribe(self, waveform: np.ndarray, sample_rate: int) -> str:
        """Transcribes a waveform [S]."""


def _model_sha256(folder: Path) -> str:
    """Hex digest of a model's file; empty where there is none."""
    path = folder / MODEL
    return file_sha256(path) if path.is_file() else ""


class WhisperRecogniser:
    """faster-whisper, deterministic: beam 5, temperature 0, no conditioning between clips.

    Args:
        model: See `recogniser_model`; None is tiny.en.
        compute_type: "int8" (1.4 times as fast here, with the same error rate) or "float32".
        threads: Number of CPU threads; the measured result did not depend on it, the time does.

    Raises:
        EvaluatorUnavailable: The package or the model is missing.
    """

    def __init__(self, model: str | None = None, *, compute_type: str = "int8", threads: int = 1) -> None:
        library = optional_import("faster_whisper", package="faster-whisper", metric="word error rate")
        try:
            source, name = recogniser_model(model, "word error rate")
        except ValueError as error:
            raise EvaluatorUnavailable(str(error)) from error
        try:
            self._model: Any = library.WhisperModel(
                source, device="cpu", compute_type=compute_type, cpu_threads=threads
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise EvaluatorUnavailable(
                f"word error rate: faster-whisper cannot load {source!r} ({error}); give a model name "
                "that is already on this machine, or a folder holding model.bin"
            ) from error
        digest = _model_sha256(Path(source))[:12]
        pinned = f", SHA-256 {digest}" if digest else ""
        self.evaluator = (
            f"faster-whisper {package_version('faster-whisper')}, {name}{pinned}, {compute_type}, beam 5"
        )

    def transcribe(self, waveform: np.ndarray, sample_rate: int) -> str:
        """Transcribes a waveform [S]; an empty string where no words are recognised."""
        segments, _ = self._model.transcribe(
            at_rate(waveform, sample_rate),
            language="en",
            beam_size=5,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
            max_new_tokens=224,  # noise can make the decoder loop; half a minute of speech needs fewer
        )
        return " ".join(segment.text.strip() for segment in segments).strip()


@cache
def whisper_english() -> Callable[[str], str]:
    """Returns Whisper's English normaliser (Radford et al. 2022, appendix C), whose rates are published.

    It spells numbers in digits, expands contractions, takes British spellings and fillers out.

    Raises:
        EvaluatorUnavailable: The package is missing.
    """
    library = optional_import(
        "whisper_normalizer.english", package="whisper-normalizer", metric="word error rate"
    )
    normalise: Callable[[str], str] = library.EnglishTextNormalizer()
    return lambda text: " ".join(normalise(text).split())


def aligned_words(reference: str, transcript: str, normalise: Callable[[str], str] = normalise_text) -> Any:
    """Aligns two texts after normalisation; returns jiwer's word alignment."""
    jiwer = optional_import("jiwer", package="jiwer", metric="word error rate")
    return jiwer.process_words(normalise(reference), normalise(transcript))


def error_counts(
    reference: str, transcript: str, normalise: Callable[[str], str] = normalise_text
) -> tuple[int, int]:
    """Counts word errors (substitutions + deletions + insertions) and words of the reference."""
    errors = _errors(aligned_words(reference, transcript, normalise))
    return errors, len(normalise(reference).split())


def character_error_counts(reference: str, transcript: str) -> tuple[int, int]:
    """Counts character errors and characters of the reference, spaces included."""
    jiwer = optional_import("jiwer", package="jiwer", metric="character error rate")
    reference, transcript = normalise_text(reference), normalise_text(transcript)
    return _errors(jiwer.process_characters(reference, transcript)), len(reference)


def _errors(measures: Any) -> int:
    return measures.substitutions + measures.deletions + measures.insertions


def transcribe_all(recogniser: SpeechRecogniser, clips: Sequence[Clip]) -> list[Score]:
    """Transcribes every clip; the transcript is the `detail` of a score of 0.

    Kept apart from the error rates, so that one transcription serves words and characters.
    """

    def transcribe(clip: Clip) -> tuple[float, str]:
        assert clip.waveform is not None
        return 0.0, recogniser.transcribe(clip.waveform, clip.sample_rate)

    return score_each(clips, transcribe)


def error_scores(
    clips: Sequence[Clip],
    transcripts: Sequence[Score],
    *,
    characters: bool = False,
    capped: bool = False,
    whisper: bool = False,
) -> list[Score]:
    """Computes the error rate of each clip, weighted by its length: the pooled mean is errors / words.

    Args:
        clips: Clips with their texts; those whose text has no words are left out.
        transcripts: Result of `transcribe_all` for the same clips.
        characters: Whether to count character instead of word errors.
        capped: Whether a clip counts at most as many errors as it has words. Only then has the scale an end.
        whisper: Whether words are those of `whisper_english`.
    """
    scores = []
    normalise = whisper_english() if whisper else normalise_text
    for clip, transcript in zip(clips, transcripts, strict=True):
        words = normalise(clip.text)
        if not words:
            continue
        size = float(len(words) if characters else len(words.split()))
        if transcript.value is None:
            scores.append(failed(clip, transcript.reason, weight=size))
            continue
        texts = clip.text, transcript.detail or ""
        errors = character_error_counts(*texts) if characters else error_counts(*texts, normalise)
        rate = errors[0] / size
        rate = min(rate, 1.0) if capped else rate
        scores.append(scored(clip, rate, weight=size, detail=transcript.detail))
    return scores


class Intelligibility(Metric):
    """Word error rate by two normalisers, with a limit per clip, and optionally character error rate.

    Args:
        asr: faster-whisper model name or folder; None for the packaged tiny.en.
        characters: Whether to measure character error rate too.
    """

    def __init__(self, asr: str | None = None, *, characters: bool = False) -> None:
        super().__init__()
        self.recogniser = WhisperRecogniser(asr)
        self.kinds: dict[str, dict[str, bool]] = {
            "wer": {},
            "wer_whisper": {"whisper": True},
            "wer_capped": {"capped": True},
        }
        if characters:
            self.kinds["cer"] = {"characters": True}

    def measure(self, clips: ClipSet, recording: ClipSet | None) -> Iterator[Scores]:
        """Transcribes once and yields every error rate."""
        transcripts = transcribe_all(self.recogniser, clips.clips)
        infos = intelligibility_infos(self.recogniser.evaluator)
        for name, kind in self.kinds.items():
            yield Scores(info=infos[name], scores=error_scores(clips.clips, transcripts, **kind))


def intelligibility_infos(evaluator: str) -> dict[str, MetricInfo]:
    """Describes word error rate, the same with a limit per clip, and character error rate."""
    normalised = "lower case, punctuation removed, numbers written out (text_normalisation.py)"
    shared: dict[str, Any] = {
        "area": "intelligibility",
        "unit": "errors per word",
        "direction": "lower",
        "best": 0.0,
        "evaluator": evaluator,
        "sample_rate": EVALUATION_RATE,
    }
    return {
        "wer": MetricInfo(
            name="wer",
            title="Word error rate",
            definition=f"(substitutions + deletions + insertions) / words, pooled over clips; {normalised}",
            **shared,
        ),
        "wer_whisper": MetricInfo(
            name="wer_whisper",
            title="Word error rate, Whisper's normaliser",
            definition="as word error rate, after Whisper's English normaliser (whisper-normalizer "
            f"{package_version('whisper-normalizer')}): to compare with published figures",
            **shared,
        ),
        "wer_capped": MetricInfo(
            name="wer_capped",
            title="Word error rate, at most 1 a clip",
            definition="as word error rate, but no clip counts more errors than it has words; a failed "
            "clip counts 1",
            worst=1.0,
            **shared,
        ),
        "cer": MetricInfo(
            name="cer",
            title="Character error rate",
            definition=f"character errors / characters, spaces included, pooled; {normalised}",
            **{**shared, "unit": "errors per character"},
        ),
    }
