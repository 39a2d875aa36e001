"""A research question: the models that it trains, what it measures of them, and what it claims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from csm.evaluation.core.metric import Scores
from csm.evaluation.core.report import Missing
from csm.recipes.run_config import RunConfig
from csm.research.material import Material


class Claim(NamedTuple):
    """A sentence that figures support or not.

    Attributes:
        text: The sentence.
        metric: Name of the metric that decides it, with direction "lower" or "higher".
        arm: What is claimed to be better. against: What it is better than.
        least: Smallest difference that counts, in units of the metric, above 0.
    """

    text: str
    metric: str
    arm: str
    against: str
    least: float


class Measured(NamedTuple):
    """Scores of one arm at one seed."""

    arm: str
    seed: int
    scores: Scores


class Question(Protocol):
    """A question is one file: an object with these attributes and two methods.

    Attributes:
        name: Name of the command. title: Heading of the page.
        summary: What is trained and measured, for the page.
        claims: Decided together (`csm.research.verdict`).
    """

    name: str
    title: str
    summary: str
    claims: tuple[Claim, ...]

    def arms(self, base: RunConfig) -> Mapping[str, RunConfig]:
        """Returns the recipe of each model that is trained, once a seed; none for a question about codes.

        Args:
            base: Recipe that they are variants of.

        Raises:
            ValueError: The base lacks what the question varies.
        """
        ...

    def measure(self, material: Material, models: Mapping[str, Path]) -> Iterator[Measured | Missing]:
        """Yields what is measured at one seed; what cannot be measured, with the reason.

        Args:
            material: Held-out turns, tokenizer and sizes.
            models: Folder of each arm's trained model.
        """
        ...
