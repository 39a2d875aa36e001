"""Initialises a tokenizer as a linear codec: principal components of speech spectra, and k-means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.encoder import Encoder
from csm.tokenizer.latent_prediction import fit_prediction
from csm.tokenizer.layers import Downsample
from csm.tokenizer.training.spectral_losses import spectral_weights

# Rows that k-means uses for a codebook: more than 15 per vector for the packaged size.
KMEANS_ROWS = 16_384


@torch.no_grad()
def start_from_principal_components(
    tokenizer: ConversationalRVQ,
    clips: Iterable[tuple[Float[Tensor, "B 1 S"], Bool[Tensor, "B T"]]],
    generator: torch.Generator,
    *,
    envelope: float = 1.0,
) -> None:
    """Sets the linear path of encoder and decoder and all codebooks from recordings, in place.

    The compressed magnitudes of a codec frame, weighted by `spectral_weights`, are projected to their first
    principal components (no linear map of the same width loses less), and these are quantized by residual
    k-means. With the packaged sizes that alone is a codec of PESQ-WB 2.35 (16 clips, docs/LOG.md). Nonlinear
    blocks start at zero or small.

    Args:
        tokenizer: Tokenizer to initialise. Its decoder is set only where phases are recovered.
        clips: Batches of recordings [B, 1, S], S in whole frames, and which of their frames count, [B, T].
        generator: Random generator on the CPU, which draws the rows of k-means.
        envelope: Weight of the spectral envelope, as in `MagnitudeLoss`.

    Raises:
        ValueError: No frame counts.
    """
    config, encoder, decoder = tokenizer.config, tokenizer.encoder, tokenizer.decoder
    assert isinstance(encoder, Encoder)  # that of a vocoder's features has its own start
    spectrum = encoder.spectrum
    weight = spectral_weights(config.sample_rate, spectrum.window_length, envelope)
    weight = weight.to(spectrum.window.device).double()
    kept = [(audio, counted) for audio, counted in clips if bool(counted.any())]
    if not kept:
        raise ValueError(
            "no frames to start a tokenizer from: expected recordings of at least one frame; check the corpus"
        )
    blocks = torch.cat(
        [
            spectrum.compressed(spectrum(audio[:, 0]))
            .unflatten(1, (-1, config.hops_per_frame))
            .flatten(2)[ok]
            for audio, ok in kept
        ]
    )
    mean = blocks.double().mean(dim=0)
    hops = config.hops_per_frame
    centred = _weighted(blocks - mean.float(), weight.float(), hops).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    width = encoder.shortcut.out_features
    count = min(width, len(values))
    vectors, values = vectors.flip(1)[:, :count], values.flip(0)[:count].clamp_min(0)
    # Latents of mean variance 1, as initial weights and losses elsewhere assume.
    scale = float(values.mean().clamp_min(1e-12).rsqrt())
    to_latent = scale * _weighted(vectors.T, weight.T, hops)
    _set_linear(encoder.shortcut, to_latent, -(to_latent @ mean))
    last = [module for module in encoder.stages if isinstance(module, Downsample)][-1]
    _set_linear(last.project)
    quantizer = tokenizer.quantizer
    pairs = [(quantizer.acoustic_in, quantizer.acoustic_out)]
    if quantizer.semantic_in is not None:
        pairs.append((quantizer.semantic_in, quantizer.semantic_out))
    for into, out in pairs:
        _set_linear(into, torch.eye(into.out_features, width))
        _set_linear(out, torch.eye(width, into.out_features))
    if config.recover_phase:
        _set_linear(decoder.embed, torch.eye(decoder.embed.out_features, width))
        head = decoder.magnitude_head
        back = _weighted(vectors.T, torch.linalg.inv(weight), hops).T / scale
        from_latent = back[:, : head.frame.in_features]
        _set_linear(head.frame, from_latent, mean)
        _set_linear(head.correction)
    _fit_codebooks(tokenizer, kept, generator)


def _fit_codebooks(
    tokenizer: ConversationalRVQ, kept: Sequence[tuple[Tensor, Tensor]], generator: torch.Generator
) -> None:
    """Fits prediction and codebooks to the latents that the linear path gives."""
    quantizer = tokenizer.quantizer
    latents = torch.cat([tokenizer.encoder(audio[:, 0])[0][counted] for audio, counted in kept])
    rows = torch.randperm(len(latents), generator=generator)[:KMEANS_ROWS].to(latents.device)
    if quantizer.semantic_in is not None:
        quantizer.fit(latents[rows], generator)
        return
    prediction = quantizer.semantic_out
    windows = torch.cat(
        [
            prediction.windows(quantizer.semantic_sums(_semantic_rows(tokenizer, audio)))[counted]
            for audio, counted in kept
        ]
    )
    fit_prediction(prediction, windows, quantizer.acoustic_in(latents), generator)
    quantizer.fit(latents[rows], generator, predicted=prediction.predicted(windows[rows]))


def _weighted(rows: Float[Tensor, "N M"], weight: Float[Tensor, "B B"], hops: int) -> Tensor:
    """Multiplies the spectra of each of `hops` STFT frames in rows [N, hops * bins] by a matrix."""
    return (rows.unflatten(1, (hops, -1)) @ weight.T).flatten(1)


def _semantic_rows(tokenizer: ConversationalRVQ, audio: Tensor) -> Tensor:
    rows = tokenizer.semantic_rows(audio[:, 0])
    assert rows is not None
    return rows


def _set_linear(layer: nn.Linear, weight: Tensor | None = None, bias: Tensor | None = None) -> None:
    """Writes weight and bias into the layer's first rows, columns and entries, and zeros elsewhere."""
    layer.weight.zero_()
    if layer.bias is not None:
        layer.bias.zero_()
    if weight is not None:
        layer.weight[: len(weight), : weight.shape[1]] = weight.to(layer.weight)
    if bias is not None:
        layer.bias[: len(bias)] = bias.to(layer.bias)
