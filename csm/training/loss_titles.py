"""Titles and units of the losses in metrics.jsonl, for the axes of charts."""

from __future__ import annotations

from typing import NamedTuple

CODE_UNIT = "cross-entropy, nats per code"


class LossTitle(NamedTuple):
    """What a chart of a loss is called.

    Attributes:
        title: Name in words.
        unit: Quantity and unit of the y axis.
    """

    title: str
    unit: str


SHARED = {
    "loss": LossTitle("Total loss", "weighted sum"),
    "total": LossTitle("Total loss", "weighted sum"),
}
# Parts of csm.losses.conversational_loss, which metrics.jsonl names model/PART.
MODEL = {
    "codebook0": LossTitle("Codebook 0", CODE_UNIT),
    "semantic": LossTitle("Other semantic codebooks", CODE_UNIT),
    "acoustic": LossTitle("Acoustic codebooks", CODE_UNIT),
    "text": LossTitle("Text", "cross-entropy, nats per token"),
    "letters": LossTitle("Letters of transcribed turns (CTC)", "nats per letter"),
    "pitch": LossTitle("Pitch", "smooth L1 of log Hz"),
    "voicing": LossTitle("Voicing", "cross-entropy, nats per frame"),
    "energy": LossTitle("Energy", "smooth L1 of log RMS"),
    "duration": LossTitle("Turn duration", "L1 of log frames"),
    "pace": LossTitle("Phone duration", "L1 of log frames"),
    "latent": LossTitle("Latent", "squared distance per frame"),
    "refined": LossTitle("Latent given code 0", "squared distance per frame"),
}
# Losses of csm.training.tokenizer_task.
TOKENIZER = {
    "mel": LossTitle("Log-mel distance", "L1 of natural log bands"),
    "magnitude": LossTitle("Magnitude distance", "loss"),
    "commitment": LossTitle("Commitment", "squared distance to the code vectors"),
    "isotropy": LossTitle("Isotropy of the latents", "loss"),
    "prediction": LossTitle("Latent not predicted by the semantic codes", "share of the variance"),
    "text": LossTitle("Text (CTC)", "nats per letter"),
    "speaker": LossTitle("Speaker classes", "cross-entropy, nats"),
    "reversal": LossTitle("Speaker classes from semantic codes", "cross-entropy, nats"),
    "emotion": LossTitle("Prosody statistics", "mean squared error"),
    "distillation": LossTitle("Distillation from the teacher", "1 - cosine"),
    "adversarial": LossTitle("Adversarial", "loss"),
    "feature_matching": LossTitle("Feature matching", "loss"),
}


def loss_title(name: str) -> LossTitle:
    """Returns title and unit of a loss; an unlisted one keeps its name.

    Args:
        name: Name in metrics.jsonl, `model/text` or `mel`.
    """
    module, _, part = name.rpartition("/")
    titles = SHARED | (MODEL if module == "model" else TOKENIZER)
    return titles.get(part, LossTitle(name, "loss"))
