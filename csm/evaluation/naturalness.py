"""Does it sound natural? Two learned opinions: DNSMOS and distillMOS.

Neither stands alone: DNSMOS ranks codec2 above Opus. Original recordings of narrow-band material
score near 3, so a system is read by its difference from the original.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from csm.evaluation.judge import (
    JUDGE_SAMPLE_RATE,
    Clip,
    as_clips,
    judge_each,
    optional_import,
    package_version,
)
from csm.evaluation.statistics import MetricInfo, Score

DNSMOS_WINDOW = 144160  # samples: 9.01 s at 16 kHz, the length of its input


class Dnsmos:
    """DNSMOS P.835, overall quality (Reddy et al. 2022), in the package speechmos.

    A clip shorter than the 9.01 s window is repeated to exactly one window. (The package doubles a
    clip until it is long enough and then averages up to nine windows of the same material: five
    times the work for the same opinion.)
    """

    def __init__(self) -> None:
        library = optional_import("speechmos.dnsmos", package="speechmos", metric="DNSMOS")
        runtime = optional_import("onnxruntime", package="onnxruntime", metric="DNSMOS")
        folder = Path(str(library.__file__)).parent / "dnsmos_models"
        paths = str(folder / "sig_bak_ovr.onnx"), str(folder / "model_v8.onnx")
        self._judge: Any = library.DNSMOS(*paths)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1  # its default spins on every core, and beside us others work
        self._judge.onnx_sess, self._judge.p808_onnx_sess = (
            runtime.InferenceSession(path, options) for path in paths
        )
        self.evaluator = f"speechmos {package_version('speechmos')} (DNSMOS P.835, overall)"

    def rate(self, waveform: np.ndarray) -> float:
        """Overall quality, 1 to 5, of mono 16 kHz ``waveform`` [S]."""
        if not np.abs(waveform).max() > 1e-5:
            raise ValueError("the audio is silent")
        waveform = np.clip(waveform, -1.0, 1.0)
        if len(waveform) < DNSMOS_WINDOW:
            waveform = np.resize(waveform, DNSMOS_WINDOW)
        return float(self._judge(waveform, JUDGE_SAMPLE_RATE, False)["ovrl_mos"])


class DistillMos:
    """distillMOS (Stahl and Gamper 2025): a small network taught by a large self-supervised judge."""

    def __init__(self) -> None:
        library = optional_import("distillmos", package="distillmos", metric="distillMOS")
        weights = Path(str(library.__file__)).parent / "weights" / "distill_mos_v7.pt"
        # Loaded here and not by its constructor, which prints the path of its weights.
        self._model: Any = library.ConvTransformerSQAModel(load_weights=False).eval()
        self._model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True)["model"])
        self.evaluator = f"distillmos {package_version('distillmos')}"

    @torch.inference_mode()
    def rate(self, waveform: np.ndarray) -> float:
        """Quality, 1 to 5, of mono 16 kHz ``waveform`` [S]."""
        if not np.abs(waveform).max() > 1e-5:
            raise ValueError("the audio is silent")
        return float(self._model(torch.from_numpy(waveform)[None]).mean())


def mean_opinion_scores(judge: Dnsmos | DistillMos, items: Sequence[Clip | tuple]) -> list[Score]:
    """The judge's opinion of each clip (1 to 5, higher is better)."""

    def measure(clip: Clip) -> float:
        assert clip.waveform is not None
        return judge.rate(clip.waveform)

    return judge_each(as_clips(items), measure)


def naturalness_metrics(dnsmos: str = "speechmos", distillmos: str = "distillmos") -> dict[str, MetricInfo]:
    """DNSMOS and distillMOS; 1 is the worst end of both scales."""
    shared: dict[str, Any] = {
        "area": "naturalness",
        "unit": "MOS, 1 to 5",
        "direction": "higher",
        "worst": 1.0,
        "sample_rate": JUDGE_SAMPLE_RATE,
    }
    return {
        "dnsmos": MetricInfo(
            name="dnsmos",
            title="DNSMOS",
            evaluator=dnsmos,
            definition="DNSMOS P.835 overall quality; clips under 9.01 s are repeated to one window",
            **shared,
        ),
        "distillmos": MetricInfo(
            name="distillmos",
            title="distillMOS",
            evaluator=distillmos,
            definition="predicted mean opinion score of the clip",
            **shared,
        ),
    }
