"""Fits a tokenizer with a vocoder to recordings: weights of its features, prediction and codebooks."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.decoder import Decoder
from csm.tokenizer.feature_encoder import FeatureEncoder
from csm.tokenizer.latent_prediction import fit_prediction
from csm.tokenizer.vocoder_features import CEPSTRUM, PERIODICITY, PITCH, STEPS_PER_FRAME, WIDTH

# How much an error of each feature counts; those of the cepstrum are in decades of a band's energy. Between
# the two choices whose decoded speech had the best distillMOS and PESQ (docs/LOG.md): pitch counts most.
_WEIGHTS = {"energy": 0.7, "cepstrum": 1.0, PITCH: 8.0, PERIODICITY: 2.5, "high": 0.4}


def feature_weights() -> Float[Tensor, " C"]:
    """Returns how much an error of each feature counts, [22]."""
    weights = torch.full((WIDTH,), _WEIGHTS["cepstrum"])
    weights[0], weights[CEPSTRUM + 2 :] = _WEIGHTS["energy"], _WEIGHTS["high"]
    weights[PITCH], weights[PERIODICITY] = _WEIGHTS[PITCH], _WEIGHTS[PERIODICITY]
    return weights


@torch.no_grad()
def start_from_features(
    tokenizer: ConversationalRVQ,
    clips: Iterable[tuple[Float[Tensor, "B 1 S"], Bool[Tensor, "B T"]]],
    generator: torch.Generator,
) -> None:
    """Sets weights of features, prediction, acoustic codebooks and the decoder's linear path, in place.

    The codebooks are final: what they quantize is a fixed analysis. The decoder begins at the inverse of the
    encoder's weighting, which alone is a codec.

    Args:
        tokenizer: Tokenizer to initialise, with a vocoder and a trained semantic half.
        clips: Batches of recordings [B, 1, S], S in whole frames, and which of their frames count, [B, T].
        generator: Random generator on the CPU, which draws the rows of k-means.

    Raises:
        ValueError: No frame counts.
    """
    encoder, quantizer = tokenizer.encoder, tokenizer.quantizer
    assert isinstance(encoder, FeatureEncoder)
    features, windows = [], []
    for audio, counted in clips:
        if not bool(counted.any()):
            continue
        frames = encoder.vocoder_features(audio[:, 0]).unflatten(1, (-1, STEPS_PER_FRAME))
        features.append(frames[counted])
        rows = tokenizer.semantic_rows(audio[:, 0])
        assert rows is not None
        windows.append(quantizer.semantic_out.windows(quantizer.semantic_sums(rows))[counted])
    if not features:
        raise ValueError(
            "no frames to start a tokenizer from: expected recordings of at least one frame; check the corpus"
        )
    steps, contexts = torch.cat(features), torch.cat(windows)
    flat = steps.flatten(0, 1)
    weights = feature_weights().to(flat.device)
    # Latents of mean variance 1. In half precision, so that the packaged form encodes alike.
    size = (flat.var(dim=0) * weights.square()).mean().sqrt()
    encoder.centre.copy_(flat.mean(dim=0).half())
    encoder.scale.copy_((weights / size).half())
    latents = ((steps - encoder.centre) * encoder.scale).flatten(1)
    for layer in (quantizer.acoustic_in, quantizer.acoustic_out):
        _set_identity(layer)
    fit_prediction(quantizer.semantic_out, contexts, latents, generator)
    quantizer.fit(latents, generator, predicted=quantizer.semantic_out.predicted(contexts))
    _start_decoder(tokenizer.decoder, encoder)


def _start_decoder(decoder: Decoder, encoder: FeatureEncoder) -> None:
    head = decoder.feature_head
    head.centre.copy_(encoder.centre)
    head.scale.copy_(encoder.scale)
    for layer in (decoder.embed, head.frame):
        _set_identity(layer)
    nn.init.zeros_(head.correction.weight)


def _set_identity(layer: nn.Linear) -> None:
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
