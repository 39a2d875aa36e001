"""The alignment kit finds the first difference, and weighs the parts of any loss."""

from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.parity.logits import CodeLogits, Difference, StepLoss, align, compare, weigh

PLACES = torch.tensor([[s, row, book] for s in range(2) for row in (3, 4, 7) for book in range(3)])


def logits(seed: int = 0) -> CodeLogits:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 5, (len(PLACES),), generator=generator)
    return CodeLogits(PLACES, codes, torch.randn(len(PLACES), 5, generator=generator))


def changed(found: CodeLogits, places: Sequence[tuple[int, int, int]], by: float) -> CodeLogits:
    values = found.logits.clone()
    for place in places:
        values[(PLACES == torch.tensor(place)).all(dim=1), 2] += by
    return found._replace(logits=values)


def chosen(found: CodeLogits, indices: Tensor) -> CodeLogits:
    return CodeLogits(*(part[indices] for part in found))


def test_equal_logits_in_any_order_are_equal() -> None:
    report = compare(logits(), chosen(logits(), torch.randperm(len(PLACES))))
    assert report.equal and report.first is None and report.untaught == 0
    assert (report.compared, report.differing, report.by_codebook) == (18, 0, (0.0, 0.0, 0.0))
    assert str(report) == "training equals generation at 18 places, within 0.0e+00"


def test_the_first_difference_is_reported_with_its_size() -> None:
    report = compare(changed(logits(), [(1, 4, 2), (1, 7, 0)], 0.25), logits())
    assert report.first == Difference("logits", 1, 4, 2, pytest.approx(0.25, abs=1e-6))
    assert report.differing == 2 and report.by_codebook == pytest.approx((0.25, 0.0, 0.25), abs=1e-6)
    assert str(report) == (
        "2 of 18 places differ, first logits in sequence 1 after row 4, codebook 2, by 0.25"
    )


def test_the_tolerance_is_what_is_asked_for() -> None:
    near = changed(logits(), [(0, 3, 0)], 1e-3)
    assert not compare(near, logits()).equal and compare(near, logits(), tolerance=1e-2).equal


def test_a_logit_that_is_not_a_number_differs() -> None:
    report = compare(changed(logits(), [(0, 4, 1)], float("nan")), logits())
    assert report.first == Difference("logits", 0, 4, 1, float("inf"))


def test_another_target_differs_though_its_logits_agree() -> None:
    other = logits()._replace(codes=logits().codes.index_fill(0, torch.tensor([7]), 99))
    report = compare(other, logits())
    assert report.first == Difference("code", 0, 7, 1, float("inf")) and max(report.by_codebook) == 0


def test_a_target_where_nothing_was_drawn_is_missing() -> None:
    report = compare(logits(), chosen(logits(), torch.tensor([0, 1, 2, 6, 7, 8])))
    assert report.first == Difference("missing", 0, 4, 0, float("inf")) and report.differing == 12
    late = logits()._replace(places=PLACES + torch.tensor([5, 50, 0]))
    assert compare(late, logits()).first == Difference("missing", 5, 53, 0, float("inf"))


def test_frames_that_training_leaves_out_are_no_difference_but_untaught_ends_are_counted() -> None:
    without_depth = chosen(logits(), (PLACES[:, 2] == 0).nonzero()[:, 0])
    assert compare(without_depth, logits()).equal and compare(without_depth, logits()).untaught == 0
    # The last row of each sequence, where a turn ends, trains nothing.
    without_ends = chosen(logits(), (PLACES[:, 1] < 7).nonzero()[:, 0])
    report = compare(without_ends, logits())
    assert report.equal and report.untaught == 2


def test_what_cannot_be_compared_is_refused() -> None:
    none = chosen(logits(), torch.tensor([], dtype=torch.int64))
    for pair, name in (((none, logits()), "training"), ((logits(), none), "generation")):
        with pytest.raises(ValueError, match=f"{name} gave no logits"):
            compare(*pair)
    with pytest.raises(ValueError, match="expected one vocabulary"):
        compare(logits(), logits()._replace(logits=torch.zeros(len(PLACES), 6)))
    with pytest.raises(ValueError, match="sequence 0, row 3, codebook 1 comes twice"):
        compare(logits(), chosen(logits(), torch.tensor([0, 1, 1])))


class Weighted(NamedTuple):
    """An adapter whose loss has known weights."""

    codebook0: float
    depth: float
    rest: float

    def teacher_forced_logits(self, batch: int) -> CodeLogits:
        return logits(batch)

    def stepwise_logits(self, batch: int) -> CodeLogits:
        return logits(batch)

    def step_loss(self, micro_batches: Sequence[int]) -> StepLoss:
        found = [logits(batch) for batch in micro_batches]
        entropy = torch.stack([F.cross_entropy(x.logits, x.codes, reduction="none") for x in found])
        first, later = entropy[:, PLACES[:, 2] == 0].mean(), entropy[:, PLACES[:, 2] > 0].mean()
        parts = self.codebook0 * first, self.depth * later
        return StepLoss(sum(parts) + self.rest, *parts)


def test_weights_are_measured_from_the_loss_alone() -> None:
    for weights in (Weighted(1, 1, 0), Weighted(0.5, 3, 0.25)):
        for against in ("training", "generation"):
            found = weigh(weights, [1, 2, 3], against=against)
            assert found == pytest.approx(tuple(weights), abs=1e-5)
        assert align(weights, 4).equal
