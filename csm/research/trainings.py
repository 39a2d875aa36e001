"""The trainings of a question: every arm at every seed, each resumed where it was stopped."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from csm.recipes.run_config import RunConfig
from csm.recipes.run_files import WEIGHTS
from csm.recipes.steps.train_model import train_model
from csm.research.question import Question
from csm.system.digests import sha256_of
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
    """Trains what is not trained yet; returns the folder of each arm by seed.

    Raises:
        ValueError: Two arms of a seed have the same weights: what they differ in did not reach the training.
    """
    folders: dict[int, dict[str, Path]] = {}
    for number, training in enumerate(trainings):
        log.info("training %d of %d: %s, seed %d", number + 1, len(trainings), training.arm, training.seed)
        train_model(training.recipe, codes, training.folder, device)
        gc.collect()  # models are parts of cycles: half a gigabyte each would wait for its turn
        arms = folders.setdefault(training.seed, {})
        weights = sha256_of(training.folder / WEIGHTS)
        for arm, folder in arms.items():
            if sha256_of(folder / WEIGHTS) == weights:
                raise ValueError(
                    f"{folder} and {training.folder} hold the same weights: expected that {arm} and "
                    f"{training.arm} differ; what the arms vary has no effect in this recipe (a model that "
                    f"model_start names keeps what it was made with)"
                )
        arms[training.arm] = training.folder
    return folders
