"""ema_update: the formula, the same bits for any sharding, and dead codes that come back to life."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import csm_kernels
from csm.tokenizer.codebook import CodebookStack
from csm.tokenizer.quantizer import SplitQuantizer
from csm_kernels import REVIVALS_PER_STEP, Assignment, ema_update, ema_update_stacks, native, rvq_search
from csm_kernels.ema_update import cpu, message
from tests.nondeterministic import RefusesNondeterministic

sys.path.append(str(Path(__file__).parent))
import ema_worker  # noqa: E402

STATE = ("codebooks", "usage", "vector_sum")

State = tuple[Tensor, Tensor, Tensor]

COMPILED = native.instruction_sets()
IMPLEMENTATIONS = ["reference", "blocked", *(["cpu"] if COMPILED else [])]
every = pytest.mark.parametrize("impl", IMPLEMENTATIONS)


@pytest.fixture(autouse=True)
def uninitialised_memory_is_garbage() -> Iterator[None]:
    """torch.empty gives NaN, malloc bytes of 0xFE, which are floats of -1.7e38."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda option, value: 0)
    m_perturb = -6
    mallopt(m_perturb, 1)
    yield
    mallopt(m_perturb, 0)
    torch.use_deterministic_algorithms(False)


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


@every
@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
def test_the_update_is_the_formula_row_by_row(impl, scale):
    x, codes, (codebooks, usage, vector_sum) = quantizer()
    state = codebooks * scale, usage, vector_sum * scale
    found = updated(x * scale, codes, state, decay=0.9, epsilon=1e-3, revive_below=0.0, impl=impl)
    expected = naive(x * scale, codes, state, 0.9, 1e-3, [3] * len(x))
    for got, want, unit in zip(found, expected, (scale, 1.0, scale), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-6 * unit)


@every
def test_per_row_levels_and_padding_leave_rows_out(impl):
    x, codes, state = quantizer()
    levels = torch.arange(len(x)) % 4
    mask = torch.arange(len(x)) < 60
    found = updated(x, codes, state, levels=levels, mask=mask, revive_below=0.0, impl=impl)
    counted = [int(n) if n_row < 60 else 0 for n_row, n in enumerate(levels)]
    for got, want in zip(found, naive(x, codes, state, 0.99, 1e-5, counted), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-6)
    poisoned = x.clone()
    poisoned[60:] = torch.nan
    few = updated(x[:60], codes[:60], state, levels=levels[:60], impl=impl)
    assert same(updated(poisoned, codes, state, levels=levels, impl=impl), few)
    assert same(updated(x, codes, state, levels=levels, mask=mask, revive_below=0.4, impl=impl), updated(
        x[:60], codes[:60], state, levels=levels[:60], revive_below=0.4, impl=impl
    ))  # fmt: skip


@every
def test_levels_above_num_levels_and_levels_no_row_reached_are_kept(impl):
    x, codes, state = quantizer()
    for options in ({"num_levels": 2}, {"levels": torch.full((len(x),), 2)}):
        found = updated(x, codes, state, **options, impl=impl)
        assert same(tuple(t[2:] for t in found), tuple(t[2:] for t in state))
        assert not any(torch.equal(a[:2], b[:2]) for a, b in zip(found, state, strict=True))
    assert same(updated(x[:0], codes[:0], state, impl=impl), state)


def by_instruction_set(name: str) -> Callable[..., None]:
    """One step of cpu.py by one instruction set, with all rows at all levels."""

    def update(x: Tensor, codes: Tensor, state: State, step: int, revive_below: float) -> None:
        codebooks = state[0]
        sizes = 1, 0, min(REVIVALS_PER_STEP, codebooks.shape[1]) if revive_below else 0
        rows = torch.full((len(x),), len(codebooks))
        counted = (x, codes, codebooks, rows, torch.tensor(step))
        flat = cpu.statistics(*counted, *sizes, instruction_set=name)
        cpu.apply(flat, *state, 1, sizes[2], 0.99, 1e-5, revive_below, instruction_set=name)

    return update


@pytest.mark.parametrize(("size", "width", "revive_below"), [(40, 21, 0.05), (24, 5, 0.4), (70, 64, 0.0)])
def test_every_implementation_and_instruction_set_has_the_same_bits_for_100_steps(size, width, revive_below):
    updates: dict[str, Callable] = {
        impl: lambda x, codes, state, step, below, impl=impl: ema_update(
            x, codes, *state, step=step, revive_below=below, impl=impl
        )
        for impl in IMPLEMENTATIONS
    }
    updates |= {name: by_instruction_set(name) for name in COMPILED}
    _, _, start = quantizer(3, 4, size, width)
    start[0][:, size // 2 :] += 20  # half of the codes are out of reach
    states = {name: tuple(t.clone() for t in start) for name in updates}
    generator = torch.Generator().manual_seed(1)
    for step in range(100):
        x = torch.randn(211, width, generator=generator) * 1.5
        x[::17] *= 1e9  # beyond what fixed point holds: clamped
        codes = rvq_search(x, states["reference"][0], impl="reference").codes
        for name, update in updates.items():
            update(x, codes, states[name], step, revive_below)
            assert same(states[name], states["reference"]), f"{name}, step {step}"


@every
@pytest.mark.parametrize(
    "options",
    [
        {"revive_below": 0.4},
        {"num_levels": 2, "levels": torch.arange(90) % 4},
        {"mask": torch.arange(90) % 3 > 0},
    ],
)
def test_every_implementation_has_the_references_bits_whatever_the_options(impl, options):
    x, codes, state = quantizer()
    expected = updated(x, codes, state, **options, impl="reference")
    assert same(updated(x, codes, state, **options, impl=impl), expected)
    strided = tuple(t.transpose(0, 1).contiguous().transpose(0, 1) for t in state)
    copies = [torch.empty_like(t).copy_(t) for t in strided]  # keeps the strides
    ema_update(x, codes, *copies, step=7, **options, impl=impl)
    assert same(tuple(copies), expected)


@every
def test_the_order_of_rows_and_the_number_of_threads_do_not_reach_the_bits(impl):
    x, codes, state = quantizer(rows=5000, size=200, width=40)
    expected = updated(x, codes, state, revive_below=0.4, impl=impl)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        assert same(updated(x[order], codes[order], state, revive_below=0.4, impl=impl), expected)
    torch.set_num_threads(1)
    assert not same(updated(x, codes, state, revive_below=0.4, step=8, impl=impl), expected)


@every
def test_sums_are_as_exact_as_fp32_values_and_hold_a_steps_worth_of_the_largest(impl):
    x, codes, state = quantizer(rows=2000, levels=1, size=3, width=2)
    found = updated(x, codes, state, decay=0.0, revive_below=0.0, impl=impl)[2]
    expected = torch.zeros(3, 2, dtype=torch.float64).index_add_(0, codes[:, 0], x.double())
    # Half a unit of fixed point per value, at random, and the result's own rounding.
    step = state[0].abs().max() * 2.0**-21
    assert (found[0] - expected).abs().max() < step * 2000**0.5 / 2 + 2.0**-24 * expected.abs().max()
    rows = 1 << 20  # half of message.MAX_ROWS, all clamped
    codebook = torch.ones(1, 1, 1)
    vast = (torch.full((rows, 1), 1e30), torch.zeros(rows, 1, dtype=torch.int64))
    state = codebook, torch.zeros(1, 1), torch.zeros(1, 1, 1)
    total = updated(*vast, state, decay=0.0, revive_below=0.0, impl=impl)[2]
    assert total.item() == rows * 2.0 ** (message.VALUE_BITS - message.FRACTION_BITS + 1)


def test_stacks_updated_together_have_the_bits_of_stacks_updated_alone():
    generator = torch.Generator().manual_seed(3)
    stacks = []
    for levels, size, width, rows in ((3, 20, 8, 50), (2, 33, 5, 41)):
        x, codebooks = (
            torch.randn(*shape, generator=generator) for shape in ((rows, width), (levels, size, width))
        )
        state = codebooks, torch.zeros(levels, size), torch.zeros(levels, size, width)
        stacks.append(Assignment(x, rvq_search(x, codebooks).codes, *state))
    alone = [stack._replace(**{name: getattr(stack, name).clone() for name in STATE}) for stack in stacks]
    ema_update_stacks(stacks, step=4)
    for stack, single in zip(stacks, alone, strict=True):
        ema_update(*single[:5], step=4)
        assert all(torch.equal(getattr(stack, name), getattr(single, name)) for name in STATE)
        assert stack.usage.any()


def test_one_to_four_ranks_with_shuffled_unequal_shards_give_one_ranks_bits_with_one_all_reduce_a_step(
    tmp_path,
):
    codebooks, usage, vector_sum = alone = ema_worker.start()
    for step in range(ema_worker.STEPS):
        x = ema_worker.batch(step)
        ema_update(x, rvq_search(x, codebooks).codes, codebooks, usage, vector_sum, step=step)
    roots = [str(Path(csm_kernels.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(Path(ema_worker.__file__)), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    for ranks in range(1, ema_worker.MOST_RANKS + 1):
        for rank in range(ranks):
            assert same(torch.load(tmp_path / f"rank_{rank}_of_{ranks}.pt"), alone), (rank, ranks)


@pytest.mark.parametrize("cast", ["bfloat16", "half", "double"])
def test_the_state_of_a_quantizer_stays_fp32_and_keeps_its_bits_when_its_model_is_cast(cast):
    quantizers = CodebookStack(2, 12, 8), SplitQuantizer(16, 4, 2, 12, 8)
    for module in quantizers:
        before = {name: buffer.clone() for name, buffer in module.named_buffers()}
        for casted in (getattr(module, cast)(), module.to(getattr(torch, cast, torch.float64))):
            after = dict(casted.named_buffers())
            assert len(after) >= 3 and all(t.dtype == torch.float32 for t in after.values())
            assert all(torch.equal(after[name], t) for name, t in before.items())
    assert not any(
        isinstance(t, torch.nn.Parameter) for t in quantizers[0].state_dict(keep_vars=True).values()
    )
    assert next(quantizers[1].parameters()).dtype != torch.float32


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


@every
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


@every
def test_a_revived_code_is_a_row_of_the_step_and_its_statistics_agree_with_it(impl):
    x, codes, (codebooks, usage, vector_sum) = quantizer(rows=40, levels=2)
    usage[:, 3:9] = 0
    start = codebooks, usage, vector_sum
    found, _, _ = state = updated(x, codes, start, revive_below=0.1, decay=0.999, impl=impl)
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


@every
def test_equal_rows_revive_one_code_not_many_and_a_step_has_room_for_a_fixed_number(impl):
    silence = torch.ones(500, 4)
    state = torch.randn(1, 300, 4), torch.zeros(1, 300), torch.zeros(1, 300, 4)
    codebooks, _, _ = updated(silence, rvq_search(silence, state[0]).codes, state, impl=impl)
    assert int((codebooks == 1).all(-1).sum()) <= 2  # the chosen code's mean and one revived
    generator = torch.Generator().manual_seed(0)
    x, state = torch.randn(500, 4, generator=generator), tuple(t.clone() for t in state)
    state[0][:, 100:] += 50  # 200 codes out of reach
    revived, _, _ = updated(x, rvq_search(x, state[0]).codes, state, impl=impl)
    assert int((revived[0, 100:, None] == x[None]).all(-1).any(1).sum()) <= REVIVALS_PER_STEP
    assert int((revived[0][:, None] == x[None]).all(-1).any(1).sum()) >= REVIVALS_PER_STEP


@pytest.mark.parametrize("impl", ["auto", *IMPLEMENTATIONS[1:]])  # the reference reads sizes from data
@pytest.mark.parametrize("dynamic", [False, True])
def test_the_buffers_are_changed_in_place_also_through_a_compiled_graph(impl, dynamic):
    x, codes, state = quantizer()
    expected = updated(x, codes, state, impl=impl)
    copies = tuple(t.clone() for t in state)
    places = [t.data_ptr() for t in copies]
    torch._dynamo.reset()
    compiled = torch.compile(ema_update, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    compiled(x, codes, *copies, step=torch.tensor(7), impl=impl)
    assert same(copies, expected) and [t.data_ptr() for t in copies] == places


@every
def test_the_operations_pass_opcheck(impl):
    x, codes, (codebooks, usage, vector_sum) = quantizer()
    arguments = (x, codes, codebooks, torch.full((len(x),), 3), torch.tensor(1), 1, 0, 16, impl)
    torch.library.opcheck(torch.ops.csm.ema_statistics.default, arguments)
    flat = torch.ops.csm.ema_statistics(*arguments)
    state = (flat, codebooks, usage, vector_sum)
    torch.library.opcheck(torch.ops.csm.ema_apply.default, (*state, 1, 16, 0.99, 1e-5, 0.05, impl))


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


def test_totals_of_usage_have_a_deterministic_form_on_cuda() -> None:
    """Plain torch computes them there on GPUs of a capability below 8.0."""
    with FakeTensorMode(), RefusesNondeterministic():
        assert message.total(torch.ones(9, device="cuda")).dtype == torch.float64
    usage = torch.rand(1000, generator=torch.Generator().manual_seed(0)) * 5
    torch.testing.assert_close(message.total(usage), usage.double().sum(), atol=0, rtol=1e-15)
