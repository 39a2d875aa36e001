"""Training of the semantic tokenizer: what one step computes, for the loop of `csm.training.loop`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from csm.data.phone_labels import NONE, PhoneLabels
from csm.data.utterances import UtteranceBatch, UtteranceDataset
from csm.spelling import LETTERS
from csm.system.log import log
from csm.tokenizer.semantic.log_mel import BANDS
from csm.tokenizer.semantic.semantic_heads import SemanticHeads
from csm.tokenizer.semantic.semantic_tokenizer import SemanticTokenizer
from csm.tokenizer.semantic.speech_encoder import STEPS_PER_FRAME
from csm.tokenizer.training.reduced_rank import fit_fold
from csm.tokenizer.training.semantic_losses import (
    SemanticLossConfig,
    feature_loss,
    letter_loss,
    phone_loss,
)
from csm.tokenizer.usage import perplexity
from csm.training.optimizer import scale_learning_rate
from csm.training.recogniser import SILENCE, Recogniser
from csm_kernels import ema_update_stacks, rvq_search

# Batches whose rows the codebooks start from; steps in which dead codes are always revived, then every few.
START_BATCHES, REVIVED_EVERY_STEP, REVIVE_EVERY = 20, 200, 20
# Learning rate of a recogniser's encoder, as a factor on that of the new layers.
ENCODER_RATE = 0.1
# Log-mel features in a frame; masks take their level in silence.
MEL_STEPS = 2 * STEPS_PER_FRAME
WIDEST_BAND, LONGEST_STRETCH, STRETCH_EVERY = 12, 16, 300
VALIDATED = 64
# Parts of the loss.
PARTS = ("phones", "letters", "recogniser", "features", "commitment")


@dataclass
class SemanticBatch:
    """A micro-batch of the semantic tokenizer.

    Attributes:
        utterances: Audio, texts and draws.
        phones: Phone class of each step of 20 ms, int64 [B, 4 T]; NONE on padding and without label.
        ids: Text ids of the recogniser, int64 [B, L]; [B, 0] without one.
        masked: Log-mel features that are masked, bool [B, 8 T, 80].
        first: Position of the first step, 0 to the recogniser's positions - 1.
    """

    utterances: UtteranceBatch
    phones: Tensor
    ids: Tensor
    masked: Tensor
    first: int

    def to(self, device: torch.device) -> SemanticBatch:
        """Returns the same batch on a device."""
        phones, ids, masked = (
            part.to(device, non_blocking=True) for part in (self.phones, self.ids, self.masked)
        )
        return SemanticBatch(self.utterances.to(device), phones, ids, masked, self.first)


class SemanticTrainer(nn.Module):
    """The semantic tokenizer with the heads that only training needs.

    Args:
        tokenizer: Trained in place.
        num_phones: Phone classes.
    """

    def __init__(self, tokenizer: SemanticTokenizer, num_phones: int) -> None:
        super().__init__()
        config = tokenizer.config
        self.tokenizer = tokenizer
        self.heads = SemanticHeads(config.codebook_dim, config.semantic_width, num_phones, len(LETTERS))

    def forward(
        self, batch: SemanticBatch, loss: SemanticLossConfig, recogniser: Recogniser | None
    ) -> dict[str, Tensor]:
        """Returns losses by name, and what the codebook update needs.

        Returns:
            Scalars phones, phone_accuracy, letters, commitment; with a recogniser also recogniser, and
            features where they have a weight. Of the frames that are no padding: rows [N, C], codes int64
            [N, K], levels int64 [N].
        """
        encoder, stack = self.tokenizer.encoder, self.tokenizer.stack
        log_mel = encoder.log_mel(batch.utterances.audio[:, 0])
        masked = torch.where(batch.masked, torch.full_like(log_mel, SILENCE), log_mel)
        rows = encoder.rows(masked, batch.first).float()
        valid = self.valid(batch.utterances, rows.shape[1])
        levels = self._levels(batch.utterances.levels, loss).unsqueeze(1).expand_as(valid)
        with torch.autocast(rows.device.type, enabled=False):
            found = rvq_search(rows.detach().flatten(0, 1), stack.codebooks)
            chosen = stack.lookup(found.codes, levels.flatten()).unflatten(0, rows.shape[:2])
            whole = found.quantized.unflatten(0, rows.shape[:2])
            distance = (rows - whole).square().mean(-1)
        steps = self.heads.steps(rows + (chosen - rows).detach())
        phones, accuracy = phone_loss(self.heads.phones(steps), batch.phones)
        counted = valid.sum(dim=1) * STEPS_PER_FRAME
        outputs = {
            "phones": phones,
            "phone_accuracy": accuracy,
            "letters": letter_loss(
                self.heads.letter_scores(steps),
                counted,
                batch.utterances.text,
                batch.utterances.text_lengths,
            ),
            "commitment": distance[valid].mean(),
            "rows": rows.detach()[valid],
            "codes": found.codes[valid.flatten()],
            "levels": levels[valid],
        }
        if recogniser is not None:
            mask = valid.repeat_interleave(STEPS_PER_FRAME, dim=1)
            outputs["recogniser"] = recogniser.loss(batch.ids, steps, mask)
            if loss.features:  # they cost a second encoder
                outputs["features"] = feature_loss(steps[mask], recogniser.features(log_mel)[mask])
        return outputs

    def valid(self, batch: UtteranceBatch, frames: int) -> Bool[Tensor, "B T"]:
        """Returns which frames hold audio and no padding alone."""
        size = self.tokenizer.config.samples_per_frame
        place = torch.arange(frames, device=batch.lengths.device)
        return place < ((batch.lengths + size - 1) // size).unsqueeze(1)

    def _levels(self, draws: Float[Tensor, "B 3"], loss: SemanticLossConfig) -> Tensor:
        """Codebooks used by each item: all, or under quantizer dropout a random prefix."""
        count = self.tokenizer.config.semantic_codebooks
        every = torch.full_like(draws[:, 0], count, dtype=torch.int64)
        if not self.training:
            return every
        prefix = 1 + (draws[:, 1] * count).long().clamp(max=count - 1)
        return torch.where(draws[:, 0] < loss.quantizer_dropout, prefix, every)


class SemanticTask:
    """The Task of the training loop.

    Args:
        tokenizer: Trained in place.
        train, validation: Utterances.
        labels: Phones of both.
        loss: Weights of the parts.
        recogniser: Frozen; None trains from phones and letters alone.
        device: Where the modules are.
    """

    def __init__(
        self,
        tokenizer: SemanticTokenizer,
        train: UtteranceDataset,
        validation: UtteranceDataset,
        labels: PhoneLabels,
        loss: SemanticLossConfig,
        *,
        recogniser: Recogniser | None,
        device: torch.device,
    ) -> None:
        self.trainer = SemanticTrainer(tokenizer, len(labels.classes))
        if recogniser is not None:
            scale_learning_rate(tokenizer.encoder.encoder, ENCODER_RATE)
        self.modules: dict[str, nn.Module] = {"semantic": self.trainer}
        self.learning_rate_scales = {"semantic": 1.0}
        self.headline = tuple(f"semantic/{name}" for name in ("loss", "phones", "letters", "recogniser"))
        self.watched = "phone_accuracy"
        self.train, self.validation, self.labels, self.weights = train, validation, labels, loss
        self.recogniser, self.device = recogniser, device
        self._pending: list[dict[str, Tensor]] = []
        self._start()

    @property
    def micro_batch(self) -> tuple[str, int]:
        """The field that sets the size of a micro-batch, and its value."""
        return "semantic_utterances.items", self.train.config.items

    def batch(self, step: int, micro_batch: int) -> SemanticBatch:
        """Returns one micro-batch of a step, on the CPU."""
        random = np.random.default_rng([self.train.seed, 4, step, micro_batch])
        return self._batch(self.train, self.train.batch(step, micro_batch), random)

    def batch_ids(self, batch: SemanticBatch) -> list[str]:
        """Returns the batch's turn ids."""
        return batch.utterances.ids

    def frames(self, batch: SemanticBatch) -> Tensor:
        """Returns the number of frames in a batch, without padding."""
        size = self.trainer.tokenizer.config.samples_per_frame
        return ((batch.utterances.lengths + size - 1) // size).sum()

    def loss(
        self, name: str, module: nn.Module, batch: SemanticBatch, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the weighted loss and its parts."""
        outputs: dict[str, Tensor] = module(batch, self.weights, self.recogniser)
        names = [name for name in PARTS if name in outputs]
        total = torch.stack([getattr(self.weights, name) * outputs[name] for name in names]).sum()
        self._pending.append({name: outputs[name] for name in ("rows", "codes", "levels")})
        return total, {name: outputs[name].detach() for name in (*names, "phone_accuracy")}

    @torch.no_grad()
    def after_step(self, step: int) -> dict[str, Tensor]:
        """Updates the codebooks once per step, from all ranks; returns their mean perplexity."""
        stack = self.trainer.tokenizer.stack
        rows, codes, levels = (
            torch.cat([part[name] for part in self._pending]) for name in ("rows", "codes", "levels")
        )
        revive = step <= REVIVED_EVERY_STEP or step % REVIVE_EVERY == 0
        ema_update_stacks(
            [stack.assigned(rows, codes, levels)],
            decay=self.weights.decay,
            revive_below=self.weights.revive_below if revive else 0.0,
            step=step,
        )
        self._pending.clear()
        return {"semantic_perplexity": perplexity(stack.usage).mean()}

    @torch.no_grad()
    def validate(self, step: int) -> dict[str, float]:
        """Returns losses over up to 64 validation utterances, with all codebooks."""
        items = self.validation.config.items
        count = min(VALIDATED, len(self.validation))
        sums: dict[str, list[float]] = {}
        for first in range(0, count, items):
            utterances = self.validation.in_order(first, min(items, count - first))
            batch = self._batch(self.validation, utterances, None).to(self.device)
            outputs = self.trainer(batch, self.weights, self.recogniser)
            for name in ("phone_accuracy", *PARTS):
                if name in outputs:
                    sums.setdefault(name, []).append(float(outputs[name]))
        return {name: sum(values) / len(values) for name, values in sums.items()}

    def _batch(
        self, dataset: UtteranceDataset, utterances: UtteranceBatch, random: np.random.Generator | None
    ) -> SemanticBatch:
        """Adds labels and text ids; without a generator nothing is masked, and positions begin at 0."""
        frames = utterances.audio.shape[-1] // dataset.samples_per_frame
        phones = torch.full((len(utterances.ids), frames * STEPS_PER_FRAME), NONE)
        rate, size = dataset.sample_rate, dataset.samples_per_frame
        parts = (utterances.lengths, utterances.first_sample, utterances.speed)
        turns = zip(utterances.ids, utterances.texts, *(part.tolist() for part in parts), strict=True)
        for row, (turn, text, length, first, speed) in enumerate(turns):
            count = -(-length // size) * STEPS_PER_FRAME
            phones[row, :count] = self.labels.steps(turn, text, first / rate, count, speed)
        whole = (utterances.text_lengths > 0).tolist()
        texts = [text if kept else "" for text, kept in zip(utterances.texts, whole, strict=True)]
        ids = torch.zeros(len(texts), 0, dtype=torch.int64)
        masked = torch.zeros(len(texts), frames * MEL_STEPS, BANDS, dtype=torch.bool)
        if random is not None:
            _mask(masked, random)
        positions = self.trainer.tokenizer.encoder.encoder.config.positions
        return SemanticBatch(
            utterances,
            phones,
            ids if self.recogniser is None else self.recogniser.ids(texts),
            masked,
            0 if random is None else int(random.integers(positions)),
        )

    @torch.no_grad()
    def _start(self) -> None:
        """Sets layers around the codebooks and codebooks by the first batches, which every rank can make."""
        tokenizer = self.trainer.tokenizer.to(self.device).eval()
        encoder, heads = tokenizer.encoder, self.trainer.heads.to(self.device)
        found, wanted = [], []
        for step in range(1, START_BATCHES + 1):
            utterances = self.batch(step, 0).to(self.device).utterances
            log_mel = encoder.log_mel(utterances.audio[:, 0])
            steps = encoder.encoder(log_mel)
            valid = self.trainer.valid(utterances, steps.shape[1] // STEPS_PER_FRAME)
            found.append(_frames(steps)[valid])
            if self.recogniser is not None:
                norm = self.recogniser.encoder.norm
                normalised = (self.recogniser.features(log_mel) - norm.bias) / norm.weight
                wanted.append(_frames(normalised)[valid])
        rows = torch.cat(found)
        if self.recogniser is not None:
            left = fit_fold(encoder.fold, heads.unfold, rows, torch.cat(wanted))
            heads.norm.load_state_dict(self.recogniser.encoder.norm.state_dict())
            log.info(
                "codebooks read %d components, which leave %.2f of the variance of the features",
                encoder.fold.out_features,
                left,
            )
        tokenizer.stack.fit(encoder.fold(rows), torch.Generator().manual_seed(self.train.seed))


def _frames(steps: Float[Tensor, "B N D"]) -> Float[Tensor, "B T X"]:
    """The steps of each frame side by side."""
    return steps.unflatten(1, (-1, STEPS_PER_FRAME)).flatten(2)


def _mask(masked: Bool[Tensor, "B M 80"], random: np.random.Generator) -> None:
    """Marks a band of each item, and a stretch of it for every 3 s (SpecAugment, Park et al. 2019)."""
    for item in masked:
        width = int(random.integers(WIDEST_BAND))
        first = int(random.integers(BANDS - width))
        item[:, first : first + width] = True
        for _ in range(1 + len(item) // STRETCH_EVERY):
            length = int(random.integers(1, LONGEST_STRETCH))
            first = int(random.integers(max(1, len(item) - length)))
            item[first : first + length] = True
