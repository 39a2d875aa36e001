"""Training of the conversational model: what one step computes, for the loop of `csm.training.loop`."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from csm.data.dataset import ConversationDataset
from csm.losses import ConversationTargets, LossConfig, conversational_loss
from csm.model import CSMModel
from csm.network.predicted_latent import latent_vectors
from csm.sequences.packed_batch import RowBatch
from csm.training.samples import Clips

# Rows of the validation batch: about two minutes of conversation.
VALIDATION_ROWS = 3000


# Parts of the loss in the line of a report, where they are trained.
SHOWN = ("codebook0", "semantic", "acoustic", "latent", "text")


class SampleSpeaker(Protocol):
    """Speaks held-out lines with a model in training."""

    def originals(self) -> Clips:
        """Returns the recordings of the lines."""
        ...

    def samples(self, model: CSMModel) -> Clips:
        """Returns the lines as the model speaks them, and leaves the model as it is."""
        ...


class ModelTask:
    """The Task of the training loop for a CSMModel.

    Args:
        model: Trained as the module "model".
        train, validation: Of the splits.
        loss: Weights of the parts.
        device: Where validation runs.
        vectors: [K, V, D], vector that each code adds to the tokenizer's latent, for a model with latent_dim.
        speaker: Speaks lines to listen to at each validation; None: there are none.

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
        speaker: SampleSpeaker | None = None,
    ) -> None:
        self.model, self.train, self.weights, self.device = model, train, loss, device
        self.modules: dict[str, nn.Module] = {"model": model}
        self.learning_rate_scales = {"model": 1.0}
        self.headline = ("model/loss", *(f"model/{name}" for name in SHOWN if getattr(loss, name)))
        self.watched = "model/loss"
        self.speaker = speaker
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
        self.validation_batch = validation.in_order(VALIDATION_ROWS)

    def batch(self, step: int, micro_batch: int) -> RowBatch:
        """The rows of one micro-batch (from 0) of one step (from 1)."""
        return self.train.batch(step, micro_batch)

    def batch_ids(self, batch: RowBatch) -> list[str]:
        """Ids of the turns in a batch."""
        return batch.ids

    def frames(self, batch: RowBatch) -> Tensor:
        """Returns the number of voice frames in a batch."""
        return (batch.codes[:, 0] >= 0).sum()

    def loss(self, name: str, module: Any, batch: RowBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns a micro-batch's loss, whose mean is the step's, and its parts before their weights."""
        targets = ConversationTargets.of(batch, self.model.config.semantic_codebooks, self.vectors)
        result = conversational_loss(
            module(batch=batch, label_smoothing=self.weights.label_smoothing), targets, self.weights
        )
        return result.total, {name: value.detach() for name, value in result.parts.items()}

    def after_step(self, step: int) -> None:
        """A CSMModel has no buffers to update."""

    @torch.no_grad()
    def validate(self, step: int) -> dict[str, float]:
        """Loss and parts on the same two minutes of validation turns every time, in nats per target."""
        batch = self.validation_batch.to(self.device)
        targets = ConversationTargets.of(batch, self.model.config.semantic_codebooks, self.vectors)
        result = conversational_loss(
            self.model(batch=batch, label_smoothing=self.weights.label_smoothing), targets, self.weights
        )
        return {
            "model/loss": float(result.total),
            **{f"model/{n}": float(v) for n, v in result.parts.items()},
        }

    def originals(self) -> Clips:
        """Returns the recordings of the lines that are spoken at each validation."""
        return {} if self.speaker is None else self.speaker.originals()

    def samples(self, step: int) -> Clips:
        """Returns these lines as the model speaks them after a step."""
        return {} if self.speaker is None else self.speaker.samples(self.model)
