"""Training that equals generation: what teacher forcing computes against what the generator computed.

For any model, through an `Adapter` of three methods. `align` compares logits and targets place by place and
says where the first difference is; `weigh` measures how much each part of the loss weighs in one optimizer
step, however the step is split. The adapter of CSMModel and Session is in `tests.parity.session`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

Batch = TypeVar("Batch", contravariant=True)
# What the two ways of summing differ by in fp32 at logits of about 1; every planted fault is above 1e-2.
TOLERANCE = 1e-4


class CodeLogits(NamedTuple):
    """Logits of codes, each with its place.

    Attributes:
        places: int64 [N, 3], (sequence, row, codebook): of that codebook of the frame that follows the row.
        codes: int64 [N], what training takes for the right code there, or what the generator chose.
        logits: float [N, V].
    """

    places: Tensor
    codes: Tensor
    logits: Tensor


class StepLoss(NamedTuple):
    """Loss of one optimizer step, and what codebook 0 and the depth decoder add to it; scalars."""

    total: Tensor
    codebook0: Tensor
    depth: Tensor


class Adapter(Protocol[Batch]):
    """How a model's logits are computed. A batch has the model's own form: packed or padded rows."""

    def teacher_forced_logits(self, batch: Batch) -> CodeLogits:
        """Returns the logits that the loss is made of with their targets; frames left out have no place."""
        ...

    def stepwise_logits(self, batch: Batch) -> CodeLogits:
        """Returns the logits before any sampling, from the real generator, for the codes of the batch."""
        ...

    def step_loss(self, micro_batches: Sequence[Batch]) -> StepLoss:
        """Returns the loss of one optimizer step that accumulates these micro-batches."""
        ...


class Difference(NamedTuple):
    """A place where training and generation part.

    Attributes:
        kind: "logits" (they differ), "code" (training's target is another code than the one that follows) or
            "missing" (training has a target where the generator drew nothing).
        sequence, row, codebook: Of the place, all from 0.
        size: Largest difference of a logit there; infinite for the other kinds and for NaN.
    """

    kind: str
    sequence: int
    row: int
    codebook: int
    size: float


class Alignment(NamedTuple):
    """Report of a comparison.

    Attributes:
        compared: Places of training; differing: those that are not equal.
        untaught: Draws of codebook 0 that no target of training stands for, as an end that is never learned.
        by_codebook: Largest difference of a logit in every codebook, 0 where there is none.
        first: First difference, by sequence, row and codebook; None where training equals generation.
    """

    compared: int
    differing: int
    untaught: int
    by_codebook: tuple[float, ...]
    first: Difference | None

    @property
    def equal(self) -> bool:
        """Whether every target and every logit of training is the generator's."""
        return self.first is None

    def __str__(self) -> str:
        if self.first is None:
            return f"training equals generation at {self.compared} places, within {max(self.by_codebook):.1e}"
        kind, sequence, row, codebook, size = self.first
        return (
            f"{self.differing} of {self.compared} places differ, first {kind} in sequence {sequence} after "
            f"row {row}, codebook {codebook}, by {size:.3g}"
        )


class Weights(NamedTuple):
    """What each part weighs in a step: its share of the loss over its mean cross-entropy; 1 and 1 in csm-1b.

    Attributes:
        codebook0, depth: Weights. rest: what the loss holds besides.
    """

    codebook0: float
    depth: float
    rest: float


def compare(training: CodeLogits, generation: CodeLogits, tolerance: float = TOLERANCE) -> Alignment:
    """Compares the logits and codes of two passes over the same sequences, in whatever order they come.

    Raises:
        ValueError: Nothing to compare, a place that comes twice, or vocabularies of different sizes.
    """
    for name, found in (("training", training), ("generation", generation)):
        if not len(found.places):
            raise ValueError(f"{name} gave no logits: expected a batch with at least one target")
    if training.logits.shape[1:] != generation.logits.shape[1:]:
        raise ValueError(
            f"logits have shapes {tuple(training.logits.shape)} and {tuple(generation.logits.shape)}: "
            f"expected one vocabulary"
        )
    sizes = torch.cat([training.places, generation.places]).amax(dim=0).tolist()
    mine, order = _in_order(training.places, sizes)
    theirs, their_order = _in_order(generation.places, sizes)
    at = torch.searchsorted(theirs, mine).clamp_max(len(theirs) - 1)
    known = theirs[at] == mine
    left, right = order[known], their_order[at[known]]
    size = torch.full((len(mine),), float("inf"))
    apart = (training.logits[left].float() - generation.logits[right].float()).abs().amax(dim=1).cpu()
    size[known] = apart.nan_to_num(nan=float("inf"))
    other_code = torch.zeros_like(known)
    other_code[known] = (training.codes[left] != generation.codes[right]).cpu()
    places = training.places.cpu()[order]
    by_codebook = torch.zeros(sizes[2] + 1).scatter_reduce(0, places[known, 2], size[known], "amax")
    differing = ~known | other_code | (size > tolerance)
    first = None
    if bool(differing.any()):
        index = int(differing.nonzero()[0])
        kind = "missing" if not known[index] else "code" if other_code[index] else "logits"
        sequence, row, codebook = places[index].tolist()
        there = float(size[index]) if kind == "logits" else float("inf")
        first = Difference(kind, sequence, row, codebook, there)
    drawn = generation.places.cpu()[their_order, 2] == 0
    untaught = int((drawn & ~torch.isin(theirs, mine)).sum())
    return Alignment(len(mine), int(differing.sum()), untaught, tuple(by_codebook.tolist()), first)


def _in_order(places: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """One number per place, ascending by sequence, row and codebook, and the order that sorts them."""
    steps = torch.tensor([(sizes[1] + 1) * (sizes[2] + 1), sizes[2] + 1, 1])
    keys, order = (places.cpu() * steps).sum(dim=1).sort()
    twice = (keys.diff() == 0).nonzero()
    if len(twice):
        sequence, row, codebook = places[order[int(twice[0])]].tolist()
        raise ValueError(f"sequence {sequence}, row {row}, codebook {codebook} comes twice: expected once")
    return keys, order


@torch.no_grad()
def align(adapter: Adapter[Batch], batch: Batch, tolerance: float = TOLERANCE) -> Alignment:
    """Compares what training computes over a batch with the generator's logits, position by position."""
    return compare(adapter.teacher_forced_logits(batch), adapter.stepwise_logits(batch), tolerance)


@torch.no_grad()
def weigh(
    adapter: Adapter[Batch],
    micro_batches: Sequence[Batch],
    against: Literal["training", "generation"] = "training",
) -> Weights:
    """Measures the weights of the parts of the loss in one step that accumulates these micro-batches.

    The measure is each part over the mean cross-entropy of all its targets in the step. Where the depth
    decoder is run on a share of the frames, this is exact for a model whose logits are all alike (its heads
    set to zero); for any other, up to the luck of the draw.

    Args:
        adapter: Of the model.
        micro_batches: Of one optimizer step.
        against: Whose logits and codes the cross-entropy is of, at the places of training's targets. That of
            "generation" trusts nothing of the training: a loss that forms no logits, or labels wrong inside,
            does not weigh 1 there either.

    Raises:
        ValueError: A target where the generator drew nothing, or a part without any target.
    """
    loss = adapter.step_loss(micro_batches)
    found = []
    for batch in micro_batches:
        training = adapter.teacher_forced_logits(batch)
        found.append(training if against == "training" else _drawn(training, adapter.stepwise_logits(batch)))
    codebook = torch.cat([part.places[:, 2] for part in found])
    nats = torch.cat(
        [F.cross_entropy(part.logits.double(), part.codes, reduction="none").cpu() for part in found]
    )
    means = [float(nats[chosen].mean()) for chosen in (codebook == 0, codebook > 0)]
    if not all(mean == mean for mean in means):
        raise ValueError("codebook 0 or the depth decoder has no target in the step: expected some of each")
    rest = float(loss.total - loss.codebook0 - loss.depth)
    return Weights(float(loss.codebook0) / means[0], float(loss.depth) / means[1], rest)


def _drawn(training: CodeLogits, generation: CodeLogits) -> CodeLogits:
    """The generator's logits at the positions of training."""
    sizes = torch.cat([training.places, generation.places]).amax(dim=0).tolist()
    mine, _ = _in_order(training.places, sizes)
    theirs, order = _in_order(generation.places, sizes)
    at = torch.searchsorted(theirs, mine).clamp_max(len(theirs) - 1)
    if not torch.equal(theirs[at], mine):
        raise ValueError("training has a target where the generator drew nothing: `align` says where")
    return CodeLogits(*(part.cpu()[order[at]] for part in generation))
