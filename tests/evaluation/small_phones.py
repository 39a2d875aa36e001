"""Features of made-up phones: overlapping Gaussians, and words as sounds whose samples say the phone."""

import numpy as np
import torch

DIMENSIONS = 6
PHONES = tuple("h l ɛ i d p aɪ b eɪ s æ t ɹ ɪ w aʊ n u oʊ z k ə m v ɑ ɔ f".split())
_MEANS = dict(zip((*PHONES, " "), np.random.default_rng(9).normal(size=(28, DIMENSIONS)), strict=True))


def spoken(symbols, generator) -> torch.Tensor:
    """Features [N, 6] of one step each: the symbol's mean and noise."""
    noise = 0.7 * generator.normal(size=(len(symbols), DIMENSIONS))
    return torch.from_numpy(np.array([_MEANS[symbol] for symbol in symbols]) + noise).float()
