"""The state of the codebooks: always fp32, changed in place by one call, saved with the module."""

import pytest
import torch

from csm.tokenizer.codebook import CodebookStack
from csm_kernels import ema_update_stacks, rvq_search


@pytest.fixture
def stack():
    torch.manual_seed(0)
    return CodebookStack(3, 16, 8)


def updated(stack, rows, **options):
    codes = rvq_search(rows, stack.codebooks).codes
    levels = torch.full((len(rows),), stack.num_codebooks)
    given = {"decay": 0.9, "revive_below": 0.0, "step": 1, **options}
    ema_update_stacks([stack.assigned(rows, codes, levels)], **given)


@pytest.mark.parametrize("cast", ["bfloat16", "half", "double"])
def test_no_cast_of_the_module_around_them_takes_their_fp32(stack, cast):
    before = stack.codebooks.clone()
    around = torch.nn.Sequential(torch.nn.Linear(8, 8), stack)
    getattr(around, cast)()
    assert around[0].weight.dtype != torch.float32
    assert {buffer.dtype for buffer in stack.buffers()} == {torch.float32}
    assert torch.equal(stack.codebooks, before), "not even rounded on the way"


def test_an_update_changes_the_buffers_in_place_and_towards_the_rows(stack):
    rows = torch.randn(200, 8) + 2
    places = [buffer.data_ptr() for buffer in stack.buffers()]
    before = [buffer.clone() for buffer in stack.buffers()]
    distance = rvq_search(rows, stack.codebooks).residual.square().mean()
    for step in range(1, 20):
        updated(stack, rows, step=step)
    assert places == [buffer.data_ptr() for buffer in stack.buffers()]
    assert not any(torch.equal(a, b) for a, b in zip(before, stack.buffers(), strict=True))
    assert rvq_search(rows, stack.codebooks).residual.square().mean() < 0.5 * distance


def test_updated_buffers_are_saved_and_loaded(stack):
    updated(stack, torch.randn(64, 8))
    other = CodebookStack(3, 16, 8)
    other.load_state_dict(stack.state_dict())
    assert set(stack.state_dict()) == {"codebooks", "usage", "vector_sum"}
    assert all(torch.equal(a, b) for a, b in zip(stack.buffers(), other.buffers(), strict=True))


def test_the_codebooks_are_no_parameters(stack):
    assert list(stack.parameters()) == []


def test_dead_codes_come_alive(stack):
    stack.codebooks[:, 8:] = 100.0  # no row is near
    rows = torch.randn(256, 8)
    for step in range(1, 60):
        updated(stack, rows, step=step, revive_below=0.1)
    assert rvq_search(rows, stack.codebooks).codes[:, 0].unique().numel() > 8


def test_lookup_sums_the_vectors_of_the_codes(stack):
    codes = torch.randint(0, 16, (5, 3))
    vectors = torch.stack([stack.codebooks[q, codes[:, q]] for q in range(3)])
    torch.testing.assert_close(stack.lookup(codes), vectors.sum(0))
    torch.testing.assert_close(stack.lookup(codes[:, :2]), vectors[:2].sum(0))
    levels = torch.tensor([0, 1, 2, 3, 3])
    expected = torch.stack([vectors[:n, row].sum(0) for row, n in enumerate(levels)])
    torch.testing.assert_close(stack.lookup(codes, levels), expected)
    assert torch.equal(stack.lookup(codes[:, :0]), torch.zeros(5, 8))


def test_initialised_from_data_every_codebook_describes_what_the_earlier_ones_left(stack):
    rows = torch.randn(500, 8) * 3
    stack.fit(rows, torch.Generator().manual_seed(0))
    commitment = rvq_search(rows, stack.codebooks).commitment
    assert commitment[0] > commitment[1] > commitment[2]
    assert torch.equal(stack.vector_sum, stack.codebooks) and torch.equal(stack.usage, torch.ones(3, 16))
    again = CodebookStack(3, 16, 8)
    again.fit(rows, torch.Generator().manual_seed(0))
    assert torch.equal(again.codebooks, stack.codebooks)


def test_a_fit_leaves_no_vector_without_rows() -> None:
    # Most starting vectors fall into one of two clouds that are far apart; the rest must find work.
    torch.manual_seed(0)
    rows = torch.cat([torch.randn(3000, 32), 0.01 * torch.randn(60, 32) + 50.0])
    stack = CodebookStack(2, 64, 32)
    stack.codebooks[:, 32:] += 500.0  # dead at the start
    stack.fit(rows, torch.Generator().manual_seed(0), keep=True)
    codes = rvq_search(rows, stack.codebooks).codes
    assert all(len(codes[:, level].unique()) == 64 for level in range(2))
