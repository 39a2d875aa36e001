"""Spectral distances of decoded waveforms, or of predicted magnitudes, from a recording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from csm.tokenizer.magnitude_head import magnitudes


class _Magnitude(torch.autograd.Function):
    """sqrt(|rfft(frames)|^2 + 1e-9), with a backward by one inverse real FFT.

    torch's own backward of rfft is a complex FFT of twice the size, and its many small passes over the
    spectrum cost more than the transform. With this backward all spectral losses together take 0.43 of the
    time that they take with torch's, on one CPU thread.
    """

    @staticmethod
    def forward(ctx: Any, frames: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(frames)
        real, imaginary = spectrum.real, spectrum.imag
        magnitude = torch.addcmul(real * real, imaginary, imaginary).add_(1e-9).sqrt_()
        ctx.length = frames.shape[-1]
        ctx.save_for_backward(spectrum, magnitude)
        return magnitude

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        spectrum, magnitude = ctx.saved_tensors
        weight = gradient / magnitude
        # irfft counts every bin but the first and the last twice.
        weight[..., 1:-1] *= 0.5
        weighted = torch.view_as_complex(torch.view_as_real(spectrum) * weight.unsqueeze(-1))
        return torch.fft.irfft(weighted, n=ctx.length, norm="forward")


class SpectralLoss(nn.Module):
    """L1 of log-mel and of compressed linear magnitudes over several resolutions.

    Source: multi-scale mel loss as in DAC (Kumar et al. 2023), window lengths from 6 to 93 ms.

    Args:
        sample_rate: Sample rate in Hz.
        windows_ms: Window lengths in ms, rounded to an even number of samples; the hop is a quarter.
    """

    def __init__(self, sample_rate: int, windows_ms: Sequence[float] = (6, 12, 23, 46, 93)) -> None:
        super().__init__()
        self.lengths = [2 * round(sample_rate * ms / 2000) for ms in windows_ms]
        for index, length in enumerate(self.lengths):
            # About one mel band per three bins for short windows, 80 at most.
            bands = max(5, min(80, length // 6))
            filters = _mel_filters(sample_rate, length, bands)
            # Filters narrower than a bin are empty: they would add constant zeros to the mean.
            self.register_buffer(f"filters{index}", filters[:, filters.sum(dim=0) > 0], persistent=False)
            self.register_buffer(f"window{index}", torch.hann_window(length), persistent=False)

    def forward(
        self,
        output: Float[Tensor, "B S"],
        target: Float[Tensor, "B S"],
        share: Float[Tensor, ""] | float = 1.0,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Compares waveforms, full scale = 1.

        Args:
            output: Decoded waveforms, [B, S].
            target: Original waveforms, [B, S].
            share: Share of samples that are not padding, above 0 to 1; padding is zero on both sides.

        Returns:
            (mel, magnitude), scalars: mean distance of natural log-mel bands and of square roots of
            magnitudes.

        Raises:
            ValueError: The shapes differ, or S is below the longest window.
        """
        if output.shape != target.shape or output.ndim != 2 or output.shape[1] < max(self.lengths):
            raise ValueError(
                f"output {tuple(output.shape)} and target {tuple(target.shape)}: expected two of one shape "
                f"[B, S] with S >= {max(self.lengths)}, the longest window"
            )
        mel_total, magnitude_total = output.new_zeros(()), output.new_zeros(())
        for index in range(len(self.lengths)):
            # Not in one batch: the target needs no gradient.
            mel, compressed = self._features(output, index)
            mel_target, compressed_target = self._features(target, index)
            mel_total = mel_total + F.l1_loss(mel, mel_target)
            magnitude_total = magnitude_total + F.l1_loss(compressed, compressed_target)
        return mel_total / len(self.lengths) / share, magnitude_total / len(self.lengths) / share

    def _features(self, waveform: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Returns log-mel bands [B, frames, bands] and roots of magnitudes [B, frames, bins]."""
        length = self.lengths[index]
        window, filters = self.get_buffer(f"window{index}"), self.get_buffer(f"filters{index}")
        magnitude = _Magnitude.apply(waveform.float().unfold(-1, length, length // 4) * window)
        return (magnitude @ filters + 1e-5 * length).log(), magnitude.sqrt()


#: Bins are averaged over twice this, in Hz, to the envelope of a spectrum: about the spacing of harmonics.
ENVELOPE_HZ = 150.0


def audibility(sample_rate: int, window_length: int) -> Float[Tensor, " N"]:
    """Returns weights [bins] of the STFT bins' squared errors: 1 at 0 Hz, smaller as critical bands widen.

    The weight is 600 / (600 + f) to the power 1.4: critical bands at f are about (600 + f) / 600 times as
    wide as at 0 Hz (Traunmueller 1990, simplified). Of the powers 0, 1 and 2, 1 gave the highest PESQ with
    principal components alone; 1.4 was then kept (docs/LOG.md).
    """
    frequency = torch.arange(window_length // 2 + 1) * (sample_rate / window_length)
    return (600 / (600 + frequency)).pow(1.4)


def spectral_weights(sample_rate: int, window_length: int, envelope: float = 1.0) -> Float[Tensor, "N N"]:
    """Returns the matrix [bins, bins] whose image of an error is squared: audible errors count more.

    It is the root of `audibility`, after the error's mean over neighbouring bins (triangular, ENVELOPE_HZ to
    either side) has been multiplied by `envelope`. A codec that spends its dimensions on the fine structure
    of spectra loses their envelope, which opinion scores need more (docs/LOG.md).

    Args:
        sample_rate: Sample rate in Hz.
        window_length: Length of the STFT's window in samples.
        envelope: Weight of the spectral envelope beside the fine structure, 1 or above; 1: all counts alike.
    """
    bins = torch.arange(window_length // 2 + 1, dtype=torch.float64)
    reach = ENVELOPE_HZ * window_length / sample_rate
    near = (1 - (bins.unsqueeze(1) - bins).abs() / reach).clamp_min(0)
    smooth = near / near.sum(dim=1, keepdim=True)
    matrix = torch.eye(len(bins), dtype=torch.float64) + (envelope - 1) * smooth
    return (audibility(sample_rate, window_length).double().sqrt().unsqueeze(1) * matrix).float()


class MagnitudeLoss(nn.Module):
    """Distances of predicted STFT magnitudes from a recording's, at the decoder's own resolution.

    Args:
        sample_rate: Sample rate in Hz.
        window_length: Length of the STFT's window in samples.
        bands: Number of mel bands that are compared.
        envelope: Weight of the spectral envelope; see `spectral_weights`.
    """

    audible: Tensor
    weights: Tensor
    filters: Tensor

    def __init__(self, sample_rate: int, window_length: int, bands: int = 40, envelope: float = 1.0) -> None:
        super().__init__()
        self.window_length, self.envelope = window_length, envelope
        filters = _mel_filters(sample_rate, window_length, bands)
        self.register_buffer("filters", filters[:, filters.sum(dim=0) > 0], persistent=False)
        weights = spectral_weights(sample_rate, window_length, envelope)
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("audible", audibility(sample_rate, window_length), persistent=False)

    def forward(
        self,
        predicted: Float[Tensor, "B T N"],
        target: Float[Tensor, "B T N"],
        weight: Float[Tensor, "B T"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Compares compressed magnitudes.

        Args:
            predicted, target: Magnitudes to the power COMPRESSION, [B, T, bins]; predicted may be negative.
            weight: Weight of each frame, [B, T], 0 on padding.

        Returns:
            (mel, magnitude), scalars: mean distance of natural log-mel bands; squared error of the compressed
            magnitudes, weighted by `spectral_weights`, divided by their variance about the batch's mean.
        """
        weight = weight.unsqueeze(-1)
        total = weight.sum().clamp_min(1)
        mean = (target * weight).sum(dim=(0, 1)) / total
        error, variance = (self._size(target - other, weight) for other in (predicted, mean))
        floor = 1e-5 * self.window_length
        a, b = ((magnitudes(size) @ self.filters + floor).log() for size in (predicted, target))
        mel = ((a - b).abs().mean(dim=-1, keepdim=True) * weight).sum() / total
        return mel, error / variance.clamp_min(1e-8)

    def _size(self, error: Tensor, weight: Tensor) -> Tensor:
        if self.envelope == 1:
            return (error.square() * self.audible * weight).sum()
        with torch.autocast(error.device.type, enabled=False):
            return ((error.float() @ self.weights.T).square() * weight).sum()


def _mel_filters(sample_rate: int, length: int, bands: int) -> Float[Tensor, "F bands"]:
    """Triangular filters, HTK scale, of the spectra of windows of `length` samples."""
    import torchaudio  # here: `csm train --help` answers without it

    filters: Tensor = torchaudio.functional.melscale_fbanks(
        length // 2 + 1, 0.0, sample_rate / 2, bands, sample_rate, norm=None, mel_scale="htk"
    )
    return filters
