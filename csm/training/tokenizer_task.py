"""Training of the voice tokenizer: what one step computes, for the loop of `csm.training.loop`."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from csm.data.utterances import CTC_ALPHABET, UtteranceBatch, UtteranceDataset
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.discriminator import Discriminator
from csm.tokenizer.losses import (
    MagnitudeLoss,
    SpectralLoss,
    TokenizerLossConfig,
    adversarial_loss,
    balanced_judges_loss,
    discriminator_loss,
    distillation_loss,
    feature_matching_loss,
)
from csm.tokenizer.phase_recovery import PhaseRecovery
from csm.tokenizer.quantizer import Quantized
from csm.tokenizer.spectrum import MAGNITUDE_FLOOR
from csm.training.samples import Clips
from csm.training.teacher import Teacher, TeacherFrames
from csm_kernels import ema_update_stacks

# CTC needs at least one output per letter: four per frame are 50 a second, above any speaker's rate.
CTC_OUTPUTS_PER_FRAME = 4
LOG_FLOOR = math.log(MAGNITUDE_FLOOR)
# Validation clips to listen to: few enough to be heard one after the other.
SAMPLED_CLIPS = 4


class TokenizerTrainer(nn.Module):
    """The tokenizer with the heads that only training needs: CTC text, speaker classes, prosody statistics.

    Args:
        tokenizer: Trained in place.
        num_speakers: Classes of the speaker loss.
        num_statistics: Prosody statistics of an utterance.
        teacher_width: Of the features that a teacher gives; 0: there is none.
    """

    def __init__(
        self,
        tokenizer: ConversationalRVQ,
        num_speakers: int,
        num_statistics: int = 6,
        *,
        teacher_width: int = 0,
    ) -> None:
        super().__init__()
        config = tokenizer.config
        self.tokenizer = tokenizer
        self.text_context = nn.Conv1d(config.codebook_dim, 256, 5, padding=2)
        # The lines come back every epoch: without it the head knows them by heart (docs/LOG.md).
        self.text_dropout = nn.Dropout(0.3)
        self.text_head = nn.Linear(256, CTC_OUTPUTS_PER_FRAME * len(CTC_ALPHABET))
        self.reversal_head = nn.Sequential(
            nn.Linear(config.codebook_dim, 128), nn.ReLU(), nn.Linear(128, num_speakers)
        )
        self.speaker_classes = nn.Parameter(torch.randn(num_speakers, config.speaker_dim) * 0.1)
        self.statistics_head = nn.Linear(config.emotion_dim, num_statistics)
        self.spectral_loss = SpectralLoss(config.sample_rate)
        self.magnitude_loss = MagnitudeLoss(config.sample_rate, tokenizer.encoder.spectrum.window_length)
        if teacher_width:
            # The last one drawn: the others start as they do without a teacher.
            self.teacher_head = nn.Linear(config.codebook_dim, teacher_width)

    def forward(
        self,
        batch: UtteranceBatch,
        weights: TokenizerLossConfig,
        slice_frames: int,
        taught: TeacherFrames | None = None,
    ) -> dict[str, Tensor]:
        """Losses by name, the decoded slices beside the originals, and what the codebook update needs.

        Args:
            batch: Utterances; their encoder sees the whole, the decoder `slice_frames` of it.
            weights: For its shares of dropout and bypass, which count in training mode alone.
            slice_frames: Frames decoded and compared.
            taught: What the teacher says of the batch, where there is one.

        Returns:
            Scalars mel, magnitude, commitment, isotropy, text, speaker, reversal, emotion, and
            distillation where taught; codes [B, K, T]; semantic_rows and acoustic_rows [B * T, C]; levels
            int64 [B]; valid bool [B, T]. Where phases are recovered: scalar bins. Else: output and target
            [B, 1, S] and features [B, T2, C] of the decoder's head.
        """
        tokenizer = self.tokenizer
        frame = tokenizer.config.samples_per_frame
        latent, features = tokenizer.encoder(batch.audio[:, 0])
        frames = torch.arange(latent.shape[1], device=latent.device)
        valid = frames < ((batch.lengths + frame - 1) // frame).unsqueeze(1)
        levels = self._draw_levels(batch.levels, weights)
        bypass = (batch.levels[:, 2] < weights.bypass) if self.training else None
        quantized = tokenizer.quantizer(latent, levels, valid, bypass=bypass)
        speaker, emotion = tokenizer.embed_utterance(features, batch.lengths)

        keep = (batch.condition >= weights.condition_dropout).to(latent.dtype).unsqueeze(1)
        # Detached: the embeddings are trained to identify, not to smuggle sound past the codes.
        condition = tokenizer.condition(len(latent), speaker.detach() * keep, emotion.detach() * keep)
        known = tokenizer.decoder.frames(quantized.latent, condition)
        if tokenizer.config.recover_phase:
            sound = self._magnitudes(known, features, batch.lengths)
        else:
            sound = self._waveforms(known, batch, slice_frames)
        outputs = {} if taught is None else {"distillation": self._teacher_loss(quantized, valid, taught)}
        return (
            outputs
            | sound
            | {
                "commitment": quantized.commitment_loss,
                "isotropy": quantized.isotropy_loss,
                "text": self._text_loss(quantized.semantic, valid, batch),
                "speaker": self._speaker_loss(speaker, batch.speaker),
                "reversal": self._reversal_loss(quantized.semantic, valid, batch.speaker),
                "emotion": F.mse_loss(self.statistics_head(emotion), batch.statistics),
                "codes": quantized.codes,
                "semantic_rows": quantized.semantic_rows,
                "acoustic_rows": quantized.acoustic_rows,
                "levels": levels,
                "valid": valid,
            }
        )

    def _magnitudes(self, known: Tensor, features: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Whole utterances compared at the decoder's STFT: no waveform is made."""
        tokenizer = self.tokenizer
        head, spectrum = tokenizer.decoder.head, tokenizer.encoder.spectrum
        assert isinstance(head, PhaseRecovery)
        predicted = head.log_magnitude(tokenizer.decoder.features(known)).clamp(min=LOG_FLOOR)
        steps = torch.arange(features.shape[1], device=features.device)
        heard = (steps < ((lengths + spectrum.hop - 1) // spectrum.hop).unsqueeze(1)).float()
        losses = self.magnitude_loss(predicted, spectrum.log_magnitude(features), heard)
        return dict(zip(("mel", "magnitude", "bins"), losses, strict=True))

    def _waveforms(self, known: Tensor, batch: UtteranceBatch, slice_frames: int) -> dict[str, Tensor]:
        """A slice of every utterance decoded to sound and compared with the original."""
        tokenizer, frame = self.tokenizer, self.tokenizer.config.samples_per_frame
        window = batch.slice_start.unsqueeze(1) + torch.arange(slice_frames, device=known.device)
        window = window.clamp(max=known.shape[1] - 1)
        chosen = known.gather(1, window.unsqueeze(-1).expand(-1, -1, known.shape[2]))
        features = tokenizer.decoder.features(chosen)
        output = tokenizer.decoder.head(features).unsqueeze(1)
        samples = (window.unsqueeze(-1) * frame + torch.arange(frame, device=known.device)).flatten(1)
        target = batch.audio[:, 0].gather(1, samples)
        # The last `delay` samples of a slice lack the frames that complete them.
        mask = (samples < batch.lengths.unsqueeze(1)).float()
        mask[:, -tokenizer.latency_samples :] = 0
        output, target = output * mask.unsqueeze(1), target * mask
        mel, magnitude = self.spectral_loss(output[:, 0], target, mask.mean())
        return {
            "mel": mel,
            "magnitude": magnitude,
            "features": features,
            "output": output,
            "target": target.unsqueeze(1),
        }

    def _draw_levels(self, draws: Float[Tensor, "B 3"], weights: TokenizerLossConfig) -> Tensor:
        """Codebooks used by each item: all, or under quantizer dropout a uniform share of at least one."""
        count = self.tokenizer.config.n_codebooks
        if not self.training:
            return torch.full_like(draws[:, 0], count, dtype=torch.int64)
        dropped = 1 + (draws[:, 1] * (count - 1)).long()
        return torch.where(draws[:, 0] < weights.quantizer_dropout, dropped, torch.full_like(dropped, count))

    def _text_loss(self, semantic: Tensor, valid: Tensor, batch: UtteranceBatch) -> Tensor:
        hidden = F.gelu(self.text_context((semantic * valid.unsqueeze(-1)).transpose(1, 2))).transpose(1, 2)
        symbols = (
            self.text_head(self.text_dropout(hidden)).reshape(len(hidden), -1, len(CTC_ALPHABET)).float()
        )
        lengths = valid.sum(dim=1) * CTC_OUTPUTS_PER_FRAME
        loss = F.ctc_loss(
            symbols.log_softmax(-1).transpose(0, 1),
            batch.text,
            lengths,
            batch.text_lengths,
            reduction="none",
            zero_infinity=True,
        )
        known = (batch.text_lengths > 0).float()
        return (loss * known / batch.text_lengths.clamp_min(1)).sum() / known.sum().clamp_min(1)

    def _teacher_loss(self, quantized: Quantized, valid: Tensor, taught: TeacherFrames) -> Tensor:
        return distillation_loss(self.teacher_head(quantized.semantic), taught.features, valid & taught.known)

    def _reversal_loss(self, semantic: Tensor, valid: Tensor, speaker: Tensor) -> Tensor:
        """The head learns to tell speakers apart by a clip's mean; the codes learn the opposite."""
        weight = valid.unsqueeze(-1).to(semantic.dtype)
        mean = (semantic * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1)
        return F.cross_entropy(self.reversal_head(2 * mean.detach() - mean), speaker)

    def _speaker_loss(self, speaker: Tensor, target: Tensor) -> Tensor:
        """Additive-margin softmax (Wang et al. 2018), scale 20, margin 0.2."""
        cosine = speaker @ F.normalize(self.speaker_classes, dim=-1).T
        margin = F.one_hot(target, cosine.shape[1]).to(cosine.dtype) * 0.2
        return F.cross_entropy((cosine - margin) * 20, target)


class TokenizerTask:
    """The Task of the training loop: tokenizer first, then (from `adversarial_start` on) its judges.

    Args:
        tokenizer: Trained in place.
        train, validation: Utterances; `train` also tells the length of the decoded slices.
        loss: Weights of the parts.
        initialise_codebooks: Set the codebooks from the first batch, for a tokenizer that is not trained yet.
        decoder_only: Encoder and codebooks stay as they are, so that codes keep their meaning.
        device: Where the modules are.
        teacher: Of the semantic codebooks; moved to the device, not trained and not saved.

    Raises:
        ValueError: Both decoder_only and initialise_codebooks or a teacher.
    """

    def __init__(
        self,
        tokenizer: ConversationalRVQ,
        train: UtteranceDataset,
        validation: UtteranceDataset,
        loss: TokenizerLossConfig,
        *,
        initialise_codebooks: bool,
        decoder_only: bool,
        device: torch.device,
        teacher: Teacher | None = None,
    ) -> None:
        if decoder_only and teacher is not None:
            raise ValueError("decoder_only keeps the codes as they are, so a teacher can teach nothing")
        if decoder_only and initialise_codebooks:
            raise ValueError(
                "decoder_only keeps the codebooks, initialise_codebooks replaces them: give a tokenizer that "
                "is trained already and leave initialise_codebooks out"
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
            self.modules["discriminator"] = Discriminator()
        self.train, self.validation, self.weights, self.device = train, validation, loss, device
        self.initialise_codebooks = initialise_codebooks
        self._pending: list[tuple[list[str], dict[str, Tensor]]] = []

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
        if step == 1 and self.initialise_codebooks and not self._pending:
            self._initialise()
        outputs = self._outputs(module, batch)
        names = ["mel", "magnitude", *(["bins"] if self.trainer.tokenizer.config.recover_phase else [])]
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
            total = total + balanced_judges_loss(
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
            share = stack.usage / stack.usage.sum(dim=1, keepdim=True)
            entropy = -(share * share.clamp_min(1e-9).log()).sum(dim=1)
            metrics[f"{name}_perplexity"] = entropy.exp().mean()
        self._pending.clear()
        return metrics

    @torch.no_grad()
    def validate(self, step: int) -> dict[str, float]:
        """Losses over up to 32 validation utterances, with all codebooks."""
        count = min(32, len(self.validation))
        batch = self.validation.in_order(0, count).to(self.device)
        outputs = self._outputs(self.trainer, batch)
        names = ["mel", "magnitude", "commitment", "text"]
        if self.trainer.tokenizer.config.recover_phase:
            names.append("bins")
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
        return max(1, round(self.weights.judged * len(output)))

    @torch.no_grad()
    def _initialise(self) -> None:
        """Codebooks start at vectors of the first batch (shard 0 on every rank, so that all ranks agree)."""
        first = self.batch(1, 0).to(self.device)
        quantizer = self.trainer.tokenizer.quantizer
        latent, _ = self.trainer.tokenizer.encoder(first.audio[:, 0])
        generator = torch.Generator().manual_seed(self.train.seed)
        for stack, project in (
            (quantizer.semantic, quantizer.semantic_in),
            (quantizer.acoustic, quantizer.acoustic_in),
        ):
            stack.initialise(project(latent).reshape(-1, stack.codebook_dim), generator)


def codebook_report(tokenizer: ConversationalRVQ, codes: list[Tensor]) -> dict[str, object]:
    """Usage, perplexity 2^H and dead codes of every codebook over codes [K, T] of a corpus."""
    size = tokenizer.config.codebook_size
    joined = torch.cat([c.cpu() for c in codes], dim=1)
    usage, perplexity, dead = [], [], []
    for row in joined:
        count = torch.bincount(row, minlength=size).double()
        share = count[count > 0] / count.sum()
        usage.append(round(float((count > 0).double().mean()), 4))
        perplexity.append(round(float(torch.exp(-(share * share.log()).sum())), 2))
        dead.append(int((count == 0).sum()))
    return {
        "codebook_size": size,
        "frames": joined.shape[1],
        "usage": usage,
        "perplexity": perplexity,
        "dead": dead,
    }
