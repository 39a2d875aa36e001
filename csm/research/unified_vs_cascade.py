"""One model that speaks and transcribes, against two of its size in all, and a recogniser with a voice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from csm.evaluation.core.evaluators import EvaluatorUnavailable
from csm.evaluation.core.report import Missing
from csm.evaluation.metrics.words import WhisperRecogniser
from csm.model import CSMModel
from csm.network.model_config import CSMConfig
from csm.recipes.run_config import RunConfig
from csm.research.equal_sizes import of_size, parameters_of
from csm.research.material import Material
from csm.research.nats import part_scores
from csm.research.question import Claim, Measured
from csm.research.turns_of_both import HEARD, LATENCY, SPOKEN, heard, latencies, lines_of, spoken

UNIFIED, SPEAKING, HEARING = "unified", "speaking", "hearing"
CASCADE, RECOGNISER = "hearing, then speaking", "recogniser, then speaking"


class UnifiedVsCascade:
    """Trains one model of both tasks, and one of half its size for each."""

    name = "unified_vs_cascade"
    title = "Is one model better than a cascade?"
    summary = (
        "One model is trained to speak and to transcribe; a second one of half its parameters to speak "
        "alone, and a third one, as large as the second, to transcribe alone. Each is trained for as many "
        "steps, so that the two small ones together take about the computation of the large one. They are "
        "measured on the same held-out turns: nats, word errors of what is written, word errors of what is "
        "spoken by a recogniser, and the time from the end of a heard turn to the first frame of the answer. "
        "The recogniser alone is another reference: it was trained on far more speech."
    )
    claims: tuple[Claim, ...] = (
        Claim("The one model predicts code 0 better than the one that only speaks.",
              "codebook0", UNIFIED, SPEAKING, 0.01),
        Claim("The one model transcribes with fewer word errors than the one that only transcribes.",
              HEARD, UNIFIED, HEARING, 0.01),
        Claim("The one model is understood with fewer word errors than the one that only speaks.",
              SPOKEN, UNIFIED, SPEAKING, 0.01),
        Claim("The one model answers earlier than the two.", LATENCY, UNIFIED, CASCADE, 0.01),
        Claim("The one model answers earlier than a recogniser and a voice.",
              LATENCY, UNIFIED, RECOGNISER, 0.01),
    )  # fmt: skip

    def arms(self, base: RunConfig) -> dict[str, RunConfig]:
        """Returns three recipes.

        Raises:
            ValueError: The base does not train both tasks, or it is too small to be halved.
        """
        if not 0 < base.data.transcribe_share < 1:
            raise ValueError(
                f"data.transcribe_share is {base.data.transcribe_share}: expected a share of both tasks; set "
                f"data.transcribe_share=0.3"
            )
        half = parameters_of(base.model) // 2
        speaks = replace(base.model, letters_per_frame=0)
        # A model that only transcribes never runs its depth decoder.
        listens = replace(
            base.model, depth_d_model=2 * base.model.depth_n_heads, depth_n_layers=1, depth_d_ff=0
        )
        return {
            UNIFIED: base,
            SPEAKING: _alone(base, of_size(speaks, half), share=0.0),
            HEARING: _alone(base, of_size(listens, half), share=1.0),
        }

    def measure(self, material: Material, models: Mapping[str, Path]) -> Iterator[Measured | Missing]:
        """Yields nats, word errors and times."""
        seed = material.seed
        loaded = {arm: CSMModel.from_pretrained(folder) for arm, folder in models.items()}
        for arms, transcribed, parts in (
            ((UNIFIED, SPEAKING), False, ("codebook0", "semantic", "acoustic")),
            ((UNIFIED, HEARING), True, ("text", "letters")),
        ):
            stretches = material.held_out(with_past=False, local=False, transcribed=transcribed)
            for arm in arms:
                for scores in part_scores(loaded[arm], stretches, parts):
                    yield Measured(arm, seed, scores)
        if material.lines:
            yield from self._lines(material, loaded)

    def _lines(self, material: Material, loaded: Mapping[str, CSMModel]) -> Iterator[Measured | Missing]:
        """Yields what is measured line by line, with the recogniser where it is installed."""
        lines, seed = lines_of(material), material.seed
        recogniser: WhisperRecogniser | None = None
        try:
            recogniser = WhisperRecogniser(material.asr)
        except EvaluatorUnavailable as error:
            yield Missing(SPOKEN, str(error))
        try:
            for arm in (UNIFIED, HEARING):
                yield Measured(arm, seed, heard(loaded[arm], lines))
            pairs = {UNIFIED: (UNIFIED, UNIFIED), CASCADE: (HEARING, SPEAKING)}
            for arm, (ear, voice) in pairs.items():
                yield Measured(arm, seed, latencies(material, loaded[ear], loaded[voice], lines))
            if recogniser is not None:
                yield Measured("recogniser", seed, heard(recogniser, lines, material))
                yield Measured(RECOGNISER, seed, latencies(material, recogniser, loaded[SPEAKING], lines))
                for arm in (UNIFIED, SPEAKING):
                    yield Measured(arm, seed, spoken(material, loaded[arm], lines, recogniser))
        except (EvaluatorUnavailable, ValueError) as error:
            yield Missing("lines", str(error))


def _alone(base: RunConfig, model: CSMConfig, *, share: float) -> RunConfig:
    return replace(base, model=model, data=replace(base.data, transcribe_share=share))
