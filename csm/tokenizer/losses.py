"""What the tokenizer is trained on, each part named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torchaudio
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@dataclass(frozen=True, kw_only=True)
class TokenizerLossConfig:
    """Weights of the parts; 0 leaves a part out.

    Attributes:
        mel: L1 of log-mel spectrograms over several window lengths (DAC's main loss).
        magnitude: L1 of linear magnitudes over the same windows: keeps loud harmonics in place.
        phase: L1 of complex spectra over the same windows, relative to their size: the wave itself, where it
            is loud.
        commitment: Distance of the projections from their code vectors.
        isotropy: Latents varying in all directions instead of a few.
        text: CTC on the semantic codebooks' sum.
        speaker: Telling the training speakers apart.
        reversal: Keeping them from being told apart by the semantic codebooks' mean (Ganin & Lempitsky 2015).
        emotion: Giving the utterance's prosody statistics back.
        adversarial: Size of the judges' gradient before the decoder's head relative to the spectral losses',
            from step `adversarial_start` on; 0 trains without judges.
        judged: Share of a shard's items that the judges hear: they cost more than the tokenizer.
        feature_matching: Weight of feature matching beside the judges' verdict, inside their part.
        condition_dropout: Share of items decoded without speaker and emotion, so that codes alone suffice.
        quantizer_dropout: Share of items that use only a first part of the codebooks.
        bypass: Share of items decoded from the unquantized latent.
        decay, revive_below: Of the codebooks' moving average; dead is below this share of uniform usage.
        revive_every: Steps between revivals (every step during the first 200).
    """

    mel: float = 1.0
    magnitude: float = 0.3
    phase: float = 0.0
    commitment: float = 0.25
    isotropy: float = 0.02
    text: float = 0.2
    speaker: float = 0.2
    reversal: float = 0.05
    emotion: float = 0.2
    adversarial: float = 0.0
    feature_matching: float = 4.0
    adversarial_start: int = 0
    judged: float = 1.0
    condition_dropout: float = 0.3
    quantizer_dropout: float = 0.5
    bypass: float = 0.4
    decay: float = 0.98
    revive_below: float = 0.02
    revive_every: int = 10

    def __post_init__(self) -> None:
        for name in ("condition_dropout", "quantizer_dropout", "bypass"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected a share from 0 to 1")
        if not 0 < self.judged <= 1:
            raise ValueError(f"judged is {self.judged}: expected a share above 0, at most 1")


class _Spectrum(torch.autograd.Function):
    """X = rfft(frames) and its magnitude sqrt(|X|^2 + 1e-9), with one inverse real FFT backward.

    torch's own backward of rfft is a complex FFT of twice the size, and its many small passes over the
    spectrum cost more than the transform.
    """

    @staticmethod
    def forward(ctx: Any, frames: Tensor) -> tuple[Tensor, Tensor]:
        spectrum = torch.view_as_real(torch.fft.rfft(frames))
        magnitude = spectrum.square().sum(-1).add_(1e-9).sqrt_()
        ctx.length = frames.shape[-1]
        ctx.save_for_backward(magnitude, spectrum)
        return magnitude, spectrum

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_magnitude: Tensor, of_spectrum: Tensor) -> Tensor:
        magnitude, spectrum = ctx.saved_tensors
        gradient = torch.addcmul(of_spectrum, spectrum, (of_magnitude / magnitude).unsqueeze(-1))
        # irfft counts every bin but the first and the last twice.
        gradient[..., 1:-1, :] *= 0.5
        return torch.fft.irfft(torch.view_as_complex(gradient), n=ctx.length, norm="forward")


class SpectralLoss(nn.Module):
    """L1 of log-mel, of root magnitudes and of complex spectra over several resolutions.

    Source: multi-scale mel loss as in DAC (Kumar et al. 2023), window lengths from 6 to 93 ms.

    Args:
        sample_rate: Hz.
        windows_ms: Window lengths in ms, rounded to an even number of samples; the hop is a quarter.
    """

    def __init__(self, sample_rate: int, windows_ms: Sequence[float] = (6, 12, 23, 46, 93)) -> None:
        super().__init__()
        self.lengths = [2 * round(sample_rate * ms / 2000) for ms in windows_ms]
        for index, length in enumerate(self.lengths):
            # About one mel band per three bins for short windows, 80 at most.
            bands = max(5, min(80, length // 6))
            filters = torchaudio.functional.melscale_fbanks(
                length // 2 + 1, 0.0, sample_rate / 2, bands, sample_rate, norm=None, mel_scale="htk"
            )
            # Filters narrower than a bin are empty: they would add constant zeros to the mean.
            self.register_buffer(f"filters{index}", filters[:, filters.sum(dim=0) > 0], persistent=False)
            self.register_buffer(f"window{index}", torch.hann_window(length), persistent=False)

    def forward(
        self,
        output: Float[Tensor, "B S"],
        target: Float[Tensor, "B S"],
        share: Float[Tensor, ""] | float = 1.0,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
        """Compares waveforms, full scale = 1.

        Args:
            output: [B, S], the decoded.
            target: [B, S], the original.
            share: Share of samples, above 0 to 1, that are not zeroed padding on both sides.

        Returns:
            (mel, magnitude, phase), scalars: mean distance of natural log-mel bands, of square roots of
            magnitudes, and of complex bins relative to the target's mean magnitude.

        Raises:
            ValueError: The shapes differ, or S is shorter than the longest window.
        """
        if output.shape != target.shape or output.ndim != 2 or output.shape[1] < max(self.lengths):
            raise ValueError(
                f"output {tuple(output.shape)} and target {tuple(target.shape)}: expected two of one shape "
                f"[B, S] with S >= {max(self.lengths)}, the longest window"
            )
        totals = [output.new_zeros(()) for _ in range(3)]
        for index in range(len(self.lengths)):
            # Apart, not in one batch: nothing is differentiated through the target.
            mel, magnitude, spectrum = self._features(output, index)
            mel_target, magnitude_target, spectrum_target = self._features(target, index)
            totals[0] = totals[0] + F.l1_loss(mel, mel_target)
            totals[1] = totals[1] + F.l1_loss(magnitude, magnitude_target)
            totals[2] = totals[2] + _phase_distance(spectrum, spectrum_target)
        mel, magnitude, phase = (total / len(self.lengths) / share for total in totals)
        return mel, magnitude, phase

    def _features(self, waveform: Tensor, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Log-mel bands [B, frames, bands], roots of magnitudes and complex spectra of one resolution."""
        length = self.lengths[index]
        window, filters = self.get_buffer(f"window{index}"), self.get_buffer(f"filters{index}")
        frames = waveform.float().unfold(-1, length, length // 4) * window
        magnitude, spectrum = _Spectrum.apply(frames)
        return (magnitude @ filters + 1e-5 * length).log(), magnitude.sqrt(), spectrum


def _phase_distance(output: Float[Tensor, "*N 2"], target: Float[Tensor, "*N 2"]) -> Float[Tensor, ""]:
    """Mean distance of complex bins over the mean magnitude of the target's: 0 equal, 1 of silence."""
    difference = (output - target).square().sum(-1).add(1e-9).sqrt().mean()
    return difference / target.square().sum(-1).sqrt().mean().clamp_min(1e-3)


def discriminator_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Float[Tensor, ""]:
    """Hinge loss of the judges, mean over judges.

    Args:
        real, fake: What `Discriminator` returned for originals and for decoded audio.

    Returns:
        Scalar: 0 where every verdict is above 1 on real and below -1 on fake audio.
    """
    terms = [
        F.relu(1 - r[-1].float()).mean() + F.relu(1 + f[-1].float()).mean()
        for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()


def adversarial_loss(fake: list[list[Tensor]]) -> Float[Tensor, ""]:
    """What the decoder is told by the judges: hinge, mean over judges; a scalar, 0 where all are fooled."""
    return torch.stack([F.relu(1 - maps[-1].float()).mean() for maps in fake]).mean()


def feature_matching_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Float[Tensor, ""]:
    """L1 of the judges' feature maps relative to their size on real audio, mean over layers and judges."""
    terms = [
        (f.float() - r.detach().float()).abs().mean() / r.detach().float().abs().mean().clamp_min(1e-3)
        for real_maps, fake_maps in zip(real, fake, strict=True)
        for r, f in zip(real_maps[:-1], fake_maps[:-1], strict=True)
    ]
    return torch.stack(terms).mean()


def balanced_judges_loss(
    features: Float[Tensor, "B T C"], spectral: Float[Tensor, ""], judges: Float[Tensor, ""], ratio: float
) -> Float[Tensor, ""]:
    """A loss with the judges' gradient at `features`, scaled to `ratio` times the spectral losses' norm.

    Its value means nothing: only its gradient does. Source: the loss balancer of EnCodec (Defossez et al.
    2022, section 3.4), per step instead of averaged over steps, so that no state has to be kept, and before
    the decoder's head instead of at the waveform: there the spectral losses' gradient is mostly at bins so
    quiet that little of it reaches the parameters, and the judges drown the rest (docs/LOG.md).

    Args:
        features: [B, T, C], what the decoder's head reads, on which both losses depend.
        spectral: Scalar; its graph is kept for the step's own backward.
        judges: Scalar; its graph is freed but for what leads from the features.
        ratio: Above 0.

    Returns:
        Scalar.
    """
    (from_spectral,) = torch.autograd.grad(spectral, features, retain_graph=True)
    (from_judges,) = torch.autograd.grad(judges, features, retain_graph=True)
    scale = ratio * from_spectral.norm() / from_judges.norm().clamp_min(1e-12)
    return (features * (from_judges * scale).detach()).sum()
