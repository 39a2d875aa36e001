"""How long letters last: looked ahead, kept inside a text, and put on a clock."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from csm.network.layers import PackedSequences
from csm.network.phone_durations import PhoneDurationHead, text_ends
from tests.nondeterministic import RefusesNondeterministic


def layout(*sizes: int) -> PackedSequences:
    return PackedSequences.of(torch.tensor([0, *sizes]).cumsum(0).to(torch.int32), max(sizes))


def test_a_new_head_says_nothing_and_a_taught_one_does() -> None:
    head = PhoneDurationHead(8)
    torch.nn.init.zeros_(head.pace.weight)
    assert not head.is_trained()
    with torch.no_grad():
        head.pace.weight[0, 0] = 0.1
    assert head.is_trained()


def test_a_letter_looks_four_ahead_and_into_no_other_text() -> None:
    torch.manual_seed(0)
    head, rows = PhoneDurationHead(8), torch.randn(21, 8)
    before = head(rows, layout(12, 9))
    rows[10] += 1.0
    moved = (head(rows, layout(12, 9)) != before).nonzero()[:, 0]
    assert moved.tolist() == list(range(6, 12))


@pytest.mark.parametrize("length", [1.0, 7.0, 250.0])
def test_ends_share_the_length_in_proportion(length) -> None:
    log_frames = torch.randn(9, generator=torch.Generator().manual_seed(0))
    ends = text_ends(log_frames.clone(), length)
    assert float(ends[0]) == 0 and float(ends[-1]) == pytest.approx(length, rel=1e-5)
    spent = ends.diff()
    torch.testing.assert_close(spent / spent.sum(), log_frames[1:].exp() / log_frames[1:].exp().sum())
    wild = text_ends(torch.tensor([0.0, 1e4, -1e4, 3.0]), length)
    assert bool(wild.isfinite().all()) and float(wild[-1]) == pytest.approx(length, rel=1e-5)


def test_cuda_has_a_deterministic_form_of_all_operators_of_the_ends() -> None:
    with FakeTensorMode(), RefusesNondeterministic():
        assert text_ends(torch.ones(9, device="cuda"), 20.0).shape == (9,)
