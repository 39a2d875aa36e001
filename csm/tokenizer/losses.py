"""What the tokenizer is trained on, each part named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torchaudio
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from csm.tokenizer.magnitude_head import magnitudes


@dataclass(frozen=True, kw_only=True)
class TokenizerLossConfig:
    """Weights of the parts; 0 leaves a part out.

    Attributes:
        mel: L1 of log-mel spectrograms over several window lengths (DAC's main loss), or for a decoder whose
            phases are recovered of the decoder's own STFT frames: no waveform is made then.
        magnitude: L1 of linear magnitudes over the same windows: keeps loud harmonics in place. Where phases
            are recovered: share of the variance of compressed magnitudes that is not explained.
        commitment: Distance of the projections from their code vectors.
        isotropy: Latents varying in all directions instead of a few.
        text: CTC on the semantic codebooks' sum.
        speaker: Telling the training speakers apart.
        reversal: Keeping them from being told apart by the semantic codebooks' mean (Ganin & Lempitsky 2015).
        emotion: Giving the utterance's prosody statistics back.
        distillation: Giving the features of a teacher, where there is one, from the semantic codebooks' sum.
        adversarial: Size of the judges' gradient before the decoder's head relative to the spectral losses',
            from step `adversarial_start` on; 0 trains without judges.
        judged: Share of a shard's items that the judges hear: they cost more than the tokenizer.
        feature_matching: Weight of feature matching beside the judges' verdict, inside their part.
        condition_dropout: Share of items decoded without speaker and emotion, so that codes alone suffice.
        quantizer_dropout: Share of items that use only a first part of the codebooks.
        bypass: Share of items decoded from the unquantized latent.
        decay, revive_below: Of the codebooks' moving average; dead is below this share of uniform usage.
    """

    mel: float = 1.0
    magnitude: float = 0.3
    commitment: float = 0.25
    isotropy: float = 0.02
    text: float = 0.2
    speaker: float = 0.2
    reversal: float = 0.05
    emotion: float = 0.2
    distillation: float = 1.0
    adversarial: float = 0.0
    feature_matching: float = 4.0
    adversarial_start: int = 0
    judged: float = 1.0
    condition_dropout: float = 0.3
    quantizer_dropout: float = 0.5
    bypass: float = 0.4
    decay: float = 0.98
    revive_below: float = 0.02

    def __post_init__(self) -> None:
        for name in ("condition_dropout", "quantizer_dropout", "bypass"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected a share from 0 to 1")
        if not 0 < self.judged <= 1:
            raise ValueError(f"judged is {self.judged}: expected a share above 0, at most 1")


class _Magnitude(torch.autograd.Function):
    """sqrt(|rfft(frames)|^2 + 1e-9), with a backward by one inverse real FFT.

    torch's own backward of rfft is a complex FFT of twice the size, and its many small passes over the
    spectrum cost more than the transform. Together the spectral losses take 0.43 of the time on one CPU
    thread.
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
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Compares waveforms, full scale = 1.

        Args:
            output: [B, S], the decoded.
            target: [B, S], the original.
            share: Share of samples, above 0 to 1, that are not zeroed padding on both sides.

        Returns:
            (mel, magnitude), scalars: mean distance of natural log-mel bands and of square roots of
            magnitudes.

        Raises:
            ValueError: The shapes differ, or S is shorter than the longest window.
        """
        if output.shape != target.shape or output.ndim != 2 or output.shape[1] < max(self.lengths):
            raise ValueError(
                f"output {tuple(output.shape)} and target {tuple(target.shape)}: expected two of one shape "
                f"[B, S] with S >= {max(self.lengths)}, the longest window"
            )
        mel_total, magnitude_total = output.new_zeros(()), output.new_zeros(())
        for index in range(len(self.lengths)):
            # Apart, not in one batch: nothing is differentiated through the target.
            mel, compressed = self._features(output, index)
            mel_target, compressed_target = self._features(target, index)
            mel_total = mel_total + F.l1_loss(mel, mel_target)
            magnitude_total = magnitude_total + F.l1_loss(compressed, compressed_target)
        return mel_total / len(self.lengths) / share, magnitude_total / len(self.lengths) / share

    def _features(self, waveform: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Log-mel bands [B, frames, bands] and roots of magnitudes [B, frames, bins] of one resolution."""
        length = self.lengths[index]
        window, filters = self.get_buffer(f"window{index}"), self.get_buffer(f"filters{index}")
        magnitude = _Magnitude.apply(waveform.float().unfold(-1, length, length // 4) * window)
        return (magnitude @ filters + 1e-5 * length).log(), magnitude.sqrt()


def audibility(sample_rate: int, window_length: int) -> Float[Tensor, " N"]:
    """Weights [bins] of the STFT bins' squared errors, 1 at 0 Hz and falling as critical bands widen.

    A bin counts as 600 / (600 + f) to the power 1.4: critical bands are about as wide at f as (600 + f) / 600
    times those at 0 Hz (Traunmueller 1990, simplified); of powers 0, 1 and 2 PESQ liked 1 best, and 1.4 was
    then kept (principal components alone, docs/LOG.md).
    """
    frequency = torch.arange(window_length // 2 + 1) * (sample_rate / window_length)
    return (600 / (600 + frequency)).pow(1.4)


class MagnitudeLoss(nn.Module):
    """Distances of predicted STFT magnitudes from a recording's, at the decoder's own resolution.

    Args:
        sample_rate: Hz.
        window_length: Samples of the STFT's window.
        bands: Mel bands that are compared.
    """

    audible: Tensor
    filters: Tensor

    def __init__(self, sample_rate: int, window_length: int, bands: int = 40) -> None:
        super().__init__()
        self.window_length = window_length
        filters = torchaudio.functional.melscale_fbanks(
            window_length // 2 + 1, 0.0, sample_rate / 2, bands, sample_rate, norm=None, mel_scale="htk"
        )
        self.register_buffer("filters", filters[:, filters.sum(dim=0) > 0], persistent=False)
        self.register_buffer("audible", audibility(sample_rate, window_length), persistent=False)

    def forward(
        self,
        predicted: Float[Tensor, "B T N"],
        target: Float[Tensor, "B T N"],
        weight: Float[Tensor, "B T"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Compares compressed magnitudes.

        Args:
            predicted, target: [B, T, bins], magnitudes to the power COMPRESSION; predicted of any sign.
            weight: [B, T], 0 on padding.

        Returns:
            (mel, magnitude), scalars: mean distance of natural log-mel bands; and squared error of the
            compressed magnitudes, weighted by `audibility`, over their variance about the batch's mean.
        """
        weight = weight.unsqueeze(-1)
        total = weight.sum().clamp_min(1)
        mean = (target * weight).sum(dim=(0, 1)) / total
        error, variance = (
            ((target - other).square() * self.audible * weight).sum() for other in (predicted, mean)
        )
        floor = 1e-5 * self.window_length
        a, b = ((magnitudes(size) @ self.filters + floor).log() for size in (predicted, target))
        mel = ((a - b).abs().mean(dim=-1, keepdim=True) * weight).sum() / total
        return mel, error / variance.clamp_min(1e-8)


def distillation_loss(
    output: Float[Tensor, "B T C"], target: Float[Tensor, "B T C"], mask: Bool[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """1 - cosine of a student's features and its teacher's, mean over frames (Mimi, Defossez et al. 2024).

    Args:
        output: [B, T, C], the student's.
        target: [B, T, C], the teacher's.
        mask: bool [B, T], frames that count.

    Returns:
        Scalar, 0 to 2; 0 where no frame counts.
    """
    distance = 1 - F.cosine_similarity(output.float(), target.float(), dim=-1)
    return (distance * mask).sum() / mask.sum().clamp_min(1)


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
