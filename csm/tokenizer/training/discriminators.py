"""Discriminators of decoded and original waveforms, of their magnitudes, or of a vocoder's features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class PeriodDiscriminator(nn.Module):
    """Convolutions over the waveform folded at a period. Source: HiFi-GAN (Kong et al. 2020).

    Args:
        period: Samples of one row.
        widths: Channels of each layer.
    """

    def __init__(self, period: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.period = period
        channels = [1, *widths]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0)))
            for a, b in zip(channels, channels[1:], strict=False)
        )
        self.output = weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, waveform: Float[Tensor, "B 1 S"]) -> list[Tensor]:
        """Returns the feature maps of every layer; the last is the discriminator output."""
        x = F.pad(waveform, (0, -waveform.shape[-1] % self.period))
        x = x.reshape(x.shape[0], 1, -1, self.period)
        maps = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            maps.append(x)
        return [*maps, self.output(x)]


class TimeFrequencyLayers(nn.Module):
    """Convolutions over time and frequency. Source: EnCodec's discriminators (Defossez et al. 2022).

    The first layer already halves the bins, which costs a quarter of EnCodec's full-size first layers.

    Args:
        channels: Channels of the input.
        width: Channels of every layer.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        kernels = [
            ((3, 9), (1, 2), 1),
            ((3, 9), (1, 2), 1),
            ((3, 9), (1, 2), 2),
            ((3, 9), (1, 2), 4),
            ((3, 3), (1, 1), 1),
        ]
        widths = [channels, *[width] * len(kernels)]
        self.layers = nn.ModuleList(
            weight_norm(
                nn.Conv2d(
                    a,
                    b,
                    kernel,
                    stride,
                    (dilation * (kernel[0] // 2), kernel[1] // 2),
                    dilation=(dilation, 1),
                )
            )
            for a, b, (kernel, stride, dilation) in zip(widths, widths[1:], kernels, strict=False)
        )
        self.output = weight_norm(nn.Conv2d(width, 1, (3, 3), padding=(1, 1)))

    def forward(self, x: Float[Tensor, "B C T N"]) -> list[Tensor]:
        """Returns the feature maps of every layer; the last is the discriminator output."""
        maps = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            maps.append(x)
        return [*maps, self.output(x)]


class SpectrumDiscriminator(TimeFrequencyLayers):
    """Convolutions over the complex STFT at one resolution.

    Args:
        window_length: Length of the window in samples; the hop is a quarter of it.
        width: Channels of every layer.
    """

    window: Tensor

    def __init__(self, window_length: int, width: int) -> None:
        super().__init__(2, width)
        self.window_length = window_length
        self.register_buffer("window", torch.hann_window(window_length), persistent=False)

    def forward(self, waveform: Float[Tensor, "B 1 S"]) -> list[Tensor]:
        """Returns the feature maps of every layer; the last is the discriminator output."""
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.stft(
                waveform[:, 0].float(),
                self.window_length,
                self.window_length // 4,
                window=self.window,
                normalized=True,
                return_complex=True,
            )
        return super().forward(torch.view_as_real(spectrum).permute(0, 3, 2, 1))


class MagnitudeDiscriminators(nn.Module):
    """Discriminators of compressed magnitudes, for a decoder whose phases are recovered afterwards.

    No gradient passes through recovered phases, and phases are not what its sound lacks (docs/LOG.md).

    Args:
        scales: Factors by which time and frequency are averaged before each discriminator.
        width: Channels of every layer.
    """

    def __init__(self, scales: Sequence[int] = (1, 2, 4), width: int = 16) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.discriminators = nn.ModuleList(TimeFrequencyLayers(1, width) for _ in scales)

    def forward(self, magnitudes: Float[Tensor, "B T N"]) -> list[list[Tensor]]:
        """Returns the feature maps of each discriminator; the last is its output."""
        x = magnitudes.unsqueeze(1)
        return [
            layers(x if scale == 1 else F.avg_pool2d(x, scale))
            for layers, scale in zip(self.discriminators, self.scales, strict=True)
        ]


class FeatureDiscriminators(nn.Module):
    """Discriminators of the features that a vocoder speaks from.

    A regression averages over what codes do not determine, so that its features move less from step to step
    than those of recordings; a vocoder makes dull speech of them (docs/LOG.md). Convolutions are over time
    alone: neighbouring cepstral coefficients are no more alike than distant ones.

    Args:
        channels: Features of a step.
        scales: Steps that are averaged before each discriminator.
        width: Channels of every layer.
    """

    def __init__(self, channels: int, scales: Sequence[int] = (1, 2), width: int = 64) -> None:
        super().__init__()
        self.scales = tuple(scales)
        layers = [(channels, width, 5, 1), (width, width, 5, 2), (width, width, 5, 2), (width, width, 3, 1)]
        self.discriminators = nn.ModuleList(
            nn.Sequential(
                *(
                    weight_norm(nn.Conv1d(a, b, kernel, stride, kernel // 2))
                    for a, b, kernel, stride in [*layers, (width, 1, 3, 1)]
                )
            )
            for _ in self.scales
        )

    def forward(self, features: Float[Tensor, "B T C"]) -> list[list[Tensor]]:
        """Returns the feature maps of each discriminator; the last is its output."""
        outputs = []
        for discriminator, scale in zip(self.discriminators, self.scales, strict=True):
            x = features.transpose(1, 2)
            x, maps = (x if scale == 1 else F.avg_pool1d(x, scale)), []
            *layers, output = discriminator.children()
            for layer in layers:
                x = F.leaky_relu(layer(x), 0.1)
                maps.append(x)
            outputs.append([*maps, output(x)])
        return outputs


class Discriminators(nn.Module):
    """Multi-period and multi-scale complex-STFT discriminators together.

    Args:
        periods: Fold lengths in samples; primes, so that they overlap little.
        windows: STFT window lengths in samples.
        width: Channels of the STFT discriminators and of the period discriminators' first layer.
    """

    def __init__(
        self,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        windows: Sequence[int] = (512, 256, 128),
        width: int = 16,
    ) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width, 8 * width)
        self.discriminators = nn.ModuleList(
            [
                *(PeriodDiscriminator(p, widths) for p in periods),
                *(SpectrumDiscriminator(w, width) for w in windows),
            ]
        )

    def forward(self, waveform: Float[Tensor, "B 1 S"]) -> list[list[Tensor]]:
        """Returns the feature maps of each discriminator; the last is its output."""
        return [discriminator(waveform) for discriminator in self.discriminators]
