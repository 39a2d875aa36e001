"""The learning rate as a pure function of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from csm.training.options import TrainingConfig


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Returns the learning rate of optimizer step `step` (the first step is 1).

    Linear from 0 to the peak over `warmup_steps`, then half a cosine (SGDR, arXiv:1608.03983, one cycle)
    down to `final_learning_rate_ratio` of the peak at the last step.
    """
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    floor = config.final_learning_rate_ratio
    return config.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def average_decay(ema_decay: float, updates: int) -> float:
    """Returns the decay of the weight average after `updates` updates.

    It grows as (1 + n) / (10 + n), so that the weight of the initial values decays quickly; the rule of
    TensorFlow's ExponentialMovingAverage(num_updates).
    """
    return min(ema_decay, (1 + updates) / (10 + updates))
