"""Encoder and decoder in operations that every runtime has, for any length: the modules that `export` traces.

Parts that cannot be traced with a dynamic length, or have no ONNX operator, are written here in plain tensor
operations: the window attention's loop, the STFT, the codebook search and the sum of code vectors. Their
weights are the tokenizer's.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from csm.tokenizer.codebook import CodebookStack
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.encoder import Encoder
from csm.tokenizer.io.semantic_program import SemanticProgram
from csm.tokenizer.phase_recovery import PhaseRecovery
from csm.tokenizer.spectrum import MAX_LOG_MAGNITUDE, OverlapAdd, spectral_features
from csm.tokenizer.transformer import TransformerLayer, WindowAttention


class BandedAttention(nn.Module):
    """WindowAttention of a whole signal without its loop: all windows of queries at once.

    The queries of one window attend to its own keys and those of the window before it, so that memory grows
    with T * window here too.

    Args:
        attention: Module whose weights are used.
    """

    bias: Tensor

    def __init__(self, attention: WindowAttention) -> None:
        super().__init__()
        self.qkv, self.out = attention.qkv, attention.out
        self.n_heads, self.window = attention.n_heads, attention.window
        bias = attention._bias(self.window, self.window, 2 * self.window)
        self.register_buffer("bias", bias.detach().unsqueeze(1))  # [N, 1, window, 2 * window]

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """[B, T, C] -> [B, T, C]."""
        batch, steps, width = x.shape
        # One window more than needed: tracing specialises a count that may be 1.
        count = steps // self.window + 2
        head = width // self.n_heads
        spare = x.new_zeros(batch, count * self.window - steps, 3 * width)
        rows = torch.cat([self.qkv(x), spare], dim=1)
        q, k, v = rows.reshape(batch, count, self.window, 3, self.n_heads, head).permute(3, 0, 4, 1, 2, 5)
        keys, values = self._with_window_before(k), self._with_window_before(v)
        scores = q * head**-0.5 @ keys.transpose(-1, -2) + self.bias
        # Keys before the first window do not exist: they are masked, not zeros.
        place = torch.arange(2 * self.window, device=x.device)
        first = torch.arange(count, device=x.device).reshape(-1, 1, 1) == 0
        scores = scores.masked_fill(first & (place < self.window), float("-inf"))
        seen = scores.softmax(-1) @ values
        out = seen.permute(0, 2, 3, 1, 4).reshape(batch, count * self.window, width)
        return self.out(out[:, :steps])

    @staticmethod
    def _with_window_before(x: Tensor) -> Tensor:
        """[B, N, windows, W, H] -> [B, N, windows, 2 W, H]."""
        return torch.cat([F.pad(x, (0, 0, 0, 0, 1, 0))[:, :, :-1], x], dim=3)


class EncoderProgram(nn.Module):
    """audio [B, 1, S] -> codes [B, K, T], as `ConversationalRVQ.encode` without its checks.

    Args:
        tokenizer: Tokenizer whose weights are copied.
        num_codebooks: K, a prefix of the codebooks.
        fourier_matrix: Whether the STFT is a matrix product in float64 (for ONNX) instead of an FFT.
    """

    window: Tensor
    fourier: Tensor

    def __init__(self, tokenizer: ConversationalRVQ, num_codebooks: int, *, fourier_matrix: bool) -> None:
        super().__init__()
        encoder = copy.deepcopy(tokenizer.encoder)
        assert isinstance(encoder, Encoder)  # a vocoder's tokenizer is refused before
        self.samples_per_frame = tokenizer.config.samples_per_frame
        self.hops_per_frame = tokenizer.config.hops_per_frame
        self.hop, self.window_hops = encoder.spectrum.hop, tokenizer.config.window_hops
        self.embed, self.stages, self.shortcut = encoder.embed, encoder.stages, encoder.shortcut
        self.blocks, self.compressed = _banded(encoder.blocks), encoder.spectrum.compressed
        self.register_buffer("window", encoder.spectrum.window.clone())
        if fourier_matrix:
            self.register_buffer("fourier", _fourier(len(self.window)).to(self.window.device))
        self.fourier_matrix = fourier_matrix
        quantizer = copy.deepcopy(tokenizer.quantizer)
        first = min(num_codebooks, quantizer.semantic_codebooks)
        self.semantic_in, self.semantic_out = quantizer.semantic_in, quantizer.semantic_out
        self.semantic_encoder: SemanticProgram | None = None
        if tokenizer.semantic_encoder is not None:
            length = tokenizer.semantic_encoder.log_mel.length
            matrix = _fourier(length).to(self.window.device) if fourier_matrix else None
            self.semantic_encoder = SemanticProgram(tokenizer.semantic_encoder, matrix)
        self.acoustic_in = quantizer.acoustic_in
        self.semantic = PlainSearch(quantizer.semantic, first)
        self.acoustic = PlainSearch(quantizer.acoustic, num_codebooks - first)

    def forward(self, audio: Float[Tensor, "B 1 S"]) -> Int[Tensor, "B K T"]:
        """Returns codes int64 [B, K, T], T = ceil(S / samples_per_frame)."""
        padded = self.padded(audio[:, 0])
        features = self.features(padded)
        compressed = self.compressed(features).unflatten(1, (-1, self.hops_per_frame)).flatten(2)
        latent = self.blocks(self.stages(self.embed(features)) + self.shortcut(compressed))
        batch, steps, width = latent.shape
        rows = latent.reshape(batch * steps, width)
        if self.semantic_encoder is not None:
            semantic_rows = self.semantic_encoder(padded, steps - 1).reshape(batch * steps, -1)
        else:
            assert self.semantic_in is not None
            semantic_rows = self.semantic_in(rows)
        semantic, codes = self.semantic(semantic_rows)
        if len(self.acoustic.tables):
            predicted = self.semantic_out(semantic.reshape(batch, steps, -1)).flatten(0, 1)
            if self.semantic_encoder is None:
                remainder = self.acoustic_in(rows - predicted)
            else:
                remainder = self.acoustic_in(rows) - predicted
            codes = torch.cat([codes, self.acoustic(remainder)[1]], dim=1)
        return codes.reshape(batch, steps, -1)[:, :-1].transpose(1, 2)

    def padded(self, waveform: Float[Tensor, "B S"]) -> Float[Tensor, "B S2"]:
        """Returns the waveform padded to whole frames and one frame of silence.

        The model is causal, so that the extra frame changes no other. Without it tracing would specialise the
        number of frames, which may be 1.
        """
        batch, samples = waveform.shape
        frames = (samples + self.samples_per_frame - 1) // self.samples_per_frame + 1
        spare = waveform.new_zeros(batch, frames * self.samples_per_frame - samples)
        return torch.cat([waveform, spare], dim=1)

    def features(self, waveform: Float[Tensor, "B S"]) -> Float[Tensor, "B T2 C"]:
        """Returns SpectralFrames' features of whole frames."""
        batch, samples = waveform.shape
        steps = samples // self.hop
        padded = F.pad(waveform, ((self.window_hops - 1) * self.hop, 0))
        hops = padded.reshape(batch, steps + self.window_hops - 1, self.hop)
        windows = torch.cat([hops[:, i : i + steps] for i in range(self.window_hops)], dim=-1) * self.window
        if self.fourier_matrix:
            product = (windows.double() @ self.fourier).float()
            real, imaginary = (
                product[..., : len(self.window) // 2 + 1],
                product[..., len(self.window) // 2 + 1 :],
            )
            magnitude = (real.square() + imaginary.square()).sqrt()
            return spectral_features(torch.stack([real, imaginary], dim=-1), magnitude)
        spectrum = torch.fft.rfft(windows)
        return spectral_features(torch.view_as_real(spectrum), spectrum.abs())


class PlainSearch(nn.Module):
    """`rvq_search` in plain operations: rows [N, D] -> sum of the chosen vectors [N, D] and codes [N, Q].

    Args:
        stack: Codebooks that are copied.
        count: Q, a prefix of the codebooks.
    """

    tables: Tensor
    half_norms: Tensor

    def __init__(self, stack: CodebookStack, count: int) -> None:
        super().__init__()
        self.register_buffer("tables", stack.codebooks[:count].clone())
        self.register_buffer("half_norms", 0.5 * self.tables.square().sum(-1))

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Chooses at each level the vector that is nearest to the residual of the levels before it."""
        residual, codes = rows, []
        for table, half_norms in zip(self.tables.unbind(), self.half_norms.unbind(), strict=True):
            codes.append((half_norms - residual @ table.T).argmin(dim=1))
            residual = residual - F.embedding(codes[-1], table)
        return rows - residual, torch.stack(codes, dim=1)


class DecoderProgram(nn.Module):
    """codes [B, K, T] -> audio [B, 1, S], as `ConversationalRVQ.decode` of codes alone without its checks.

    Where phases are recovered, the output is magnitudes [B, T * hops_per_frame, bins], the input of
    `PhaseRecovery`: its blocks depend on each other, and a graph of dynamic length holds no such loop.

    Args:
        tokenizer: Tokenizer whose weights are copied.
        num_codebooks: K, a prefix of the codebooks.
        fourier_matrix: Whether the inverse STFT is a matrix product (for ONNX) instead of an FFT.
    """

    table: Tensor
    offsets: Tensor
    window: Tensor
    fourier: Tensor

    def __init__(self, tokenizer: ConversationalRVQ, num_codebooks: int, *, fourier_matrix: bool) -> None:
        super().__init__()
        decoder, quantizer = copy.deepcopy(tokenizer.decoder), copy.deepcopy(tokenizer.quantizer)
        self.first = min(num_codebooks, quantizer.semantic_codebooks)
        books = torch.cat([quantizer.semantic.codebooks, quantizer.acoustic.codebooks])[:num_codebooks]
        self.register_buffer("table", books.flatten(0, 1).clone())
        offsets = torch.arange(num_codebooks, device=books.device) * books.shape[1]
        self.register_buffer("offsets", offsets)
        self.semantic_out, self.acoustic_out = quantizer.semantic_out, quantizer.acoustic_out
        self.predicts = quantizer.predicts
        self.embed, self.blocks, self.norm = decoder.embed, _banded(decoder.blocks), decoder.norm
        self.frame_blocks = decoder.frame_blocks
        assert isinstance(decoder.head, OverlapAdd | PhaseRecovery)
        self.hop, self.window_hops = decoder.head.hop, decoder.head.window_hops
        self.hops_per_frame = tokenizer.config.hops_per_frame
        self.register_buffer("window", decoder.head.window.clone())
        self.recover_phase = tokenizer.config.recover_phase
        if self.recover_phase:
            self.magnitude_head = decoder.magnitude_head
        else:
            self.project = cast(nn.Linear, decoder.head.project)
        self.fourier_matrix = fourier_matrix and not self.recover_phase
        if self.fourier_matrix:
            self.register_buffer("fourier", _inverse_fourier(len(self.window)).to(self.window.device))

    def forward(self, codes: Int[Tensor, "B K T"]) -> Tensor:
        """Returns the waveform [B, 1, T * samples_per_frame] or magnitudes [B, T * hops_per_frame, bins]."""
        # One extra frame, as in the encoder; its output is dropped before frames are added up.
        codes = F.pad(codes, (0, 1))
        vectors = F.embedding(codes.transpose(1, 2) + self.offsets, self.table)
        latent = self.semantic_out(vectors[:, :, : self.first].sum(dim=2))
        acoustic = vectors[:, :, self.first :].sum(dim=2)
        if self.predicts:
            latent = self.acoustic_out(latent + acoustic)
        elif self.first < len(self.offsets):
            latent = latent + self.acoustic_out(acoustic)
        frames = self.blocks[: self.frame_blocks](self.embed(latent))
        features = self.norm(self.blocks[self.frame_blocks :](frames))
        if self.recover_phase:
            head = self.magnitude_head
            return head.linear_magnitudes(head(frames, features))[:, : -self.hops_per_frame]
        frames = (self.frames(features) * self.window)[:, : -self.hops_per_frame]
        batch, steps, _ = frames.shape
        parts = frames.reshape(batch, steps, self.window_hops, self.hop)
        total = F.pad(parts[:, :, 0], (0, 0, 0, self.window_hops - 1))
        for offset in range(1, self.window_hops):
            total = total + F.pad(parts[:, :, offset], (0, 0, offset, self.window_hops - 1 - offset))
        # OverlapAdd leaves out the hops before the first frame as its delay.
        return total[:, self.window_hops - 1 :].reshape(batch, 1, steps * self.hop)

    def frames(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T N"]:
        """Returns time-domain frames of the head's features, before windowing."""
        log_magnitude, phase = self.project(x).chunk(2, dim=-1)
        magnitude = log_magnitude.clamp(max=MAX_LOG_MAGNITUDE).exp()
        if self.fourier_matrix:
            spectrum = torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=-1)
            return spectrum @ self.fourier
        return torch.fft.irfft(torch.polar(magnitude, phase), n=len(self.window))


def _banded(blocks: nn.Sequential) -> nn.Sequential:
    for block in blocks:
        if isinstance(block, TransformerLayer):
            block.add_module("attention", BandedAttention(block.attention))
    return blocks


def _fourier(length: int) -> Tensor:
    """Returns the matrix float64 [N, 2 * bins] by which frames become real and imaginary parts of rfft."""
    spectrum = torch.fft.rfft(torch.eye(length, dtype=torch.float64))
    return torch.cat([spectrum.real, spectrum.imag], dim=1)


def _inverse_fourier(length: int) -> Tensor:
    """Returns the matrix fp32 [2 * bins, N] by which real and imaginary parts become irfft's frames."""
    unit = torch.eye(length // 2 + 1, dtype=torch.float64)
    real = torch.fft.irfft(torch.complex(unit, torch.zeros_like(unit)), n=length)
    imaginary = torch.fft.irfft(torch.complex(torch.zeros_like(unit), unit), n=length)
    return torch.cat([real, imaginary]).float()
