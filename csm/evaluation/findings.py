"""What a section of the evaluation hands back: report entries, details for the page, what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from csm.evaluation.material import Material
from csm.evaluation.statistics import MetricInfo, Score, summarise


@dataclass
class Findings:
    """Grows while a section works.

    Attributes:
        material: what is judged.
        entries: metrics as they stand in ``report.json``.
        details: named data for the page (series, distributions).
        missing: reasons for metrics that could not be had at all.
    """

    material: Material
    entries: list[dict[str, Any]] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def add(self, info: MetricInfo, scores: Sequence[Score], *, condition: str, subset: str) -> None:
        """Summarises the scores of one metric; nothing is added where there are no inputs."""
        if scores:
            options = self.material.options
            self.entries.append(
                summarise(
                    info,
                    scores,
                    condition=condition,
                    subset=subset,
                    repeats=options.repeats,
                    seed=options.seed,
                )
            )
