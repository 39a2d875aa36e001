"""Calibration of a trained model: how the latents that it predicts lie beside recorded ones."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from csm.losses import ConversationTargets
from csm.model import CSMModel
from csm.network.predicted_latent import variance_restoration
from csm.sequences.packed_batch import RowBatch
from csm.system.log import log


@torch.no_grad()
def set_latent_statistics(
    model: CSMModel, validation: RowBatch, vectors: Float[Tensor, "K V D"] | None
) -> None:
    """Sets the mean and gain by which generation restores the variance of predicted latents.

    Args:
        model: Finished, on the CPU; without `latent_dim` it is left as it is.
        validation: Turns that were not trained on: predictions of others are too good.
        vectors: Vector that each code adds to the tokenizer's latent, for a model with `latent_dim`.
    """
    if not model.config.latent_dim:
        return
    assert vectors is not None, "a model with latent_dim is trained with the vectors of its codes"
    targets = ConversationTargets.of(validation, model.config.semantic_codebooks, vectors.cpu())
    predicted = model.eval()(batch=validation, label_smoothing=0.0).refined
    assert targets.latent is not None
    assert predicted is not None and model.predicted_latent is not None
    if len(predicted) < 2:
        log.warning(
            "latents: %d validation frames are spoken, too few for a standard deviation: expected 2 or more; "
            "the variance of predicted latents is not restored",
            len(predicted),
        )
        return
    statistics = variance_restoration(targets.latent, predicted)
    model.predicted_latent.set_variance_restoration(statistics)
    log.info(
        "latents: %d validation frames have %.2f times the standard deviation of their predictions",
        len(predicted),
        float(statistics.gain.mean()),
    )
