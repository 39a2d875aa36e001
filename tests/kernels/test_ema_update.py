"""ema_update: the formula, the same bits for any sharding, and dead codes that come back to life."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from csm_kernels import REVIVALS_PER_STEP, ema_update, rvq_search

sys.path.append(str(Path(__file__).parent))
import ema_worker  # noqa: E402

State = tuple[Tensor, Tensor, Tensor]


def quantizer(
    rows: int = 90, levels: int = 3, size: int = 16, width: int = 5
) -> tuple[Tensor, Tensor, State]:
    """x, its codes and (codebooks, usage, vector_sum) in the middle of a training."""
    generator = torch.Generator().manual_seed(0)
    codebooks = torch.randn(levels, size, width, generator=generator)
    usage = torch.rand(levels, size, generator=generator) * 5
    x = torch.randn(rows, width, generator=generator) * 2
    return x, rvq_search(x, codebooks).codes, (codebooks, usage, codebooks * usage[..., None])


def updated(x: Tensor, codes: Tensor, state: State, **options: object) -> State:
    copies = tuple(t.clone() for t in state)
    ema_update(x, codes, *copies, **{"step": 7, **options})
    return copies


def same(a: State, b: State) -> bool:
    return all(torch.equal(s, t) for s, t in zip(a, b, strict=True))


def naive(
    x: Tensor, codes: Tensor, state: State, decay: float, epsilon: float, row_levels: list[int]
) -> State:
    """The formula row by row, in float64, without revival."""
    codebooks, usage, vector_sum = (t.double() for t in state)
    counts, sums = torch.zeros_like(usage), torch.zeros_like(vector_sum)
    for n, row in enumerate(x.double()):
        for level in range(row_levels[n]):
            code = int(codes[n, level])
            counts[level, code] += 1
            sums[level, code] += row
            row = row - codebooks[level, code]
    usage = decay * usage + (1 - decay) * counts
    vector_sum = decay * vector_sum + (1 - decay) * sums
    total = usage.sum(1, keepdim=True)
    smoothed = (usage + epsilon) / (total + usage.shape[1] * epsilon) * total
    return vector_sum / smoothed[..., None], usage, vector_sum


@pytest.mark.parametrize("impl", ["blocked", "reference"])
@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
def test_the_update_is_the_formula_row_by_row(impl, scale):
    x, codes, (codebooks, usage, vector_sum) = quantizer()
    state = codebooks * scale, usage, vector_sum * scale
    found = updated(x * scale, codes, state, decay=0.9, epsilon=1e-3, revive_below=0.0, impl=impl)
    expected = naive(x * scale, codes, state, 0.9, 1e-3, [3] * len(x))
    for got, want, unit in zip(found, expected, (scale, 1.0, scale), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-6 * unit)


def test_per_row_levels_and_padding_leave_rows_out():
    x, codes, state = quantizer()
    levels = torch.arange(len(x)) % 4
    mask = torch.arange(len(x)) < 60
    found = updated(x, codes, state, levels=levels, mask=mask, revive_below=0.0)
    counted = [int(n) if n_row < 60 else 0 for n_row, n in enumerate(levels)]
    for got, want in zip(found, naive(x, codes, state, 0.99, 1e-5, counted), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-6)
    poisoned = x.clone()
    poisoned[60:] = torch.nan
    assert same(
        updated(poisoned, codes, state, levels=levels), updated(x[:60], codes[:60], state, levels=levels[:60])
    )


def test_levels_above_num_levels_and_levels_no_row_reached_are_kept():
    x, codes, state = quantizer()
    for options in ({"num_levels": 2}, {"levels": torch.full((len(x),), 2)}):
        found = updated(x, codes, state, **options)
        assert same(tuple(t[2:] for t in found), tuple(t[2:] for t in state))
        assert not any(torch.equal(a[:2], b[:2]) for a, b in zip(found, state, strict=True))
    assert same(updated(x[:0], codes[:0], state), state)


@pytest.mark.parametrize(
    "options", [{}, {"revive_below": 0.4}, {"num_levels": 2, "levels": torch.arange(90) % 4}]
)
def test_blocked_and_reference_give_the_same_bits(options):
    x, codes, state = quantizer()
    assert same(updated(x, codes, state, **options), updated(x, codes, state, **options, impl="reference"))


def test_the_order_of_rows_and_the_number_of_threads_do_not_reach_the_bits():
    x, codes, state = quantizer(rows=5000, size=200)
    expected = updated(x, codes, state, revive_below=0.4)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    assert same(updated(x[order], codes[order], state, revive_below=0.4), expected)
    torch.set_num_threads(before)
    assert not same(updated(x, codes, state, revive_below=0.4, step=8), expected)


def test_two_ranks_with_shuffled_unequal_shards_give_one_ranks_bits_with_one_all_reduce_a_step(tmp_path):
    codebooks, usage, vector_sum = alone = ema_worker.start()
    for step in range(ema_worker.STEPS):
        x = ema_worker.batch(step)
        ema_update(x, rvq_search(x, codebooks).codes, codebooks, usage, vector_sum, step=step)
    path = os.pathsep.join([str(Path(__file__).parents[2] / "kernels"), os.environ.get("PYTHONPATH", "")])
    workers = [
        subprocess.Popen(
            [sys.executable, str(Path(ema_worker.__file__)), str(rank), "2", str(tmp_path)],
            env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    errors = [worker.communicate(timeout=100)[1] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers), "\n".join(errors)
    for rank in range(2):
        assert same(torch.load(tmp_path / f"rank_{rank}.pt"), alone)


def used_codes_after(steps: int, update: Callable[[Tensor, Tensor, State, int], None]) -> int:
    """Codes of 64 that a batch uses, at the start only one of them is near the data."""
    generator = torch.Generator().manual_seed(0)
    codebooks = torch.randn(1, 64, 8, generator=generator)
    codebooks[:, 1:] += 100
    usage = torch.full((1, 64), 1e-3)
    state = codebooks, usage, codebooks * usage[..., None]
    for step in range(steps):
        x = torch.randn(1024, 8, generator=generator)
        update(x, rvq_search(x, codebooks).codes, state, step)
    return len(rvq_search(torch.randn(4096, 8, generator=generator), codebooks).codes.unique())


@pytest.mark.parametrize("impl", ["blocked", "reference"])
def test_one_used_code_of_64_becomes_at_least_60_in_50_steps(impl):
    assert used_codes_after(0, lambda *_: None) == 1
    used = used_codes_after(
        50, lambda x, codes, state, step: ema_update(x, codes, *state, step=step, impl=impl)
    )
    assert used >= 60


def test_encodecs_order_of_revival_fails_the_same_test():
    def encodec(x: Tensor, codes: Tensor, state: State, step: int) -> None:
        codebooks, usage, _ = state
        dead = usage[0] < 0.05 * usage[0].mean()
        codebooks[0, dead] = x[: int(dead.sum())]  # the codebook alone: the average writes over it
        ema_update(x, codes, *state, step=step, revive_below=0.0)

    assert used_codes_after(50, encodec) < 60


def test_a_revived_code_is_a_row_of_the_step_and_its_statistics_agree_with_it():
    x, codes, (codebooks, usage, vector_sum) = quantizer(rows=40, levels=2)
    usage[:, 3:9] = 0
    found, _, _ = state = updated(x, codes, (codebooks, usage, vector_sum), revive_below=0.1, decay=0.999)
    residual = x
    for level in range(2):
        rows = (found[level][:, None] == residual[None]).all(-1)
        revived = rows.any(1)
        assert revived[3:9].all()
        assert rows[revived].to(torch.int64).argmax(1).unique().numel() == int(revived.sum())
        use, total = state[1][level][revived], state[2][level][revived]
        torch.testing.assert_close(total, found[level][revived] * use[:, None])
        assert (use > 0.1 * state[1][level].mean()).all()
        residual = residual - codebooks[level][codes[:, level]]


def test_equal_rows_revive_one_code_not_many_and_a_step_has_room_for_a_fixed_number():
    silence = torch.ones(500, 4)
    state = torch.randn(1, 300, 4), torch.zeros(1, 300), torch.zeros(1, 300, 4)
    codebooks, _, _ = updated(silence, rvq_search(silence, state[0]).codes, state)
    assert int((codebooks == 1).all(-1).sum()) <= 2  # the chosen code's mean and one revived
    x = torch.randn(500, 4)
    revived, _, _ = updated(x, rvq_search(x, state[0]).codes, state)
    assert int((revived[0][:, None] == x[None]).all(-1).any(1).sum()) >= REVIVALS_PER_STEP


def test_the_buffers_are_changed_in_place_also_through_a_compiled_graph():
    x, codes, state = quantizer()
    expected = updated(x, codes, state)
    copies = tuple(t.clone() for t in state)
    places = [t.data_ptr() for t in copies]
    torch.compile(ema_update, backend="aot_eager", fullgraph=True)(x, codes, *copies, step=torch.tensor(7))
    assert same(copies, expected) and [t.data_ptr() for t in copies] == places


def test_the_operations_pass_opcheck():
    x, codes, (codebooks, usage, vector_sum) = quantizer()
    arguments = (x, codes, codebooks, torch.full((len(x),), 3), torch.tensor(1), 1, 0, 16)
    torch.library.opcheck(torch.ops.csm.ema_statistics.default, arguments)
    flat = torch.ops.csm.ema_statistics(*arguments)
    torch.library.opcheck(
        torch.ops.csm.ema_apply.default, (flat, codebooks, usage, vector_sum, 1, 16, 0.99, 1e-5, 0.05)
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"codebooks": torch.zeros(3, 16, 5).bfloat16()}, "fp32 buffer"),
        ({"usage": torch.zeros(3, 15)}, "usage: expected shape"),
        ({"vector_sum": torch.zeros(3, 16, 5).half()}, "vector_sum: expected"),
        ({"codes": torch.zeros(90, 3)}, "codes: expected int64"),
        ({"codes": torch.zeros(89, 3, dtype=torch.int64)}, "codes: expected int64"),
        ({"num_levels": 4}, "num_levels: expected 1 to 3"),
        ({"decay": 1.0}, "decay in"),
        ({"mask": torch.ones(90)}, "mask: expected torch.bool"),
        ({"levels": torch.ones(91, dtype=torch.int64)}, "levels: expected shape"),
        ({"impl": "fast"}, "impl: expected"),
    ],
)
def test_a_wrong_argument_is_named(change, said):
    x, codes, (codebooks, usage, vector_sum) = quantizer()
    given = {
        "x": x,
        "codes": codes,
        "codebooks": codebooks,
        "usage": usage,
        "vector_sum": vector_sum,
        "step": 0,
    }
    with pytest.raises(ValueError, match=said):
        ema_update(**{**given, **change})
