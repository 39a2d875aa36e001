"""Training of the conversational model: what one step computes, for the loop of `csm.training.loop`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from csm.data.dataset import ConversationDataset
from csm.losses import ConversationTargets, LossConfig, conversational_loss
from csm.model import CSMModel
from csm.network.layers import PackedSequences
from csm.network.phone_durations import frames_of_ids
from csm.network.predicted_latent import VarianceRestoration, latent_vectors, variance_restoration
from csm.sequences.packed_batch import RowBatch

# Rows of the validation batch: about two minutes of conversation.
VALIDATION_ROWS = 3000
# Rows in which lengths are compared: a quarter of an hour.
LENGTH_ROWS = 20_000


class ModelTask:
    """The Task of the training loop for a CSMModel.

    Args:
        model: Trained as the module "model".
        train, validation: Of the splits.
        loss: Weights of the parts.
        device: Where validation runs.
        vectors: [K, V, D], what each code adds to the tokenizer's latent; for a model that predicts it.

    Raises:
        ValueError: The model predicts latents of another width than the vectors'.
    """

    def __init__(
        self,
        model: CSMModel,
        train: ConversationDataset,
        validation: ConversationDataset,
        loss: LossConfig,
        *,
        device: torch.device,
        vectors: Tensor | None = None,
    ) -> None:
        self.model, self.train, self.weights, self.device = model, train, loss, device
        self.modules: dict[str, nn.Module] = {"model": model}
        self.learning_rate_scales = {"model": 1.0}
        self.vectors = None
        if (width := model.config.latent_dim) > 0:
            if vectors is None or vectors.shape[2] != width:
                found = "nothing" if vectors is None else f"vectors of width {vectors.shape[2]}"
                raise ValueError(
                    f"model.latent_dim is {width}, and the codes come with {found}: expected the latent "
                    f"width of the tokenizer that made them (launch/encode_corpus.py), or latent_dim 0"
                )
            self.vectors = latent_vectors(vectors[: model.config.num_codebooks]).to(device)
        self.validation = validation
        self._validation = validation.in_order(VALIDATION_ROWS)

    def batch(self, step: int, shard: int) -> RowBatch:
        """The rows of one shard (from 0) of one step (from 1)."""
        return self.train.batch(step, shard)

    def batch_ids(self, batch: RowBatch) -> list[str]:
        """Ids of the turns in a batch."""
        return batch.ids

    def loss(self, name: str, module: Any, batch: RowBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, whose mean over shards is the step's, and its parts before their weights."""
        targets = ConversationTargets.of(batch, self.model.config.semantic_codebooks, self.vectors)
        result = conversational_loss(
            module(batch=batch, label_smoothing=self.weights.label_smoothing), targets, self.weights
        )
        return result.total, {name: value.detach() for name, value in result.parts.items()}

    def after_step(self, step: int) -> None:
        """A CSMModel has no buffers to update."""

    @torch.no_grad()
    def variance_restoration(self, model: CSMModel) -> VarianceRestoration:
        """Measures on validation turns how much less a finished model's predicted latents vary.

        Of turns that were trained on, predictions are too good.
        """
        assert self.vectors is not None, "a model without latent_dim predicts no latents"
        batch = self._validation
        recorded = ConversationTargets.of(batch, model.config.semantic_codebooks, self.vectors.cpu()).latent
        predicted = model.eval()(batch=batch, label_smoothing=0.0).refined
        assert recorded is not None
        return variance_restoration(recorded, predicted)

    @torch.no_grad()
    def length_errors(self, model: CSMModel) -> tuple[float, float]:
        """How much longer validation turns are together by a finished model's two guesses, in log frames.

        By the head of durations, and by the paces of their text ids; 0 where a head says nothing.
        """
        batch = self.validation.in_order(LENGTH_ROWS)
        hidden = model.eval().hidden_rows(batch)
        duration = pace = recorded = 0.0
        for span in batch.voice_spans:
            last = span.first_key + span.num_keys - 1
            target = float(batch.duration_target[last])
            if math.isnan(target):
                continue
            recorded += math.exp(target)
            duration += float(model.duration_head(hidden[last]).clamp(max=20.0).exp())
            if model.pace_head.is_trained():
                bounds = torch.tensor([0, span.num_keys], dtype=torch.int32)
                ids = model.pace_head(
                    hidden[span.first_key : last + 1], PackedSequences(bounds, span.num_keys)
                )
                pace += frames_of_ids(ids)
        return (
            math.log(duration / recorded) if recorded and model.predicts_durations() else 0.0,
            math.log(pace / recorded) if pace else 0.0,
        )

    @torch.no_grad()
    def validate(self, step: int) -> dict[str, float]:
        """Loss and parts on the same two minutes of validation turns every time, in nats per target."""
        batch = self._validation.to(self.device)
        targets = ConversationTargets.of(batch, self.model.config.semantic_codebooks, self.vectors)
        result = conversational_loss(
            self.model(batch=batch, label_smoothing=self.weights.label_smoothing), targets, self.weights
        )
        return {
            "model/loss": float(result.total),
            **{f"model/{n}": float(v) for n, v in result.parts.items()},
        }
