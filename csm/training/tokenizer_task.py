"""Training of the voice tokenizer: what one step computes, for the loop of `csm.training.loop`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from csm.data.utterances import UtteranceBatch, UtteranceDataset
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.training.adversarial_losses import (
    adversarial_loss,
    balanced_adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)
from csm.tokenizer.training.discriminators import Discriminators
from csm.tokenizer.training.losses import TokenizerLossConfig
from csm.tokenizer.training.principal_components import start_from_principal_components
from csm.tokenizer.usage import perplexity
from csm.training.samples import Clips
from csm.training.teacher import Teacher
from csm.training.tokenizer_trainer import TokenizerTrainer
from csm_kernels import ema_update_stacks

# Batches that a new tokenizer's linear path and codebooks are computed from: 30,000 frames of the packaged
# recipe, for covariances of 1,800 magnitudes.
START_BATCHES = 128
# Frames that the finished codebooks are fitted to: 4.4 hours.
REFIT_FRAMES, REFIT_BATCH = 200_000, 16
# Validation clips to listen to: few enough to be heard one after the other.
SAMPLED_CLIPS = 4


class TokenizerTask:
    """The Task of the training loop: tokenizer first, then (from `adversarial_start` on) its judges.

    Args:
        tokenizer: Trained in place.
        train, validation: Utterances; `train` also tells the length of the decoded slices.
        loss: Weights of the parts.
        initialise: Begin at the principal components of the first steps' batches, for a tokenizer that is not
            trained yet; the same ones on every rank.
        decoder_only: Encoder and codebooks stay as they are, so that codes keep their meaning.
        device: Where the modules are.
        teacher: Of the semantic codebooks; moved to the device, not trained and not saved.

    Raises:
        ValueError: Both decoder_only and initialise or a teacher.
    """

    def __init__(
        self,
        tokenizer: ConversationalRVQ,
        train: UtteranceDataset,
        validation: UtteranceDataset,
        loss: TokenizerLossConfig,
        *,
        initialise: bool,
        decoder_only: bool,
        device: torch.device,
        teacher: Teacher | None = None,
    ) -> None:
        if decoder_only and teacher is not None:
            raise ValueError("decoder_only keeps the codes as they are, so a teacher can teach nothing")
        if decoder_only and initialise:
            raise ValueError(
                "decoder_only keeps the codebooks, initialise replaces them: give a tokenizer that is "
                "trained already and leave initialise out"
            )
        if loss.adversarial > 0 and tokenizer.config.recover_phase:
            raise ValueError(
                "tokenizer_loss.adversarial with tokenizer.recover_phase: no gradient passes through "
                "recovered phases; expected adversarial=0, or recover_phase=false"
            )
        self.decoder_only = decoder_only
        if decoder_only:
            tokenizer.requires_grad_(False).decoder.requires_grad_(True)
            # It decodes codes and nothing else: there is no encoder left to keep from collapsing.
            loss = replace(loss, bypass=0.0)
        # Not among the modules, which are what is trained and saved.
        self.teacher = None if teacher is None else teacher.to(device)
        width = 0 if teacher is None else teacher.width
        self.trainer = TokenizerTrainer(tokenizer, len(train.speakers), teacher_width=width)
        self.modules: dict[str, nn.Module] = {"tokenizer": self.trainer}
        self.learning_rate_scales = {"tokenizer": 1.0, "discriminator": 0.5}
        if loss.adversarial > 0:
            self.modules["discriminator"] = Discriminators()
        self.train, self.validation, self.weights, self.device = train, validation, loss, device
        self._pending: list[tuple[list[str], dict[str, Tensor]]] = []
        if initialise:
            self._initialise()

    def batch(self, step: int, shard: int) -> UtteranceBatch:
        """One shard of a step, on the CPU."""
        return self.train.batch(step, shard)

    def batch_ids(self, batch: UtteranceBatch) -> list[str]:
        """The batch's turn ids."""
        return batch.ids

    def loss(
        self, name: str, module: nn.Module, batch: UtteranceBatch, step: int
    ) -> tuple[Tensor, dict[str, Tensor]] | None:
        """The weighted sum of the losses of a module, and its parts; None where the judges rest."""
        judged = self.weights.adversarial > 0 and step >= self.weights.adversarial_start
        if name == "discriminator":
            return self._judges_loss(module, batch) if judged else None
        outputs = self._outputs(module, batch)
        names = ["mel", "magnitude"]
        if not self.decoder_only:
            names += ["commitment", "isotropy", "text", "speaker", "reversal", "emotion"]
        if self.teacher is not None:
            names.append("distillation")
        parts = {name: outputs[name] for name in names}
        total = torch.stack([getattr(self.weights, name) * value for name, value in parts.items()]).sum()
        if judged:
            judges = self.modules["discriminator"]
            heard = self._heard(outputs["output"])
            fake = judges(outputs["output"][:heard])
            with torch.no_grad():
                real = judges(outputs["target"][:heard])
            parts["adversarial"] = adversarial_loss(fake)
            parts["feature_matching"] = feature_matching_loss(real, fake)
            total = total + balanced_adversarial_loss(
                outputs["features"],
                torch.stack([getattr(self.weights, n) * parts[n] for n in ("mel", "magnitude")]).sum(),
                parts["adversarial"] + self.weights.feature_matching * parts["feature_matching"],
                self.weights.adversarial,
            )
        self._pending.append((batch.ids, {name: value.detach() for name, value in outputs.items()}))
        return total, {name: value.detach() for name, value in parts.items()}

    @torch.no_grad()
    def after_step(self, step: int) -> dict[str, Tensor]:
        """Codebook statistics of all shards and ranks, once per step; returns their mean perplexity."""
        quantizer = self.trainer.tokenizer.quantizer
        if self.decoder_only:
            self._pending.clear()
            return {}
        metrics, stacks = {}, []
        revive = step <= 200 or step % self.weights.revive_every == 0
        for name, stack, first in (
            ("semantic", quantizer.semantic, 0),
            ("acoustic", quantizer.acoustic, quantizer.semantic_codebooks),
        ):
            rows, codes, levels = [], [], []
            for _, outputs in self._pending:
                used = quantizer.split_levels(outputs["levels"])[0 if first == 0 else 1]
                keep = outputs["valid"].reshape(-1)
                rows.append(outputs[f"{name}_rows"][keep])
                part = outputs["codes"][:, first : first + stack.num_codebooks]
                codes.append(part.transpose(1, 2).reshape(-1, stack.num_codebooks)[keep])
                levels.append(used.repeat_interleave(outputs["valid"].shape[1])[keep])
            stacks.append(stack.assigned(torch.cat(rows), torch.cat(codes), torch.cat(levels)))
        ema_update_stacks(
            stacks,
            decay=self.weights.decay,
            revive_below=self.weights.revive_below if revive else 0.0,
            step=step,
        )
        for name, stack in (("semantic", quantizer.semantic), ("acoustic", quantizer.acoustic)):
            metrics[f"{name}_perplexity"] = perplexity(stack.usage).mean()
        self._pending.clear()
        return metrics

    @torch.no_grad()
    def refit(self, tokenizer: ConversationalRVQ) -> None:
        """Sets the codebooks of a finished tokenizer to the means of what it encodes, on the CPU.

        While it is trained they follow a moving encoder by a moving average; of the averaged weights that are
        kept, a tenth of the vectors describes nothing.

        Args:
            tokenizer: Trained by this task, on the CPU.
        """
        frame, rows = tokenizer.config.samples_per_frame, []
        for first in range(0, len(self.train), REFIT_BATCH):
            batch = self.train.in_order(first, REFIT_BATCH)
            latent, _ = tokenizer.encoder(tokenizer.pad_to_frames(batch.audio)[:, 0])
            frames = torch.arange(latent.shape[1])
            rows.append(latent[frames < (batch.lengths // frame).clamp_min(1).unsqueeze(1)])
            if sum(map(len, rows)) >= REFIT_FRAMES:
                break
        generator = torch.Generator().manual_seed(self.train.seed)
        tokenizer.quantizer.fit(torch.cat(rows), generator, keep=True)

    @torch.no_grad()
    def validate(self, step: int) -> dict[str, float]:
        """Losses over up to 32 validation utterances, with all codebooks."""
        count = min(32, len(self.validation))
        batch = self.validation.in_order(0, count).to(self.device)
        outputs = self._outputs(self.trainer, batch)
        names = ["mel", "magnitude", "commitment", "text"]
        if self.teacher is not None:
            names.append("distillation")
        return {name: float(outputs[name]) for name in names}

    def originals(self) -> Clips:
        """The first validation utterances, as the tokenizer hears them."""
        batch = self.validation.in_order(0, SAMPLED_CLIPS)
        return self._clips(batch, batch.audio)

    @torch.no_grad()
    def samples(self, step: int) -> Clips:
        """The same utterances through all codebooks, from their codes alone."""
        batch = self.validation.in_order(0, SAMPLED_CLIPS).to(self.device)
        codes, _ = self.trainer.tokenizer.encode(batch.audio, batch.lengths)
        return self._clips(batch, self.trainer.tokenizer.decode(codes))

    def _clips(self, batch: UtteranceBatch, audio: Tensor) -> Clips:
        lengths = batch.lengths.tolist()
        rate = self.validation.sample_rate
        return {
            name: (clip[:, :length], rate)
            for name, clip, length in zip(batch.ids, audio, lengths, strict=True)
        }

    def _outputs(self, module: nn.Module, batch: UtteranceBatch) -> dict[str, Tensor]:
        """What the trainer returns for a batch, the teacher asked first."""
        taught = None if self.teacher is None else self.teacher(batch.audio, batch.lengths)
        outputs: dict[str, Tensor] = module(batch, self.weights, self.train.config.slice_frames, taught)
        return outputs

    def _judges_loss(self, module: nn.Module, batch: UtteranceBatch) -> tuple[Tensor, dict[str, Tensor]]:
        kept = next(outputs for ids, outputs in self._pending if ids == batch.ids)
        heard = self._heard(kept["output"])
        # In one call: half as many, twice as large convolutions.
        maps = module(torch.cat([kept["target"][:heard], kept["output"][:heard]]))
        real, fake = (
            [[m[part] for m in judge] for judge in maps] for part in (slice(heard), slice(heard, None))
        )
        loss = discriminator_loss(real, fake)
        return loss, {"hinge": loss.detach()}

    def _heard(self, output: Tensor) -> int:
        """How many items of a shard the judges hear."""
        return max(1, round(self.weights.discriminator_share * len(output)))

    def _initialise(self) -> None:
        """Before the engine takes the weights over; from batches of shard 0, which every rank can make."""
        tokenizer = self.trainer.tokenizer
        frame = tokenizer.config.samples_per_frame

        def clips() -> Iterator[tuple[Tensor, Tensor]]:
            for step in range(1, START_BATCHES + 1):
                batch = self.batch(step, 0).to(self.device)
                audio = tokenizer.pad_to_frames(batch.audio)
                frames = torch.arange(audio.shape[-1] // frame, device=audio.device)
                yield audio, frames < (batch.lengths // frame).unsqueeze(1)

        generator = torch.Generator().manual_seed(self.train.seed)
        start_from_principal_components(tokenizer.to(self.device), clips(), generator)
