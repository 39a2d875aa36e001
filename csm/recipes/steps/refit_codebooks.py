"""Calibration of a trained tokenizer: its codebooks are fitted to the finished encoder."""

from __future__ import annotations

import torch

from csm.data.utterances import UtteranceDataset
from csm.system.log import log
from csm.tokenizer.conversational_rvq import ConversationalRVQ

# Frames that the codebooks are fitted to (4.4 hours), and utterances encoded at a time.
REFIT_FRAMES, REFIT_BATCH = 200_000, 16


@torch.no_grad()
def refit_codebooks(tokenizer: ConversationalRVQ, utterances: UtteranceDataset) -> None:
    """Sets the codebooks to the means of what the tokenizer encodes, on the CPU.

    In training they follow a moving encoder by a moving average; of the averaged weights that are exported, a
    tenth of the vectors describes nothing.

    Args:
        tokenizer: Trained, on the CPU; changed in place.
        utterances: Those that it was trained on.
    """
    frame, rows, predicted = tokenizer.config.samples_per_frame, [], []
    for first in range(0, len(utterances), REFIT_BATCH):
        batch = utterances.in_order(first, REFIT_BATCH)
        audio = tokenizer.pad_to_frames(batch.audio)[:, 0]
        latent, _ = tokenizer.encoder(audio)
        kept = torch.arange(latent.shape[1]) < (batch.lengths // frame).clamp_min(1).unsqueeze(1)
        rows.append(latent[kept])
        if (found := tokenizer.semantic_rows(audio)) is not None:
            predicted.append(tokenizer.quantizer.predicted_projection(found)[kept])
        if sum(map(len, rows)) >= REFIT_FRAMES:
            break
    latents = torch.cat(rows)
    log.info("codebooks: refitted to %d frames of the finished encoder", len(latents))
    generator = torch.Generator().manual_seed(utterances.seed)
    given = torch.cat(predicted) if predicted else None
    tokenizer.quantizer.fit(latents, generator, keep=True, predicted=given)
