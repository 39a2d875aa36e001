"""Changes of a clip's sound that leave its words: speed with pitch, and the band of a telephone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import soxr
import torch
from jaxtyping import Float
from torch import Tensor

#: Sample rates between which the band of a narrow clip is drawn, Hz.
NARROW_RATES = 8_000, 12_000


class Augmented(NamedTuple):
    """A changed clip.

    Attributes:
        samples: float32 [S].
        speed: Factor of speed: the clip is shorter by it.
    """

    samples: Tensor
    speed: float


def augmented(
    clip: Float[Tensor, " S"],
    sample_rate: int,
    rng: np.random.Generator,
    *,
    speeds: tuple[float, ...],
    narrow_share: float,
) -> Augmented:
    """Draws a change of a clip.

    Speed is changed by resampling, so that pitch and formants move with it: another voice says the words (Ko
    et al. 2015).

    Args:
        clip: Samples.
        sample_rate: Their rate in Hz.
        rng: Random generator; three numbers are drawn whatever comes of them.
        speeds: Factors of speed, one of which is drawn.
        narrow_share: Share of clips that lose what lies above half a rate of NARROW_RATES.
    """
    speed = float(speeds[int(rng.integers(len(speeds)))])
    narrow, rate = rng.random() < narrow_share, int(rng.integers(*NARROW_RATES))
    samples = clip.numpy()
    if speed != 1:
        samples = soxr.resample(samples, round(sample_rate * speed), sample_rate, quality="MQ")
    if narrow:
        low = soxr.resample(samples, sample_rate, rate, quality="MQ")
        samples = soxr.resample(low, rate, sample_rate, quality="MQ")
    return Augmented(torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32)), speed)
