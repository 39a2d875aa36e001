"""Utterances encoded once, for the training of a decoder whose encoder and codebooks stay as they are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from csm.data.utterances import UtteranceBatch, UtteranceDataset
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.vocoder_features import STEPS_PER_FRAME

# Most bytes of encoded utterances that a rank keeps: some 200 hours.
KEPT_BYTES = 4 * 2**30


class CodedBatch(NamedTuple):
    """What the decoder of a tokenizer with a vocoder is trained on.

    Attributes:
        codes: int64 [B, K, T], 0 beyond the frames.
        predicted: The same as a voice predicts them; those of `codes` where there is no prediction.
        target: float32 [B, T * 8, 22], weighted features of the recordings, 0 beyond the frames.
        frames: int64 [B], frames of each utterance.
        speaker, emotion: Embeddings [B, E] and [B, M] of the whole turns.
    """

    codes: Int[Tensor, "B K T"]
    predicted: Int[Tensor, "B K T"]
    target: Float[Tensor, "B T2 C"]
    frames: Int[Tensor, " B"]
    speaker: Float[Tensor, "B E"]
    emotion: Float[Tensor, "B M"]


class _Coded(NamedTuple):
    """A whole turn: codes int16 [K, T] twice, features float16 [T * 8, 22], its two embeddings."""

    codes: Tensor
    predicted: Tensor
    features: Tensor
    speaker: Tensor
    emotion: Tensor

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self)


class CodedUtterances:
    """Turns of a dataset, each encoded when it is first drawn; long ones are cut at a frame.

    Encoding takes ten times as long as a step of the decoder. A turn is encoded as it was recorded, without
    the gain that the dataset draws.

    Args:
        tokenizer: A tokenizer with a vocoder, in eval mode or without layers that differ in training.
        dataset: Draws the turns.
        predicts: Gives a turn's codes as a voice predicts them, [K, T], by its id, or None.
    """

    def __init__(
        self,
        tokenizer: ConversationalRVQ,
        dataset: UtteranceDataset,
        predicts: Callable[[str], Tensor | None] | None = None,
    ) -> None:
        self._tokenizer, self._dataset, self._predicts = tokenizer, dataset, predicts
        self._kept: OrderedDict[int, _Coded] = OrderedDict()
        self._bytes = 0

    def __call__(self, batch: UtteranceBatch) -> CodedBatch:
        """Returns the turns of a batch from the frames on at which their stretches begin."""
        with torch.autocast(batch.audio.device.type, enabled=False):
            return self._batch(batch)

    def _batch(self, batch: UtteranceBatch) -> CodedBatch:
        frame, device = self._dataset.samples_per_frame, batch.audio.device
        most = batch.audio.shape[2] // frame
        turns, starts = [self._coded(place) for place in batch.places], (batch.first_sample // frame).tolist()
        counts = [min(most, turn.codes.shape[1] - start) for turn, start in zip(turns, starts, strict=True)]
        codes, predicted, target = [], [], []
        for turn, start, count in zip(turns, starts, counts, strict=True):
            codes.append(F.pad(turn.codes[:, start : start + count], (0, most - count)))
            predicted.append(F.pad(turn.predicted[:, start : start + count], (0, most - count)))
            inside = slice(STEPS_PER_FRAME * start, STEPS_PER_FRAME * (start + count))
            target.append(F.pad(turn.features[inside], (0, 0, 0, STEPS_PER_FRAME * (most - count))))
        return CodedBatch(
            torch.stack(codes).long().to(device),
            torch.stack(predicted).long().to(device),
            torch.stack(target).float().to(device),
            torch.tensor(counts, device=device),
            torch.stack([turn.speaker for turn in turns]).to(device),
            torch.stack([turn.emotion for turn in turns]).to(device),
        )

    def _coded(self, place: int) -> _Coded:
        if place in self._kept:
            self._kept.move_to_end(place)
            return self._kept[place]
        found = self._kept[place] = self._encode(place)
        self._bytes += found.nbytes
        while self._bytes > KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return found

    @torch.no_grad()
    def _encode(self, place: int) -> _Coded:
        tokenizer, (turn, samples, _) = self._tokenizer, self._dataset.sounds[place]
        audio = (samples.float() / 32767).view(1, 1, -1).to(tokenizer.device)
        audio = tokenizer.pad_to_frames(audio)
        latent, spectra = tokenizer.encoder(audio[:, 0])
        codes = tokenizer.quantizer(latent, semantic=tokenizer.semantic_rows(audio[:, 0])).codes
        lengths = torch.tensor([len(samples)], device=audio.device)
        speaker, emotion = tokenizer.embed_utterance(spectra, lengths)
        features = latent[0].unflatten(-1, (STEPS_PER_FRAME, -1)).flatten(0, 1)
        own = codes[0].short().cpu()
        predicted = None if self._predicts is None else self._predicts(turn.id)
        # A voice may model fewer codebooks: the others are the recording's.
        if predicted is not None and predicted.shape[1] == own.shape[1]:
            predicted = torch.cat([predicted.short(), own[len(predicted) :]])
        else:
            predicted = own
        return _Coded(own, predicted, features.half().cpu(), speaker[0].cpu(), emotion[0].cpu())
