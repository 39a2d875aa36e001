"""Ablations: a trained model with the gates of one part closed."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Literal

import torch

from csm.generation.talker import Talker

Part = Literal["memory", "cross-attention"]
NOTE = (
    "Off means: on a copy of the trained model the gates of the part are closed, so that its output is not "
    "added to the rows. The copy is not trained again: a model trained without the part may differ."
)


def without_part(talker: Talker, part: Part) -> Talker:
    """Returns the talker with a copy of its model in which the output of one part is not used.

    Args:
        talker: Talker, which is not changed; tokenizer and voices are shared.
        part: "memory" closes the gates by which rows read past turns, "cross-attention" those by which voice
            reads text and text reads voice, and that by which a frame's own text is added to it.

    Raises:
        ValueError: The model has no layer with this part.
    """
    model = copy.deepcopy(talker.model)
    backbone = model.backbone
    layers = (
        [*backbone.memory_reads.values()]
        if part == "memory"
        else [*backbone.voice_reads.values(), *backbone.text_reads.values()]
    )
    if layers and part == "cross-attention" and backbone.text_now is not None:
        layers.append(backbone.text_now)
    if not layers:
        raise ValueError(f"the model has no layer with {part}: it cannot be switched off")
    with torch.no_grad():
        for layer in layers:
            layer.get_parameter("gate").zero_()  # the output is scaled by its tanh
    return replace(talker, model=model)
