"""Training of the voice tokenizer: what one step computes, for the loop of `csm.training.loop`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from csm.data.utterances import UtteranceBatch, UtteranceDataset
from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.training.adversarial_losses import (
    adversarial_loss,
    balanced_adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)
from csm.tokenizer.training.discriminators import (
    Discriminators,
    FeatureDiscriminators,
    MagnitudeDiscriminators,
)
from csm.tokenizer.training.feature_start import start_from_features
from csm.tokenizer.training.losses import TokenizerLossConfig
from csm.tokenizer.training.principal_components import start_from_principal_components
from csm.tokenizer.usage import perplexity
from csm.tokenizer.vocoder_features import WIDTH
from csm.training.coded_utterances import CodedBatch, CodedUtterances
from csm.training.samples import Clips
from csm.training.teacher import Teacher
from csm.training.tokenizer_trainer import TokenizerTrainer
from csm_kernels import ema_update_stacks

# Batches that a new tokenizer's linear path and codebooks are computed from: 30,000 frames of the packaged
# recipe, for covariances of 1,800 magnitudes.
START_BATCHES = 128
# Those that a tokenizer with a vocoder is fitted to, whose codebooks no training changes: 100,000 frames.
FEATURE_BATCHES = 500
# Codes that nothing uses are revived in each of the first steps, then every few.
REVIVED_EVERY_STEP, REVIVE_EVERY = 200, 10
# Validation clips to listen to: few enough to listen to one after the other.
SAMPLED_CLIPS = 4


@dataclass(frozen=True, kw_only=True)
class TrainedParts:
    """Which parts of a tokenizer are trained, and how they begin.

    Attributes:
        initialise: Whether the first steps' batches set the start, on every rank the same, for a tokenizer
            that is not trained yet: principal components, or with a vocoder its features, whose codebooks are
            then final.
        decoder_only: Whether encoder and codebooks stay as they are, so that codes keep their meaning.
        encoder_frozen: Whether encoder and quantizer, but not its codebooks, stay as they are or as
            `initialise` sets them.
        encode_once: Whether each turn may be encoded once where its codes never change.

    Raises:
        ValueError: Both decoder_only and initialise.
    """

    initialise: bool
    decoder_only: bool = False
    encoder_frozen: bool = False
    encode_once: bool = True

    def __post_init__(self) -> None:
        if self.decoder_only and self.initialise:
            raise ValueError(
                "decoder_only keeps the codebooks, initialise replaces them: give a tokenizer that is "
                "trained already and leave initialise out"
            )


class TokenizerTask:
    """The Task of the training loop: the tokenizer, then (from `adversarial_start` on) its discriminators.

    Args:
        tokenizer: Trained in place.
        train, validation: Utterances; `train` also gives the length of the decoded slices.
        loss: Weights of the parts.
        parts: Which parts of it are trained.
        device: Where the modules are.
        teacher: Of the semantic codebooks; moved to the device, not trained and not saved.
        predicts: Gives the codes of a turn of the training as a voice predicts them, for decoder_only of a
            tokenizer with a vocoder.

    Raises:
        ValueError: Both decoder_only and a teacher.
    """

    def __init__(
        self,
        tokenizer: ConversationalRVQ,
        train: UtteranceDataset,
        validation: UtteranceDataset,
        loss: TokenizerLossConfig,
        parts: TrainedParts,
        *,
        device: torch.device,
        teacher: Teacher | None = None,
        predicts: Callable[[str], Tensor | None] | None = None,
    ) -> None:
        decoder_only = parts.decoder_only
        if decoder_only and teacher is not None:
            raise ValueError("decoder_only keeps the codes as they are, so a teacher can teach nothing")
        self.decoder_only = decoder_only
        # What a vocoder's codebooks quantize is a fixed analysis: they are final when it is fitted.
        self.codes_fixed = decoder_only or tokenizer.config.vocoder
        if decoder_only:
            tokenizer.requires_grad_(False).decoder.requires_grad_(True)
        if self.codes_fixed:
            # It decodes codes and nothing else: there is no encoder left to keep from collapsing.
            loss = replace(loss, bypass=0.0)
        # A semantic encoder is trained before (`csm.training.semantic_task`), its codebooks with it.
        self.semantic_frozen = tokenizer.semantic_encoder is not None
        if self.semantic_frozen and teacher is not None:
            raise ValueError(
                "teacher with tokenizer.semantic_layers: the semantic codes are trained before; leave it out"
            )
        # Not among the modules, which are what is trained and saved.
        self.teacher = None if teacher is None else teacher.to(device)
        width = 0 if teacher is None else teacher.width
        self.trainer = TokenizerTrainer(
            tokenizer, len(train.speakers), teacher_width=width, envelope=loss.envelope
        )
        self.modules: dict[str, nn.Module] = {"tokenizer": self.trainer}
        self.learning_rate_scales = {"tokenizer": 1.0, "discriminator": loss.discriminator_rate}
        self.compared = ("vocoder",) if tokenizer.config.vocoder else ("mel", "magnitude")
        names = ("loss", *self.compared, "commitment", "prediction" if self.semantic_frozen else "text")
        self.headline = (*(f"tokenizer/{name}" for name in names), "discriminator/loss")
        self.watched = self.compared[0]
        if loss.adversarial > 0:
            self.modules["discriminator"] = _discriminators(tokenizer.config)
        self.train, self.validation, self.weights, self.device = train, validation, loss, device
        # Codes and features of a turn never change then; encoding takes nine tenths of a step.
        self.coded = None
        if parts.encode_once and decoder_only and tokenizer.config.vocoder and not train.augments:
            self.coded = CodedUtterances(tokenizer, train, predicts)
        elif predicts is not None:
            raise ValueError(
                "predicting_voice is given: expected a tokenizer with a vocoder, tokenizer_frozen=true, "
                "utterances without speeds and narrow_share, and a zero_stage below 3"
            )
        self._pending: list[tuple[list[str], dict[str, Tensor]]] = []
        if parts.initialise:
            self._initialise()
        if tokenizer.config.vocoder:
            tokenizer.quantizer.requires_grad_(False)
        elif parts.encoder_frozen:
            tokenizer.encoder.requires_grad_(False)
            # Codebooks follow what they quantize, if that stays as it is: the prediction too.
            tokenizer.quantizer.requires_grad_(False).acoustic_out.requires_grad_(True)

    @property
    def micro_batch(self) -> tuple[str, int]:
        """The field that sets the size of a micro-batch, and its value."""
        return "utterances.items", self.train.config.items

    def batch(self, step: int, micro_batch: int) -> UtteranceBatch:
        """One micro-batch of a step, on the CPU."""
        return self.train.batch(step, micro_batch)

    def batch_ids(self, batch: UtteranceBatch) -> list[str]:
        """The batch's turn ids."""
        return batch.ids

    def frames(self, batch: UtteranceBatch) -> Tensor:
        """Returns the number of frames in a batch, without padding."""
        frame = self.trainer.tokenizer.config.samples_per_frame
        return ((batch.lengths + frame - 1) // frame).sum()

    def loss(
        self, name: str, module: nn.Module, batch: UtteranceBatch, step: int
    ) -> tuple[Tensor, dict[str, Tensor]] | None:
        """Returns a module's weighted loss and its parts; None before the discriminators are trained."""
        adversarial = self.weights.adversarial > 0 and step >= self.weights.adversarial_start
        if name == "discriminator":
            return self._discriminator_loss(module, batch) if adversarial else None
        outputs = self._outputs(module, batch, None if self.coded is None else self.coded(batch))
        names = list(self.compared)
        if not self.decoder_only:
            names += ["speaker", "emotion"]
        if not self.codes_fixed:
            names += ["commitment", "isotropy"]
            if not self.semantic_frozen:
                names += ["text", "reversal"]
            else:
                names.append("prediction")
        if self.teacher is not None:
            names.append("distillation")
        parts = {name: outputs[name] for name in names}
        total = torch.stack([getattr(self.weights, name) * value for name, value in parts.items()]).sum()
        if adversarial:
            discriminator = self.modules["discriminator"]
            count = self._discriminated(outputs["output"])
            fake = discriminator(outputs["output"][:count])
            with torch.no_grad():
                real = discriminator(outputs["target"][:count])
            parts["adversarial"] = adversarial_loss(fake)
            parts["feature_matching"] = feature_matching_loss(real, fake)
            total = total + balanced_adversarial_loss(
                outputs["balanced"],
                torch.stack([getattr(self.weights, n) * parts[n] for n in self.compared]).sum(),
                parts["adversarial"] + self.weights.feature_matching * parts["feature_matching"],
                self.weights.adversarial,
            )
        self._pending.append((batch.ids, {name: value.detach() for name, value in outputs.items()}))
        return total, {name: value.detach() for name, value in parts.items()}

    @torch.no_grad()
    def after_step(self, step: int) -> dict[str, Tensor]:
        """Updates the codebooks that are trained, from all ranks; returns their mean perplexity."""
        quantizer = self.trainer.tokenizer.quantizer
        if self.codes_fixed:
            self._pending.clear()
            return {}
        metrics, stacks = {}, []
        revive = step <= REVIVED_EVERY_STEP or step % REVIVE_EVERY == 0
        parts = [("acoustic", quantizer.acoustic, quantizer.semantic_codebooks)]
        if not self.semantic_frozen:
            parts.insert(0, ("semantic", quantizer.semantic, 0))
        for name, stack, first in parts:
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
        for name, stack, _ in parts:
            metrics[f"{name}_perplexity"] = perplexity(stack.usage).mean()
        self._pending.clear()
        return metrics

    @torch.no_grad()
    def validate(self, step: int) -> dict[str, float]:
        """Losses over up to 32 validation utterances, with all codebooks."""
        count = min(32, len(self.validation))
        batch = self.validation.in_order(0, count).to(self.device)
        outputs = self._outputs(self.trainer, batch)
        names = [*self.compared, "commitment", "prediction" if self.semantic_frozen else "text"]
        if self.teacher is not None:
            names.append("distillation")
        return {name: float(outputs[name]) for name in names}

    def originals(self) -> Clips:
        """Returns the first validation utterances at the tokenizer's sample rate."""
        batch = self.validation.in_order(0, SAMPLED_CLIPS)
        return self._clips(batch, batch.audio)

    @torch.no_grad()
    def samples(self, step: int) -> Clips:
        """Returns the same utterances decoded from all their codebooks."""
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

    def _outputs(
        self, module: nn.Module, batch: UtteranceBatch, coded: CodedBatch | None = None
    ) -> dict[str, Tensor]:
        """What the trainer returns for a batch; the teacher's features are computed first."""
        taught = None if self.teacher is None else self.teacher(batch.audio, batch.lengths)
        frames = self.train.config.slice_frames
        outputs: dict[str, Tensor] = module(batch, self.weights, frames, taught, coded)
        return outputs

    def _discriminator_loss(
        self, module: nn.Module, batch: UtteranceBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        kept = next(outputs for ids, outputs in self._pending if ids == batch.ids)
        count = self._discriminated(kept["output"])
        # In one call: half as many, twice as large convolutions.
        maps = module(torch.cat([kept["target"][:count], kept["output"][:count]]))
        real, fake = (
            [[m[part] for m in layers] for layers in maps] for part in (slice(count), slice(count, None))
        )
        loss = discriminator_loss(real, fake)
        return loss, {"hinge": loss.detach()}

    def _discriminated(self, output: Tensor) -> int:
        """Returns how many items of a micro-batch the discriminators are given."""
        return max(1, round(self.weights.discriminator_share * len(output)))

    def _initialise(self) -> None:
        """Before the engine takes the weights; from micro-batch 0 of each step, which every rank can make."""
        tokenizer = self.trainer.tokenizer
        frame = tokenizer.config.samples_per_frame
        batches = FEATURE_BATCHES if tokenizer.config.vocoder else START_BATCHES

        def clips() -> Iterator[tuple[Tensor, Tensor]]:
            for step in range(1, batches + 1):
                batch = self.batch(step, 0).to(self.device)
                audio = tokenizer.pad_to_frames(batch.audio)
                frames = torch.arange(audio.shape[-1] // frame, device=audio.device)
                yield audio, frames < (batch.lengths // frame).unsqueeze(1)

        generator = torch.Generator().manual_seed(self.train.seed)
        if tokenizer.config.vocoder:
            start_from_features(tokenizer.to(self.device), clips(), generator)
            return
        start_from_principal_components(
            tokenizer.to(self.device), clips(), generator, envelope=self.weights.envelope
        )


def _discriminators(config: TokenizerConfig) -> nn.Module:
    """Returns the discriminators of what a tokenizer's decoder is compared in."""
    if config.vocoder:
        return FeatureDiscriminators(WIDTH)
    return MagnitudeDiscriminators() if config.recover_phase else Discriminators()
