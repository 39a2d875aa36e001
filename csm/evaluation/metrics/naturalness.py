"""Naturalness: predicted mean opinion scores of DNSMOS and distillMOS.

Neither score is sufficient alone: DNSMOS ranks Codec2 above Opus. Original recordings of narrow-band material
score near 3, so a system is compared with the original.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from csm.evaluation.core.clips import EVALUATION_RATE, Clip, ClipSet, as_clips
from csm.evaluation.core.evaluators import optional_import, package_version
from csm.evaluation.core.metric import Metric, MetricInfo, Score, Scores, score_each

DNSMOS_WINDOW = 144160  # samples: 9.01 s at 16 kHz, the length of its input


class Dnsmos:
    """DNSMOS P.835, overall quality (Reddy et al. 2022), in the package speechmos.

    A clip shorter than the 9.01 s window is repeated to exactly one window. (The package doubles a clip until
    it is long enough and then averages up to nine windows of the same material: five times the work for the
    same score.)
    """

    def __init__(self) -> None:
        library = optional_import("speechmos.dnsmos", package="speechmos", metric="DNSMOS")
        runtime = optional_import("onnxruntime", package="onnxruntime", metric="DNSMOS")
        folder = Path(str(library.__file__)).parent / "dnsmos_models"
        paths = str(folder / "sig_bak_ovr.onnx"), str(folder / "model_v8.onnx")
        self._network: Any = library.DNSMOS(*paths)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1  # its default spins on every core
        self._network.onnx_sess, self._network.p808_onnx_sess = (
            runtime.InferenceSession(path, options) for path in paths
        )
        self.evaluator = f"speechmos {package_version('speechmos')} (DNSMOS P.835, overall)"

    def rate(self, waveform: np.ndarray) -> float:
        """Predicts the overall quality, 1 to 5, of a mono 16 kHz waveform [S]."""
        if not np.abs(waveform).max() > 1e-5:
            raise ValueError("the audio is silent")
        waveform = np.clip(waveform, -1.0, 1.0)
        if len(waveform) < DNSMOS_WINDOW:
            waveform = np.resize(waveform, DNSMOS_WINDOW)
        return float(self._network(waveform, EVALUATION_RATE, False)["ovrl_mos"])


class DistillMos:
    """distillMOS (Stahl and Gamper 2025): a small network distilled from a large self-supervised one."""

    def __init__(self) -> None:
        library = optional_import("distillmos", package="distillmos", metric="distillMOS")
        weights = Path(str(library.__file__)).parent / "weights" / "distill_mos_v7.pt"
        # Loaded here and not by its constructor, which prints the path of its weights.
        self._model: Any = library.ConvTransformerSQAModel(load_weights=False).eval()
        self._model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True)["model"])
        self.evaluator = f"distillmos {package_version('distillmos')}"

    @torch.inference_mode()
    def rate(self, waveform: np.ndarray) -> float:
        """Predicts the quality, 1 to 5, of a mono 16 kHz waveform [S]."""
        if not np.abs(waveform).max() > 1e-5:
            raise ValueError("the audio is silent")
        return float(self._model(torch.from_numpy(waveform)[None]).mean())


class Rater(Protocol):
    """A network that predicts a mean opinion score; `evaluator` names it with its version."""

    evaluator: str

    def rate(self, waveform: np.ndarray) -> float:
        """Predicts the quality of a mono 16 kHz waveform [S]."""


def mean_opinion_scores(rater: Rater, items: Sequence[Clip | tuple]) -> list[Score]:
    """Predicts the mean opinion score of each clip, 1 to 5, higher is better."""

    def measure(clip: Clip) -> float:
        assert clip.waveform is not None
        return rater.rate(clip.waveform)

    return score_each(as_clips(items), measure)


class Naturalness(Metric):
    """Mean opinion score predicted by one rater.

    Args:
        name: "dnsmos" or "distillmos".
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.rater: Rater = Dnsmos() if name == "dnsmos" else DistillMos()
        self.info = naturalness_info(name, self.rater.evaluator)

    def measure(self, clips: ClipSet, recording: ClipSet | None) -> Iterator[Scores]:
        """Yields the rater's scores."""
        yield Scores(info=self.info, scores=mean_opinion_scores(self.rater, clips.clips))


def naturalness_info(name: str, evaluator: str) -> MetricInfo:
    """Describes DNSMOS or distillMOS; 1 is the worst end of both scales."""
    title, definition = {
        "dnsmos": ("DNSMOS", "DNSMOS P.835 overall quality; clips under 9.01 s are repeated to one window"),
        "distillmos": ("distillMOS", "predicted mean opinion score of the clip"),
    }[name]
    return MetricInfo(
        name=name,
        title=title,
        area="naturalness",
        unit="MOS, 1 to 5",
        direction="higher",
        worst=1.0,
        best=5.0,
        evaluator=evaluator,
        definition=definition,
        sample_rate=EVALUATION_RATE,
    )
