"""An inaudible watermark of generated speech by Perth (Resemble AI, MIT): off unless it is asked for.

The library changes magnitudes of the spectrum below 2 kHz at 32 kHz, and its decoder returns how sure it is
that a signal carries the mark. Its weights travel in its wheel and are read without unpickling code.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from csm.audio.resampling import resample
from csm.system.extras import missing_package
from csm.system.files import file_sha256

NAME = "Perth (resemble-perth 1.0.1)"
RATE = 32_000
WEIGHTS = Path("pretrained/implicit/perth_net_250000.pth.tar")
WEIGHTS_SHA256 = "a15bce457ebc53ce5e6c9c3f11df78cf7ee2bf9cdab0a798902135b4c4027670"
SETTINGS = {
    "use_wandb": False,
    "batch_size": 1,
    "sample_rate": RATE,
    "n_fft": 2048,
    "hop_size": 320,
    "window_size": 2048,
    "use_lr_scheduler": False,
    "stft_magnitude_min": 1e-9,
    "min_lr": 0.0,
    "max_lr": 0.0,
    "window_fn": "hann",
    "max_wmark_freq": 2000,
    "hidden_size": 256,
    "loss_type": "psychoacoustic",
}
MARKED = 0.5  # confidence of the decoder from which on speech counts as marked


class Watermark:
    """Marks speech, and finds the mark.

    Raises:
        ValueError: The package is missing, or holds other weights.
    """

    def __init__(self) -> None:
        try:
            with _package_resources():
                root = Path(str(importlib.import_module("perth").__file__)).parent / "perth_net"
                network = importlib.import_module("perth.perth_net.perth_net_implicit.model.perth_net")
        except ImportError as error:
            raise ValueError(missing_package("resemble-perth", "--watermark")) from error
        found = file_sha256(root / WEIGHTS)
        if found != WEIGHTS_SHA256:
            raise ValueError(
                f"--watermark: {root / WEIGHTS} has SHA-256 {found[:12]}..., expected "
                f"{WEIGHTS_SHA256[:12]}...; install resemble-perth==1.0.1"
            )
        self._network: Any = network.PerthNet(network.PerthConfig(**SETTINGS))
        weights = torch.load(root / WEIGHTS, map_location="cpu", weights_only=True)
        self._network.load_state_dict(weights["model"])
        self._network.eval()

    @torch.no_grad()
    def mark(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Returns speech float32 [S] with the mark, at the same rate; what is not below 2 kHz stays."""
        signal = _padded(resample(waveform, sample_rate, RATE))
        magnitude, phase = self._network.ap.signal_to_magphase(signal)
        marked, _ = self._network.encoder(magnitude[None])
        to_signal = self._network.ap.magphase_to_signal
        change = to_signal(marked[0], phase) - to_signal(magnitude, phase)
        change = resample(torch.nn.functional.pad(change, (0, len(signal) - len(change))), RATE, sample_rate)
        return waveform + change[: len(waveform)]

    @torch.no_grad()
    def confidence(self, waveform: Tensor, sample_rate: int) -> float:
        """Returns how sure the decoder is that speech float32 [S] carries the mark, 0 to 1."""
        magnitude, _ = self._network.ap.signal_to_magphase(_padded(resample(waveform, sample_rate, RATE)))
        return float(self._network.decoder(magnitude[None])[0].clip(0.0, 1.0).nan_to_num())


def _padded(signal: Tensor) -> Tensor:
    """Fills a signal with silence to whole hops, and to a window at least."""
    hop, least = int(SETTINGS["hop_size"]), int(SETTINGS["n_fft"])  # type: ignore[call-overload]
    missing = max(least - len(signal), -len(signal) % hop)
    return torch.nn.functional.pad(signal, (0, missing + -(len(signal) + missing) % hop))


@contextmanager
def _package_resources() -> Iterator[None]:
    """Lets perth import beside a setuptools without pkg_resources, which it asks for its own folder."""
    if importlib.util.find_spec("pkg_resources") is not None or "perth.perth_net" in sys.modules:
        yield
        return
    stand_in: Any = types.ModuleType("pkg_resources")
    stand_in.resource_filename = lambda package, name: str(
        Path(next(iter(importlib.util.find_spec(package).submodule_search_locations))) / name  # type: ignore
    )
    sys.modules["pkg_resources"] = stand_in
    try:
        yield
    finally:
        del sys.modules["pkg_resources"]
