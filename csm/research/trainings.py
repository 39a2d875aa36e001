"""The trainings of a question: every arm at every seed, each resumed where it was stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from csm.recipes.run_config import RunConfig
from csm.recipes.steps.train_model import train_model
from csm.research.question import Question
from csm.system.log import log


class Training(NamedTuple):
    """One model: its arm and seed, its recipe, and the folder of its run."""

    arm: str
    seed: int
    recipe: RunConfig
    folder: Path


def planned(question: Question, base: RunConfig, seeds: int, output: Path) -> list[Training]:
    """Returns all trainings of a question, arm after arm within each seed.

    Raises:
        ValueError: Fewer than 1 seed, or the base recipe lacks what the question varies.
    """
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}: expected 1 or more, 3 or more for a verdict")
    return [
        Training(arm, seed, with_seed(recipe, seed), output / f"seed{seed}" / arm)
        for seed in range(seeds)
        for arm, recipe in question.arms(base).items()
    ]


def with_seed(recipe: RunConfig, seed: int) -> RunConfig:
    """Returns the recipe at a seed, without samples to listen to."""
    return replace(recipe, training=replace(recipe.training, seed=seed, samples=False))


def with_steps(recipe: RunConfig, steps: int) -> RunConfig:
    """Returns a recipe whose model is trained for `steps` steps; its warm-up is shortened in proportion."""
    training = recipe.training
    warmup = min(training.warmup_steps, max(1, training.warmup_steps * steps // training.steps))
    return replace(recipe, training=replace(training, steps=steps, warmup_steps=warmup))


def train_all(trainings: list[Training], codes: Path, device: torch.device) -> dict[int, dict[str, Path]]:
    """Trains what is not trained yet; returns the folder of each arm by seed."""
    folders: dict[int, dict[str, Path]] = {}
    for number, training in enumerate(trainings):
        log.info("training %d of %d: %s, seed %d", number + 1, len(trainings), training.arm, training.seed)
        train_model(training.recipe, codes, training.folder, device)
        folders.setdefault(training.seed, {})[training.arm] = training.folder
    return folders
