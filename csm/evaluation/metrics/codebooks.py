"""Codebooks of a tokenizer: how many of their codes occur, how evenly, and at which bit rate."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from csm.evaluation.core.clips import ClipSet, ClipSets
from csm.evaluation.core.evaluators import NotMeasurable
from csm.evaluation.core.metric import Estimate, Metric, MetricInfo

# Frames for each code of a codebook below which entropies are said to be too low.
ENOUGH_FRAMES = 100
FRAME_RATE = 12.5  # Hz, of the tokenizers whose codebooks.json is read


def codebook_summary(statistics: Mapping[str, Any], frame_rate: float = FRAME_RATE) -> dict[str, float]:
    """Computes the totals of `csm.tokenizer.usage.codebook_statistics`, or of a codebooks.json.

    Efficiency is sum H / sum log2 V, with H the entropy of each codebook in bits; the bit rates are what the
    codes occupy and what their entropies would need, in bits per second. Entropies of few frames are too low:
    `entropy_bias` is what they lack, by Miller and Madow (1955): (codes that occur - 1) / (2 frames),
    in bits, the mean over codebooks. It is a lower bound where many codes are still to occur.

    Raises:
        ValueError: A list is missing, or the lists are not of one length.
    """
    missing = [
        key for key in ("usage", "perplexity", "dead", "codebook_size", "frames") if key not in statistics
    ]
    if missing:
        raise ValueError(f"codebook statistics lack {', '.join(missing)}")
    size, frames = int(statistics["codebook_size"]), int(statistics["frames"])
    perplexity = np.asarray(statistics["perplexity"], dtype=np.float64)
    usage = usage_shares(statistics)
    if not len(perplexity) == len(usage) == len(statistics["dead"]) > 0:
        raise ValueError("codebook statistics: usage, perplexity and dead must be lists of one length")
    entropy = np.log2(np.maximum(perplexity, 1.0))
    full = len(perplexity) * math.log2(size)
    return {
        "codebooks": float(len(perplexity)),
        "mean_usage": float(usage.mean()),
        "efficiency": float(entropy.sum() / full),
        "dead_codes": float(np.sum(statistics["dead"])),
        "bitrate": full * frame_rate,
        "entropy_bitrate": float(entropy.sum()) * frame_rate,
        "entropy_bias": float(np.maximum(usage * size - 1, 0).mean()) / (2 * frames * math.log(2)),
    }


def few_frames(statistics: Mapping[str, Any]) -> str | None:
    """Returns what is wrong with entropies of few frames, or None."""
    frames, size = int(statistics["frames"]), int(statistics["codebook_size"])
    if frames >= ENOUGH_FRAMES * size:
        return None
    bias = codebook_summary(statistics)["entropy_bias"]
    return (
        f"perplexities of {frames:,} frames over {size:,} codes are too low, by a factor of {2**bias:.2f} or "
        f"more: expected {ENOUGH_FRAMES} frames a code"
    )


def usage_shares(statistics: Mapping[str, Any]) -> np.ndarray:
    """Returns the usage of each codebook as a share, also where the file counts codes."""
    usage = np.asarray(statistics["usage"], dtype=np.float64)
    return usage / int(statistics["codebook_size"]) if usage.size and usage.max() > 1.0 else usage


class Codebooks(Metric):
    """Usage, efficiency and bit rate of a tokenizer's codebooks, as counted in its training.

    Args:
        path: codebooks.json.

    Raises:
        NotMeasurable: There is no such file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        if not path.is_file():
            raise NotMeasurable(f"codebook usage needs {path.parent.name}/{path.name} of the run")
        self.statistics = json.loads(path.read_text(encoding="utf-8"))
        self.details["codebooks"] = {
            "usage": [float(share) for share in usage_shares(self.statistics)],
            **{name: self.statistics[name] for name in ("perplexity", "dead", "codebook_size")},
        }

        if (note := few_frames(self.statistics)) is not None:
            self.missing.append(note)

    def choose(self, sets: ClipSets) -> list[ClipSet]:
        """Returns one set without clips: the codes are those of the whole corpus."""
        return [ClipSet(group="corpus", condition="resynthesis", clips=())]

    def measure(self, clips: ClipSet, recording: ClipSet | None) -> Iterator[Estimate]:
        """Yields the totals."""
        summary = codebook_summary(self.statistics)
        for info in codebook_infos():
            yield Estimate(info=info, value=summary[info.name], n_in=int(summary["codebooks"]))


def codebook_infos() -> list[MetricInfo]:
    """Describes the totals of `codebook_summary` that a report lists."""
    rows = [
        ("mean_usage", "Codebook usage", "share of codes", "higher", "mean share of codes that occur"),
        ("efficiency", "Codebook efficiency", "0 to 1", "higher", "sum of entropies / sum of log2 sizes"),
        ("dead_codes", "Dead codes", "codes", "lower", "codes that never occur, all codebooks together"),
        (
            "entropy_bitrate",
            "Bit rate by entropy",
            "bit/s",
            "none",
            "sum of entropies x 12.5 frames per second",
        ),
        (
            "entropy_bias",
            "Entropy hidden by few frames",
            "bit per code",
            "none",
            "(codes that occur - 1) / 2 frames",
        ),
    ]
    return [
        MetricInfo(
            name=name,
            title=title,
            area="codebooks",
            unit=unit,
            direction=direction,
            evaluator="csm.evaluation.metrics.codebooks, from codes/codebooks.json",
            definition=definition,
        )
        for name, title, unit, direction, definition in rows
    ]
