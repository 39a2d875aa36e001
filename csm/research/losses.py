"""What each part of the conversational loss brings: trained without it, at equal steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from csm.data.code_companions import read_code_vectors
from csm.evaluation.core.report import Missing
from csm.model import CSMModel
from csm.network.predicted_latent import latent_vectors
from csm.recipes.run_config import RunConfig
from csm.research.material import Material
from csm.research.nats import PARTS, part_scores
from csm.research.question import Claim, Measured

WHOLE = "whole"
#: Arm -> fields of LossConfig that it sets to 0.
WITHOUT: dict[str, tuple[str, ...]] = {
    "without semantic": ("semantic",),
    "without acoustic": ("acoustic",),
    "without prosody": ("pitch", "voicing", "energy"),
    "without duration": ("duration", "pace"),
    "without text": ("text", "letters"),
    "without latent": ("latent", "refined"),
}


class Losses:
    """Trains the whole loss and six with a group of its parts left out."""

    name = "losses"
    title = "What does each part of the conversational loss bring?"
    summary = (
        "One model is trained with the whole conversational loss, and one without each group of its parts, "
        "for as many steps and on the same turns: semantic and acoustic codes, prosody (pitch, voicing, "
        "energy), duration (of turns and of text ids), text (ids and letters) and latents. The table has "
        "every part of the loss on held-out turns. A model predicts badly what it is not trained on; a part "
        "brings something where the others are better with it, which the claims say of code 0."
    )
    claims: tuple[Claim, ...] = tuple(
        Claim(f"Code 0 is predicted better with the whole loss than {arm}.", "codebook0", WHOLE, arm, 0.01)
        for arm in WITHOUT
    )

    def arms(self, base: RunConfig) -> dict[str, RunConfig]:
        """Returns the recipe of the whole loss, and one without each group that has a weight in it."""
        found = {WHOLE: base}
        for arm, fields in WITHOUT.items():
            if any(self._has(base, field) for field in fields):
                found[arm] = replace(base, loss=replace(base.loss, **dict.fromkeys(fields, 0.0)))
        return found

    def _has(self, base: RunConfig, field: str) -> bool:
        """Whether a part has a weight and the model what it is a part of."""
        needed = {"letters": base.model.letters_per_frame, "latent": base.model.latent_dim}
        needed["refined"] = base.model.latent_dim
        return bool(getattr(base.loss, field)) and bool(needed.get(field, 1))

    def measure(self, material: Material, models: Mapping[str, Path]) -> Iterator[Measured | Missing]:
        """Yields every part of the loss on held-out turns, spoken and heard."""
        vectors = read_code_vectors(material.codes) if material.recipe.model.latent_dim else None
        if vectors is not None:
            vectors = latent_vectors(vectors[: material.recipe.model.num_codebooks])
        sides = [
            (material.held_out(with_past=False, local=False, transcribed=heard), parts)
            for heard, parts in ((False, SPOKEN), (True, HEARD))
        ]
        for arm, folder in models.items():
            model = CSMModel.from_pretrained(folder)
            for stretches, parts in sides:
                for scores in part_scores(model, stretches, parts, vectors=vectors):
                    yield Measured(arm, material.seed, scores)


HEARD = ("text", "letters")
SPOKEN = tuple(part for part in PARTS if part not in HEARD)
