"""What the memory of turns that have left the window is for: models with no, one or both kinds of slots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from csm.evaluation.core.evaluators import EvaluatorUnavailable
from csm.evaluation.core.report import Missing
from csm.model import CSMModel
from csm.recipes.run_config import RunConfig
from csm.research.evicted_voice import SIMILARITY, evicted_voice
from csm.research.material import Material
from csm.research.nats import of_another, part_scores
from csm.research.question import Claim, Measured

KINDS: dict[str, tuple[str, ...]] = {
    "none": (),
    "semantic": ("semantic",),
    "style": ("style",),
    "both": ("semantic", "style"),
}
OTHER = "both, memory of another conversation"
PARTS = ("codebook0", "semantic", "acoustic")


class Memory:
    """Trains four models in which a voice is known by context: speakers have local numbers alone."""

    name = "memory"
    title = "Does the memory of what was said, and how, matter?"
    summary = (
        "Four models of the same size are trained alike but for the slots that they read: none, semantic, "
        "style, or both. "
        "Every speaker has a number of the conversation alone, so that nothing but earlier turns says whose "
        "voice it is. They are measured on held-out turns before which turns have left the window: nats by "
        "group of codebooks, with the conversation's own memory and with that of another one, and the "
        "similarity of what is spoken to the voice that has left the window, beside that with the whole "
        "context."
    )
    claims: tuple[Claim, ...] = (
        Claim("With both kinds of slots the acoustic codes are predicted better than without memory.",
              "acoustic", "both", "none", 0.01),
        Claim("With both kinds of slots code 0 is predicted better than without memory.",
              "codebook0", "both", "none", 0.01),
        Claim("Style slots carry the manner: the acoustic codes are predicted better than without memory.",
              "acoustic", "style", "none", 0.01),
        Claim("Semantic slots carry the content: code 0 is predicted better than without memory.",
              "codebook0", "semantic", "none", 0.01),
        Claim("The own memory predicts the acoustic codes better than the memory of another conversation.",
              "acoustic", "both", OTHER, 0.01),
        Claim("The voice is more similar to the one that left the window than without memory.",
              SIMILARITY, "both", "none", 0.02),
    )  # fmt: skip

    def arms(self, base: RunConfig) -> dict[str, RunConfig]:
        """Returns four recipes.

        Raises:
            ValueError: The base's model has no memory layers or no local numbers.
        """
        model = base.model
        if not model.layers_of("memory_layers") or not model.local_speakers:
            raise ValueError(
                f"model.memory_layers is {model.memory_layers} and model.local_speakers is "
                f"{model.local_speakers}: expected memory layers and local numbers; set "
                f"model.local_speakers=4"
            )
        data = replace(base.data, local_speaker_share=1.0, transcribe_share=0.0)
        return {
            arm: replace(base, model=replace(model, memory_kinds=kinds), data=data)
            for arm, kinds in KINDS.items()
        }

    def measure(self, material: Material, models: Mapping[str, Path]) -> Iterator[Measured | Missing]:
        """Yields nats and similarities."""
        stretches = material.held_out(with_past=True, local=True)
        if not stretches:
            yield Missing("memory", "no held-out conversation is longer than data.max_rows: nothing has left")
            return
        loaded = {arm: CSMModel.from_pretrained(folder) for arm, folder in models.items()}
        for arm, model in loaded.items():
            for scores in part_scores(model, stretches, PARTS):
                yield Measured(arm, material.seed, scores)
        try:
            others = of_another(stretches)
        except ValueError as error:
            yield Missing("memory of another conversation", str(error))
        else:
            for scores in part_scores(loaded["both"], stretches, PARTS, pasts=others):
                yield Measured(OTHER, material.seed, scores)
        if material.lines:
            yield from self._voices(material, loaded)

    def _voices(self, material: Material, loaded: Mapping[str, CSMModel]) -> Iterator[Measured | Missing]:
        try:
            for arm, scores in evicted_voice(material, loaded):
                yield Measured(arm, material.seed, scores)
        except (EvaluatorUnavailable, ValueError) as error:
            yield Missing(SIMILARITY, str(error))
