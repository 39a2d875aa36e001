"""Calibration of a trained model: validation turns become as long by its two predictions as they were."""

from __future__ import annotations

import math

import torch

from csm.data.dataset import ConversationDataset
from csm.model import CSMModel
from csm.network.layers import PackedSequences
from csm.network.phone_durations import frames_of_ids
from csm.system.log import log

# Rows in which lengths are compared: a quarter of an hour.
LENGTH_ROWS = 20_000


@torch.no_grad()
def correct_lengths(model: CSMModel, validation: ConversationDataset) -> None:
    """Subtracts each head's mean error from its predictions.

    The head of durations learns medians, whose sum is shorter than the turns.

    Args:
        model: Finished, on the CPU.
        validation: Turns that were not trained on.
    """
    duration, phones = length_errors(model, validation)
    if not duration and not phones:
        log.info(
            "lengths: no validation turn with a known length, or no head that predicts one; not corrected"
        )
        return
    model.subtract_length_bias(duration, phones)
    log.info(
        "lengths: turns were predicted %.1f %% too long as a whole and %.1f %% by their phones; corrected",
        100 * math.expm1(duration),
        100 * math.expm1(phones),
    )


@torch.no_grad()
def length_errors(model: CSMModel, validation: ConversationDataset) -> tuple[float, float]:
    """Returns how much longer all turns together are by the model's two predictions, in log frames.

    The first is by the head of durations, the second by the durations of their text ids; 0 for a head that is
    not trained.
    """
    batch = validation.in_order(LENGTH_ROWS)
    hidden = model.eval().hidden_rows(batch)
    duration = phones = recorded = 0.0
    for span in batch.voice_spans:
        last = span.first_key + span.num_keys - 1
        target = float(batch.duration_target[last])
        if math.isnan(target):
            continue
        recorded += math.exp(target)
        duration += float(model.duration_head(hidden[last]).clamp(max=20.0).exp())
        if model.pace_head.is_trained():
            bounds = torch.tensor([0, span.num_keys], dtype=torch.int32)
            layout = PackedSequences.of(bounds, span.num_keys)
            phones += frames_of_ids(model.pace_head(hidden[span.first_key : last + 1], layout))
    return (
        math.log(duration / recorded) if recorded and model.predicts_durations() else 0.0,
        math.log(phones / recorded) if phones else 0.0,
    )
