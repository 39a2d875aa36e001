"""The tokenizer with the heads that only training needs, and what one batch costs them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from csm.data.utterances import UtteranceBatch
from csm.spelling import LETTERS
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.quantizer import Quantized
from csm.tokenizer.training.losses import CTC_OUTPUTS_PER_FRAME, TokenizerLossConfig, distillation_loss
from csm.tokenizer.training.spectral_losses import MagnitudeLoss, SpectralLoss
from csm.tokenizer.vocoder_features import HOP, STEPS_PER_FRAME
from csm.training.coded_utterances import CodedBatch
from csm.training.teacher import TeacherFrames


class TokenizerTrainer(nn.Module):
    """The tokenizer with the heads that only training needs: CTC text, speaker classes, prosody statistics.

    Args:
        tokenizer: Trained in place.
        num_speakers: Classes of the speaker loss.
        num_statistics: Prosody statistics of an utterance.
        teacher_width: Of the features that a teacher gives; 0: there is none.
        envelope: Weight of the spectral envelope in the loss of magnitudes.
    """

    def __init__(
        self,
        tokenizer: ConversationalRVQ,
        num_speakers: int,
        num_statistics: int = 6,
        *,
        teacher_width: int = 0,
        envelope: float = 1.0,
    ) -> None:
        super().__init__()
        config = tokenizer.config
        self.tokenizer = tokenizer
        if tokenizer.semantic_encoder is None:  # else the semantic codes are trained before, by text
            self.text_context = nn.Conv1d(config.codebook_dim, 256, 5, padding=2)
            # The same lines come every epoch: without dropout the head overfits to them (docs/LOG.md).
            self.text_dropout = nn.Dropout(0.3)
            self.text_head = nn.Linear(256, CTC_OUTPUTS_PER_FRAME * len(LETTERS))
            self.reversal_head = nn.Sequential(
                nn.Linear(config.codebook_dim, 128), nn.ReLU(), nn.Linear(128, num_speakers)
            )
        self.speaker_classes = nn.Parameter(torch.randn(num_speakers, config.speaker_dim) * 0.1)
        self.statistics_head = nn.Linear(config.emotion_dim, num_statistics)
        self.spectral_loss = SpectralLoss(config.sample_rate)
        self.magnitude_loss = MagnitudeLoss(
            config.sample_rate, tokenizer.encoder.spectrum.window_length, envelope=envelope
        )
        if teacher_width:
            # The last one drawn: the others start as they do without a teacher.
            self.teacher_head = nn.Linear(config.codebook_dim, teacher_width)

    def forward(
        self,
        batch: UtteranceBatch,
        weights: TokenizerLossConfig,
        slice_frames: int,
        taught: TeacherFrames | None = None,
        coded: CodedBatch | None = None,
    ) -> dict[str, Tensor]:
        """Losses by name, the decoded slices beside the originals, and what the codebook update needs.

        Args:
            batch: Utterances; their encoder sees the whole, the decoder `slice_frames` of it.
            weights: For its shares of dropout and bypass, which count in training mode alone.
            slice_frames: Frames decoded and compared.
            taught: What the teacher says of the batch, where there is one.
            coded: The batch as codes, where nothing but a vocoder's decoder is trained: vocoder, levels,
                balanced, output and target are then all that is returned.

        Returns:
            Scalars mel and magnitude, or vocoder where one speaks, commitment, isotropy, speaker and emotion;
            prediction with a semantic encoder, text and reversal without; distillation where taught. Codes
            [B, K, T]; semantic_rows and acoustic_rows [B * T, C]; levels int64 [B]; valid bool [B, T];
            balanced [B, T2, C], where the gradients of comparison and discriminators are balanced: the input
            of the decoder's head, or the features of a vocoder. Output and target: waveforms [B, 1, S] of a
            slice, compressed magnitudes [B, T3, bins] of one where phases are recovered, or all features
            [B, T2, 22] of a vocoder.
        """
        if coded is not None:
            return self._decoded(coded, batch, weights)
        tokenizer = self.tokenizer
        frame = tokenizer.config.samples_per_frame
        latent, features = tokenizer.encoder(batch.audio[:, 0])
        frames = torch.arange(latent.shape[1], device=latent.device)
        valid = frames < ((batch.lengths + frame - 1) // frame).unsqueeze(1)
        levels = self._draw_levels(batch.levels, weights)
        bypass = (batch.levels[:, 2] < weights.bypass) if self.training else None
        with torch.no_grad():  # a semantic encoder is trained before and stays as it is
            semantic = tokenizer.semantic_rows(batch.audio[:, 0])
        quantized = tokenizer.quantizer(latent, levels, valid, bypass=bypass, semantic=semantic)
        speaker, emotion = tokenizer.embed_utterance(features, batch.lengths)

        keep = (batch.condition >= weights.condition_dropout).to(latent.dtype).unsqueeze(1)
        # Detached: the embeddings are trained to identify, not to smuggle sound past the codes.
        condition = tokenizer.condition(len(latent), speaker.detach() * keep, emotion.detach() * keep)
        known = tokenizer.decoder.frames(quantized.latent, condition)
        if tokenizer.config.vocoder:
            target = latent.unflatten(-1, (STEPS_PER_FRAME, -1)).flatten(1, 2)
            steps = torch.arange(target.shape[1], device=target.device)
            sound = self._vocoder_features(known, target, steps * HOP < batch.lengths.unsqueeze(1))
        elif tokenizer.config.recover_phase:
            sound = self._magnitudes(known, features, batch, slice_frames)
        else:
            sound = self._waveforms(known, batch, slice_frames)
        outputs = {} if taught is None else {"distillation": self._teacher_loss(quantized, valid, taught)}
        if tokenizer.semantic_encoder is None:
            outputs["text"] = self._text_loss(quantized.semantic, valid, batch)
            outputs["reversal"] = self._reversal_loss(quantized.semantic, valid, batch.speaker)
        else:
            outputs["prediction"] = quantized.prediction_loss
        return (
            outputs
            | sound
            | {
                "commitment": quantized.commitment_loss,
                "isotropy": quantized.isotropy_loss,
                "speaker": self._speaker_loss(speaker, batch.speaker),
                "emotion": F.mse_loss(self.statistics_head(emotion), batch.statistics),
                "codes": quantized.codes,
                "semantic_rows": quantized.semantic_rows,
                "acoustic_rows": quantized.acoustic_rows,
                "levels": levels,
                "valid": valid,
            }
        )

    def _magnitudes(
        self, known: Tensor, spectra: Tensor, batch: UtteranceBatch, slice_frames: int
    ) -> dict[str, Tensor]:
        """Whole utterances compared at the decoder's STFT: no waveform is made."""
        tokenizer = self.tokenizer
        spectrum = tokenizer.encoder.spectrum
        features = tokenizer.decoder.features(known)
        predicted = tokenizer.decoder.magnitude_head(known, features)
        target = spectrum.compressed(spectra)
        steps = torch.arange(spectra.shape[1], device=spectra.device)
        inside = (steps < ((batch.lengths + spectrum.hop - 1) // spectrum.hop).unsqueeze(1)).float()
        mel, magnitude = self.magnitude_loss(predicted, target, inside)
        hops = tokenizer.config.hops_per_frame
        window = hops * batch.slice_start.unsqueeze(1) + steps[: hops * slice_frames]
        window = window.clamp(max=len(steps) - 1).unsqueeze(-1).expand(-1, -1, target.shape[-1])
        output, wanted = ((x * inside.unsqueeze(-1)).gather(1, window) for x in (predicted, target))
        return {
            "mel": mel,
            "magnitude": magnitude,
            "balanced": features,
            "output": output,
            "target": wanted,
        }

    def _decoded(
        self, coded: CodedBatch, batch: UtteranceBatch, weights: TokenizerLossConfig
    ) -> dict[str, Tensor]:
        """Decodes codes, each item from its share of the codebooks, and compares the features."""
        tokenizer = self.tokenizer
        levels = self._draw_levels(batch.levels, weights)
        if self.training:
            # Another draw than the levels': of those that are decoded from a voice's predictions, all count.
            predicted = batch.levels[:, 2] < weights.predicted_share
            levels = levels.masked_fill(predicted, tokenizer.config.n_codebooks)
            chosen = torch.where(predicted.view(-1, 1, 1), coded.predicted, coded.codes)
        else:
            chosen = coded.codes
        # In fp32 under any autocast, as where codes are made from sound.
        with torch.no_grad(), torch.autocast(chosen.device.type, enabled=False):
            pairs = zip(chosen, levels.tolist(), strict=True)
            parts = [tokenizer.quantizer.decode(codes[None, :count]) for codes, count in pairs]
            latent = torch.cat(parts)
        keep = (batch.condition >= weights.condition_dropout).to(latent.dtype).unsqueeze(1)
        condition = tokenizer.condition(len(latent), coded.speaker * keep, coded.emotion * keep)
        steps = torch.arange(coded.target.shape[1], device=latent.device)
        inside = steps < STEPS_PER_FRAME * coded.frames.unsqueeze(1)
        known = tokenizer.decoder.frames(latent, condition)
        return self._vocoder_features(known, coded.target, inside) | {"levels": levels}

    def _vocoder_features(
        self, known: Tensor, target: Float[Tensor, "B T C"], inside: Bool[Tensor, "B T"]
    ) -> dict[str, Tensor]:
        """The weighted features that a vocoder would speak from, compared with the encoder's inside clips."""
        decoder = self.tokenizer.decoder
        features = decoder.features(known)
        predicted = decoder.feature_head(known, features)
        counted = inside.float().unsqueeze(-1)
        distance = ((predicted - target).abs() * counted).sum() / (counted.sum() * target.shape[-1])
        # The head has a path around `features`: gradients are balanced behind it.
        return {
            "vocoder": distance,
            "balanced": predicted,
            "output": predicted * counted,
            "target": target * counted,
        }

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
            "balanced": features,
            "output": output,
            "target": target.unsqueeze(1),
        }

    def _draw_levels(self, draws: Float[Tensor, "B 3"], weights: TokenizerLossConfig) -> Tensor:
        """Codebooks used by each item: all, the semantic ones, or a uniform share of at least one."""
        config = self.tokenizer.config
        count, semantic = config.n_codebooks, config.semantic_codebooks
        if not self.training:
            return torch.full_like(draws[:, 0], count, dtype=torch.int64)
        dropped = 1 + (draws[:, 1] * (count - 1)).long()
        levels = torch.where(
            draws[:, 0] < weights.quantizer_dropout, dropped, torch.full_like(dropped, count)
        )
        return levels.masked_fill(draws[:, 0] >= 1 - weights.semantic_only, semantic)

    def _text_loss(self, semantic: Tensor, valid: Tensor, batch: UtteranceBatch) -> Tensor:
        hidden = F.gelu(self.text_context((semantic * valid.unsqueeze(-1)).transpose(1, 2))).transpose(1, 2)
        symbols = self.text_head(self.text_dropout(hidden)).reshape(len(hidden), -1, len(LETTERS)).float()
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
        """The head learns a clip's speaker from its mean; the codes get the gradient reversed."""
        weight = valid.unsqueeze(-1).to(semantic.dtype)
        mean = (semantic * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1)
        # Of the mean's direction alone: else the codes outrun the head by growing without bound.
        mean = F.layer_norm(mean, mean.shape[-1:])
        return F.cross_entropy(self.reversal_head(2 * mean.detach() - mean), speaker)

    def _speaker_loss(self, speaker: Tensor, target: Tensor) -> Tensor:
        """Additive-margin softmax (Wang et al. 2018), scale 20, margin 0.2."""
        cosine = speaker @ F.normalize(self.speaker_classes, dim=-1).T
        margin = F.one_hot(target, cosine.shape[1]).to(cosine.dtype) * 0.2
        return F.cross_entropy((cosine - margin) * 20, target)
