"""Training of the conversational model: what one step computes, for the loop of `csm.training.loop`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from csm.data.dataset import ConversationDataset
from csm.losses import ConversationTargets, LossConfig, conversational_loss
from csm.model import CSMModel
from csm.network.batch_layout import BatchLayout
from csm.network.fixed_shapes import RowBudget, padded
from csm.network.predicted_latent import latent_vectors
from csm.sequences.packed_batch import RowBatch
from csm.training.samples import Clips

# Rows of the validation batch: about two minutes of conversation.
VALIDATION_ROWS = 3000
# Micro-batches by which the sizes of all are chosen where they are fixed: about a second to make.
MEASURED = 64

# Parts of the loss in the line of a report, where they are trained.
SHOWN = ("codebook0", "semantic", "acoustic", "latent", "text", "letters")


class SampleSpeaker(Protocol):
    """Speaks held-out lines with a model in training."""

    def originals(self) -> Clips:
        """Returns the recordings of the lines."""
        ...

    def samples(self, model: CSMModel) -> Clips:
        """Returns the lines as the model speaks them, and leaves the model as it is."""
        ...


@dataclass(frozen=True)
class RowPieces:
    """A micro-batch in pieces, whose losses add up to its loss."""

    pieces: list[RowBatch]

    def to(self, device: torch.device) -> RowPieces:
        """Returns the same pieces on a device."""
        return RowPieces([piece.to(device) for piece in self.pieces])


class ModelTask:
    """The Task of the training loop for a CSMModel.

    Args:
        model: Trained as the module "model".
        train, validation: Of the splits.
        loss: Weights of the parts.
        device: Where validation runs.
        vectors: [K, V, D], vector that each code adds to the tokenizer's latent, for a model with latent_dim.
        speaker: Speaks lines to listen to at each validation; None: there are none.
        fixed_shapes: Whether all micro-batches are padded to one size (`csm.network.fixed_shapes`).

    Attributes:
        budget: That size; None: micro-batches are as they are.
        pieces: Pieces that a micro-batch is cut into where its whole does not fit into memory.

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
        fixed_shapes: bool = False,
    ) -> None:
        self.model, self.train, self.weights, self.device = model, train, loss, device
        self.modules: dict[str, nn.Module] = {"model": model}
        self.learning_rate_scales = {"model": 1.0}
        self.headline = ("model/loss", *(f"model/{name}" for name in SHOWN if getattr(loss, name)))
        self.watched = "model/loss"
        self.speaker = speaker
        self.pieces = 1
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
        self.validation_batch = model.with_layout(validation.in_order(VALIDATION_ROWS))
        self.budget = self._row_budget() if fixed_shapes else None

    @property
    def micro_batch(self) -> tuple[str, int]:
        """The field that sets the size of a micro-batch, and its value."""
        return "data.rows_per_micro_batch", self.train.config.rows_per_micro_batch

    def batch(self, step: int, micro_batch: int) -> RowBatch | RowPieces:
        """The rows of one micro-batch (from 0) of one step (from 1), with the model's index structures."""
        if self.pieces == 1:
            batch = self.train.batch(step, micro_batch)
            if self.budget is not None:
                return padded(batch, self.model.config, self.budget)
            return self.model.with_layout(batch)
        pieces = self.train.pieces(step, micro_batch, self.pieces)
        return RowPieces([self.model.with_layout(piece) for piece in pieces])

    def most_pieces(self, step: int, micro_batch: int) -> int:
        """Returns how many pieces a micro-batch can be cut into: 1 where layers are computed again already.

        Their backward passes would then reach a weight once for each piece, which ZeRO 1 and 2 refuse. Nor is
        a micro-batch cut whose size is fixed: its pieces would have many sizes.
        """
        if self.budget is not None:
            return 1
        if any(getattr(module, "checkpointed", False) for module in self.model.modules()):
            return 1
        return self.train.most_pieces(step, micro_batch)

    def _row_budget(self) -> RowBudget:
        """Returns the size that fits the first micro-batches of the run, with room for others."""
        data, count = self.train.config, self.train.sampler.micro_batches
        first = ((place // count + 1, place % count) for place in range(MEASURED))
        batches = (self.model.with_layout(self.train.batch(*place)) for place in first)
        made = ((batch, cast(BatchLayout, batch.layout)) for batch in batches)
        context = self.model.config.max_context
        return RowBudget.of(made, rows=data.rows_per_micro_batch, max_context=context)

    def batch_ids(self, batch: RowBatch | RowPieces) -> list[str]:
        """Ids of the turns in a batch."""
        return [name for piece in _pieces_of(batch) for name in piece.ids]

    def frames(self, batch: RowBatch | RowPieces) -> Tensor:
        """Returns the number of voice frames in a batch, on the CPU."""
        return torch.tensor(sum(piece.target_rows().voice_frames for piece in _pieces_of(batch)))

    def loss(
        self, name: str, module: Any, batch: RowBatch | RowPieces, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns a micro-batch's loss, whose mean is the step's, and its parts before their weights.

        Of each piece nothing is kept for the backward pass, which computes it again.
        """
        if isinstance(batch, RowBatch):
            return self._loss(module, batch)
        results = [checkpoint(self._loss, module, piece, use_reentrant=False) for piece in batch.pieces]
        totals, parts = zip(*results, strict=True)
        return torch.stack(totals).sum(), {
            name: torch.stack([part[name] for part in parts]).sum() for name in parts[0]
        }

    def _loss(self, module: Any, batch: RowBatch) -> tuple[Tensor, dict[str, Tensor]]:
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


def _pieces_of(batch: RowBatch | RowPieces) -> list[RowBatch]:
    return [batch] if isinstance(batch, RowBatch) else batch.pieces
