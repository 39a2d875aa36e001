"""Phone probe: which phone is spoken at every 20 ms, read from the vectors of three frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from csm.data.phone_labels import NONE, PhoneLabels
from csm.evaluation.core.metric import Score, scored
from csm.evaluation.core.statistics import seed_for
from csm.evaluation.metrics.coded_clips import CodedClip, ProbeConfig, clip_of, scale_of
from csm.system.threads import one_thread
from csm.tokenizer.semantic.speech_encoder import STEPS_PER_FRAME

#: Frames on either side that a probe reads.
CONTEXT = 1
HIDDEN = 512
BATCH, LEARNING_RATE, WEIGHT_DECAY, DROPOUT = 256, 5e-3, 1e-2, 0.1

Rows = Callable[[CodedClip], Float[Tensor, "T C"]]


@one_thread()
def phone_scores(
    train: Sequence[CodedClip],
    held_out: Sequence[CodedClip],
    rows: Rows,
    labels: PhoneLabels,
    config: ProbeConfig,
    *,
    layers: int,
) -> list[Score]:
    """Scores the share of a held-out clip's 20 ms steps whose phone the probe classifies rightly.

    Args:
        train, held_out: Clips; those without labels are left out.
        rows: Vectors of a clip's frames.
        labels: Phone classes, by forced alignment.
        config: How to train.
        layers: 1 for a linear probe, 2 for one with a hidden layer.

    Returns:
        One score for each labelled clip, weighted by its labelled steps.

    Raises:
        ValueError: No training clip has a label.
    """
    targets = [phones_of(clip, labels) for clip in train]
    usable = [i for i, target in enumerate(targets) if (target != NONE).any()]
    if not usable:
        raise ValueError(f"none of {len(train)} training clips has a text; give texts in the manifest")
    parts = [rows(train[i]) for i in usable]
    mean, scale = scale_of(torch.cat(parts))
    inputs, places = _framed([(part - mean) / scale for part in parts])
    wanted = torch.cat([targets[i] for i in usable])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(config.seed, "phones") % 2**63)
        probe = _probe(inputs.shape[1] * (2 * CONTEXT + 1), len(labels.classes), layers)
        _train(probe, inputs, places, wanted, config.phone_epochs)
    scores = []
    with torch.no_grad():
        for clip in held_out:
            target = phones_of(clip, labels)
            count = int((target != NONE).sum())
            if count:
                inputs, places = _framed([(rows(clip) - mean) / scale])
                found = _outputs(probe, inputs, places).argmax(-1)
                right = int((found == target).sum())
                scores.append(scored(clip_of(clip.turn), right / count, weight=count))
    return scores


def phones_of(clip: CodedClip, labels: PhoneLabels) -> Int[Tensor, "T 4"]:
    """Returns the phone class of every step of every frame, NONE without label."""
    frames = clip.codes.shape[1]
    found = labels.steps(clip.turn.id, clip.turn.text, 0.0, frames * STEPS_PER_FRAME)
    return found.unflatten(0, (frames, -1))


def _framed(parts: Sequence[Tensor]) -> tuple[Float[Tensor, "M C"], Int[Tensor, " N"]]:
    """Joins clips with frames of zeros, the mean, between them; returns the places of the clips' frames."""
    gap = torch.zeros(CONTEXT, parts[0].shape[1])
    inputs = torch.cat([gap, *(piece for part in parts for piece in (part, gap))])
    places, first = [], CONTEXT
    for part in parts:
        places.append(torch.arange(first, first + len(part)))
        first += len(part) + CONTEXT
    return inputs, torch.cat(places)


def _probe(width: int, classes: int, layers: int) -> nn.Module:
    if layers == 1:
        return nn.Linear(width, STEPS_PER_FRAME * classes)
    return nn.Sequential(
        nn.Linear(width, HIDDEN), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, STEPS_PER_FRAME * classes)
    )


def _outputs(probe: nn.Module, inputs: Tensor, places: Tensor) -> Float[Tensor, "N 4 P"]:
    window = places.unsqueeze(1) + torch.arange(-CONTEXT, CONTEXT + 1)
    outputs: Tensor = probe(inputs[window].flatten(1)).unflatten(1, (STEPS_PER_FRAME, -1))
    return outputs


def _train(probe: nn.Module, inputs: Tensor, places: Tensor, wanted: Tensor, epochs: int) -> None:
    """AdamW whose rate falls linearly to 0; leaves the probe in eval mode."""
    optimizer = torch.optim.AdamW(probe.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = epochs * -(-len(places) // BATCH)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    probe.train()
    for _ in range(epochs):
        for picks in torch.randperm(len(places)).split(BATCH):
            outputs = _outputs(probe, inputs, places[picks])
            loss = F.cross_entropy(outputs.flatten(0, 1), wanted[picks].flatten(), ignore_index=NONE)
            if loss.isfinite():  # not so where no step of a batch has a label
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            schedule.step()
    probe.eval()
