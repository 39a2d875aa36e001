"""The semantic encoder in operations that every runtime has, for any length: a part of `EncoderProgram`."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from csm.tokenizer.semantic.log_mel import FLOOR
from csm.tokenizer.semantic.semantic_encoder import SemanticEncoder
from csm.tokenizer.semantic.speech_encoder import STEPS_PER_FRAME, BlockCausalLayer

# Log-mel steps of 10 ms in a frame; hops that hold a window of two and a half.
MEL_STEPS, WINDOW_HOPS = 8, 3
# Score of a key that a query does not see. Finite: a query that sees none must not give NaN, which would
# spread through later layers.
UNSEEN = -1e9


class SemanticProgram(nn.Module):
    """Padded waveform to the rows of the semantic codebooks, as `SemanticEncoder.forward`.

    Args:
        encoder: Module whose weights are copied.
        fourier: Matrix float64 [N, 2 * bins] that replaces the FFT of the windows (for ONNX), or None.
    """

    window: Tensor
    filters: Tensor
    positions: Tensor
    fourier: Tensor | None

    def __init__(self, encoder: SemanticEncoder, fourier: Tensor | None) -> None:
        super().__init__()
        encoder = copy.deepcopy(encoder)
        self.hop, self.length = encoder.log_mel.hop, encoder.log_mel.length
        self.register_buffer("window", encoder.log_mel.window.clone())
        self.register_buffer("filters", encoder.log_mel.filters.clone())
        self.register_buffer("fourier", fourier)
        self.register_buffer("positions", encoder.encoder.positions.clone())
        self.conv1, self.conv2 = encoder.encoder.conv1, encoder.encoder.conv2
        layers = [layer for layer in encoder.encoder.layers if isinstance(layer, BlockCausalLayer)]
        self.layers = nn.ModuleList(BandedBlockLayer(layer) for layer in layers)
        self.norm, self.fold = encoder.encoder.norm, encoder.fold

    def forward(
        self, waveform: Float[Tensor, "B S"], frames: Int[Tensor, ""] | int
    ) -> Float[Tensor, "B T C"]:
        """Returns rows [B, T, C] of whole frames.

        Args:
            waveform: Samples, one frame of silence more than counts.
            frames: Frames that count.
        """
        x = F.gelu(self.conv2(F.gelu(self.conv1(self.log_mel(waveform)))))
        places = torch.arange(x.shape[1], device=x.device) % len(self.positions)
        x = x + F.embedding(places, self.positions)
        for layer in self.layers:
            x = layer(x, frames * STEPS_PER_FRAME)
        rows: Tensor = self.fold(self.norm(x).unflatten(1, (-1, STEPS_PER_FRAME)).flatten(2))
        return rows

    def log_mel(self, waveform: Float[Tensor, "B S"]) -> Float[Tensor, "B M 80"]:
        """Returns LogMel's features, windows built from hops."""
        batch, samples = waveform.shape
        steps = samples // self.hop
        padded = F.pad(waveform, ((WINDOW_HOPS - 1) * self.hop, 0))
        hops = padded.reshape(batch, steps + WINDOW_HOPS - 1, self.hop)
        windows = torch.cat([hops[:, i : i + steps] for i in range(WINDOW_HOPS)], dim=-1)
        windows = windows[..., -self.length :] * self.window
        if self.fourier is None:
            power = torch.view_as_real(torch.fft.rfft(windows)).square().sum(-1)
        else:
            parts = (windows.double() @ self.fourier).float().square()
            power = parts[..., : self.length // 2 + 1] + parts[..., self.length // 2 + 1 :]
        return ((power @ self.filters).clamp_min(10**FLOOR).log10() + 4) / 4


class BandedBlockLayer(nn.Module):
    """BlockCausalLayer of a whole signal without its loop: all parts of queries at once.

    The queries of a part attend to the keys of that part and of the one before it.

    Args:
        layer: Module whose weights are used.
    """

    mask: Tensor

    def __init__(self, layer: BlockCausalLayer) -> None:
        super().__init__()
        self.layer, self.part = layer, layer.part
        own = torch.arange(self.part).unsqueeze(1)
        block = own - own % layer.block
        places = torch.arange(2 * self.part) - self.part
        seen = (places < block + layer.block) & (places >= block - layer.past)
        self.register_buffer("mask", torch.zeros(seen.shape).masked_fill(~seen, UNSEEN))

    def forward(self, x: Float[Tensor, "B T D"], steps: Int[Tensor, ""] | int) -> Float[Tensor, "B T D"]:
        """Returns [B, T, D]; keys from `steps` on are seen by none."""
        layer = self.layer
        batch, length, width = x.shape
        # One part more than needed: tracing specialises a count that may be 1.
        count = length // self.part + 2
        spare = x.new_zeros(batch, count * self.part - length, 3 * width)
        rows = torch.cat([layer.qkv(layer.attention_norm(x)), spare], dim=1)
        shape = (batch, count, self.part, 3, layer.n_heads, width // layer.n_heads)
        q, k, v = rows.reshape(shape).permute(3, 0, 4, 1, 2, 5)
        keys, values = _with_part_before(k), _with_part_before(v)
        scores = q * (width // layer.n_heads) ** -0.5 @ keys.transpose(-1, -2) + self.mask
        place = torch.arange(2 * self.part, device=x.device) - self.part
        place = place + self.part * torch.arange(count, device=x.device).reshape(-1, 1, 1)
        scores = scores.masked_fill((place < 0) | (place >= steps), UNSEEN)
        seen = scores.softmax(-1) @ values
        attended = seen.permute(0, 2, 3, 1, 4).reshape(batch, count * self.part, width)[:, :length]
        x = x + layer.out(attended)
        out: Tensor = x + layer.down(F.gelu(layer.up(layer.feed_forward_norm(x))))
        return out


def _with_part_before(x: Tensor) -> Tensor:
    """[B, N, parts, P, H] -> [B, N, parts, 2 P, H]."""
    return torch.cat([F.pad(x, (0, 0, 0, 0, 1, 0))[:, :, :-1], x], dim=3)
