"""ema_update in Triton: the specification's integers and state bit for bit, and nothing written outside.

Without a CUDA device the kernels run in Triton's interpreter (tests/conftest.py switches it on). On one the
totals of usage, summed in double in another order, may move the last bit.
"""

import random
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from csm_kernels.ema_update import message, reference

pytest.importorskip("triton")
from csm_kernels.ema_update import triton_kernel  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
GUARD = 64
State = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True)
def uninitialised_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def case(
    rows: int, levels: int, size: int, width: int, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, State]:
    """x, codes, levels of each row, and (codebooks, usage, vector_sum) in the middle of a training."""
    generator = torch.Generator().manual_seed(seed)
    codebooks = torch.randn(levels, size, width, generator=generator)
    usage = torch.rand(levels, size, generator=generator) * 5
    x = torch.randn(rows, width, generator=generator) * 2
    codes = torch.randint(0, size, (rows, levels), generator=generator)
    row_levels = torch.randint(0, levels + 1, (rows,), generator=generator)
    return x, codes, row_levels, (codebooks, usage, codebooks * usage[..., None])


def parts(flat: Tensor, codebooks: Tensor, ranks: int, slots: int) -> message.Message:
    return message.split_message(flat.cpu(), *codebooks.shape, ranks, slots)


def check_statistics(
    x: Tensor,
    codes: Tensor,
    row_levels: Tensor,
    codebooks: Tensor,
    step: int,
    ranks: int,
    rank: int,
    slots: int,
) -> Tensor:
    """Both messages, equal; gives it."""
    counter = torch.tensor(step)
    expected = reference.statistics(x, codes, codebooks, row_levels, counter, ranks, rank, slots)
    on = [t.to(DEVICE) for t in (x, codes, codebooks, row_levels, counter)]
    found = triton_kernel.statistics(*on, ranks, rank, slots)
    for name, got, want in zip(
        message.Message._fields,
        parts(found, codebooks, ranks, slots),
        parts(expected, codebooks, ranks, slots),
        strict=True,
    ):
        if name == "candidates":  # of rows that do not count (-1) any value may stand there: nothing reads it
            counted = parts(expected, codebooks, ranks, slots).priorities >= 0
            got, want = got[counted], want[counted]
        assert torch.equal(got, want), name
    return expected


def guarded(t: Tensor) -> tuple[Tensor, Tensor]:
    memory = torch.full((t.numel() + 2 * GUARD,), torch.nan, device=DEVICE)
    middle = memory[GUARD : GUARD + t.numel()].view(t.shape)
    middle.copy_(t)
    return middle, memory


def check_apply(flat: Tensor, state: State, ranks: int, slots: int, *options: float) -> State:
    """Both updates of a state, equal; gives it."""
    expected = tuple(t.clone() for t in state)
    reference.apply(flat, *expected, ranks, slots, *options)
    pairs = [guarded(t) for t in state]
    triton_kernel.apply(flat.to(DEVICE), *(middle for middle, _ in pairs), ranks, slots, *options)
    for name, (middle, memory), want in zip(
        ("codebooks", "usage", "vector_sum"), pairs, expected, strict=True
    ):
        assert memory[:GUARD].isnan().all() and memory[GUARD + want.numel() :].isnan().all()
        if DEVICE == "cpu":
            assert torch.equal(middle, want), name
        else:
            torch.testing.assert_close(middle.cpu(), want, rtol=1e-6, atol=1e-7)
    return expected


# rows, levels, codes, width, ranks, rank, slots
SHAPES = [
    (90, 3, 16, 5, 1, 0, 16),
    (70, 3, 150, 64, 2, 1, 64),
    (13, 2, 7, 1, 1, 0, 7),
    (1, 4, 33, 8, 3, 2, 33),
    (0, 2, 7, 3, 1, 0, 7),
    (200, 2, 40, 70, 1, 0, 0),
    (65, 32, 5, 3, 1, 0, 5),
    (129, 8, 64, 128, 1, 0, 64),
    (33, 1, 1100, 4, 1, 0, 64),
    (40, 2, 64, 192, 4, 0, 64),
]


# Any shape at one scale and with one set of options, then each of these on a shape of two ranks.
SCALED = [(1.0, *shape) for shape in SHAPES] + [(scale, *SHAPES[1]) for scale in (1e-6, 1e6)]
OPTIONS = [(0.99, 1e-5, 0.05), (0.9, 1e-3, 0.45), (0.0, 1e-8, 0.2)]
OPTED = [(*OPTIONS[0], *shape) for shape in SHAPES] + [(*options, *SHAPES[1]) for options in OPTIONS[1:]]


@pytest.mark.parametrize(("scale", "rows", "levels", "size", "width", "ranks", "rank", "slots"), SCALED)
def test_the_message_is_the_specifications_bit_for_bit(scale, rows, levels, size, width, ranks, rank, slots):
    x, codes, row_levels, (codebooks, *_) = case(rows, levels, size, width)
    check_statistics(x * scale, codes, row_levels, codebooks * scale, 7, ranks, rank, slots)
    check_statistics(x * scale, codes, row_levels, codebooks, 1 << 40, ranks, rank, slots)


@pytest.mark.parametrize(
    (
        *("decay", "epsilon", "revive_below"),
        *("rows", "levels", "size", "width", "ranks", "rank", "slots"),
    ),
    OPTED,
)
def test_the_state_is_the_specifications_bit_for_bit(
    decay, epsilon, revive_below, rows, levels, size, width, ranks, rank, slots
):
    x, codes, row_levels, state = case(rows, levels, size, width)
    row_levels[:1] = levels
    state[1][0, ::3] = 0
    flat = torch.zeros(message.message_size(levels, size, width, ranks, slots), dtype=torch.int64)
    for place in range(ranks):  # what the all-reduce would sum
        here = slice(place, None, ranks)
        flat += check_statistics(x[here], codes[here], row_levels[here], state[0], 3, ranks, place, slots)
    before = state
    state = check_apply(flat, state, ranks, slots, decay, epsilon, revive_below if slots else 0.0)
    assert rows == 0 or not torch.equal(state[0], before[0])


def test_whole_numbers_are_rounded_and_bounded_as_the_specification_does():
    # The largest entry 1.0 has exponent 1: values are counted in units of 2^-21.
    codebooks = torch.zeros(1, 2, 1)
    codebooks[0, 1] = 1.0
    unit = 2.0**-21
    values = [
        0.5,
        1.5,
        2.5,
        -0.5,
        -1.5,
        -2.5,
        0.49999997,
        -0.49999997,
        4194303.5,
        4194304.5,
        8388607.5,
        -8388606.5,
    ]
    x = torch.tensor([v * unit for v in values] + [3e30, -3e30, 2.0**21, -(2.0**21), 0.0, -0.0])[:, None]
    for row in x:  # one at a time: a sum could hide a difference
        check_statistics(
            row[None],
            torch.zeros(1, 1, dtype=torch.int64),
            torch.ones(1, dtype=torch.int64),
            codebooks,
            0,
            1,
            0,
            1,
        )


@pytest.mark.parametrize("largest", [0.0, 1e-45, 1e-38, 2.0**-61, 2.0**-60, 1.0, 2.0**59, 2.0**60, 3e38])
def test_the_fixed_point_follows_the_largest_entry_of_each_level(largest):
    codebooks = torch.zeros(2, 3, 2)
    codebooks[0, 1, 1], codebooks[1, 2, 0] = largest, -largest / 2
    found = triton_kernel._largest_bits(codebooks.to(DEVICE)).cpu()
    assert torch.equal(found.view(torch.float32), codebooks.abs().flatten(1).amax(1))
    x = torch.tensor([[1.0, -2.0], [1e-9, 1e9], [3.0, 1e-30]])
    codes = torch.tensor([[1, 2], [0, 0], [1, 1]])
    x[2] *= max(largest, 1e-30)
    check_statistics(x, codes, torch.full((3,), 2), codebooks, 1, 1, 0, 3)


def test_the_order_of_rows_does_not_reach_the_message():
    x, codes, row_levels, (codebooks, *_) = case(150, 3, 20, 6)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(3))
    counter = torch.tensor(5)
    messages = [
        triton_kernel.statistics(
            *(t.to(DEVICE) for t in (x[rows], codes[rows], codebooks, row_levels[rows], counter)), 1, 0, 20
        )
        for rows in (torch.arange(150), order)
    ]
    assert torch.equal(*messages)


def test_codes_may_be_columns_of_a_wider_tensor():
    x, codes, row_levels, (codebooks, *_) = case(50, 4, 9, 3)
    check_statistics(x, codes[:, :2], row_levels.clamp(max=2), codebooks[:2], 5, 1, 0, 9)
    check_statistics(x, codes.T.contiguous().T, row_levels, codebooks, 5, 1, 0, 9)


def test_equal_rows_revive_one_code_and_dead_codes_beyond_a_block_find_theirs():
    x, codes, row_levels, state = case(90, 2, 2100, 4)
    x[10:40] = x[10]
    state[1][:, 5:2050] = 0
    row_levels[:] = 2
    flat = check_statistics(x, codes, row_levels, state[0], 11, 1, 0, 64)
    moved = check_apply(flat, state, 1, 64, 0.99, 1e-5, 0.05)
    assert len((moved[0][0, :, None] == x).all(2).any(1).nonzero()) > 0
    state[1][:] = 1.0
    state[1][:, [1, 500, 1023, 1024, 1500, 2048, 2060, 2099]] = 0  # a few dead codes in each block of 1,024
    check_apply(flat, state, 1, 64, 0.99, 1e-5, 0.05)


def test_a_level_no_row_reached_is_kept_whatever_its_state():
    x, codes, row_levels, state = case(30, 3, 8, 5)
    row_levels = row_levels.clamp(max=1)
    row_levels[0] = 1
    state[1][1] = 0
    flat = check_statistics(x, codes, row_levels, state[0], 1, 1, 0, 8)
    moved = check_apply(flat, state, 1, 8, 0.9, 1e-5, 0.05)
    for new, old in zip(moved, state, strict=True):
        assert torch.equal(new[1:], old[1:]) and not torch.equal(new[0], old[0])


def test_twenty_steps_of_training_leave_the_specifications_bits():
    generator = torch.Generator().manual_seed(0)
    codebooks = torch.randn(2, 24, 5, generator=generator)
    codebooks[:, 4:] += 50
    state: State = codebooks, torch.zeros(2, 24), torch.zeros(2, 24, 5)
    for step in range(20):
        x = torch.randn(83, 5, generator=generator) * 3
        residual, codes = x, []
        for codebook in state[0]:
            codes.append(torch.cdist(residual, codebook).argmin(1))
            residual = residual - codebook[codes[-1]]
        flat = check_statistics(x, torch.stack(codes, 1), torch.full((83,), 2), state[0], step, 1, 0, 24)
        state = check_apply(flat, state, 1, 24, 0.9, 1e-5, 0.05)


@pytest.mark.parametrize("levels", [1, 32])
def test_the_number_of_launches_does_not_grow_with_the_levels(levels, monkeypatch):
    started: list[str] = []

    def counted(name: str, kernel: object) -> object:
        class Launcher:
            def __getitem__(self, grid: tuple[int, ...]) -> object:
                started.append(name)
                return kernel[grid]

        return Launcher()

    for name in ("_largest", "_accumulate", "_draw", "_write_candidates", "_move_usage", "_move_vectors"):
        monkeypatch.setattr(triton_kernel, name, counted(name, getattr(triton_kernel, name)))
    x, codes, row_levels, state = case(10, levels, 5, 3)
    on = [t.to(DEVICE) for t in (x, codes, state[0], row_levels, torch.tensor(0))]
    flat = triton_kernel.statistics(*on, 1, 0, 5)
    triton_kernel.apply(flat, *(t.to(DEVICE) for t in state), 1, 5, 0.99, 1e-5, 0.05)
    assert started == [
        "_largest",
        "_accumulate",
        "_draw",
        "_write_candidates",
        "_largest",
        "_move_usage",
        "_move_vectors",
    ]


KERNELS = ("_largest", "_accumulate", "_draw", "_write_candidates", "_move_usage", "_move_vectors")


@pytest.fixture
def grids(monkeypatch) -> dict[str, tuple[int, ...]]:
    """The grids that launches ask for; no kernel runs."""
    found: dict[str, tuple[int, ...]] = {}

    class Asked:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            found[self.name] = grid
            return lambda *arguments, **options: None

    for name in KERNELS:
        monkeypatch.setattr(triton_kernel, name, Asked(name))
    return found


def launch_without_values(rows: int, levels: int, size: int, width: int, slots: int) -> None:
    """The launches of a step, of tensors that take no memory."""
    with torch.device("meta"):
        x, codes = torch.empty(rows, width), torch.empty(rows, levels, dtype=torch.int64)
        codebooks, usage = torch.empty(levels, size, width), torch.empty(levels, size)
        row_levels, step = torch.empty(rows, dtype=torch.int64), torch.empty((), dtype=torch.int64)
    flat = triton_kernel.statistics(x, codes, codebooks, row_levels, step, 1, 0, slots)
    triton_kernel.apply(flat, codebooks, usage, codebooks, 1, slots, 0.9, 1e-5, 0.05)


def large_sizes() -> list[tuple[int, int, int, int]]:
    """Rows, levels, codes and widths: those that once broke a limit, the largest ones, and random ones."""
    draw = random.Random(0)
    sizes = [
        (message.MAX_ROWS, 32, 2**17, 4096),
        (1, 1, 2**31 - 1, 1),
        (1, 1, 512, 65_535 * triton_kernel.COLUMNS),
        (4096, 65_535, 1024, 128),
    ]
    while len(sizes) < 200:
        rows, levels = (int(2 ** draw.uniform(0, most)) for most in (21, 15.9))
        size, width = (int(2 ** draw.uniform(0, most)) for most in (26, 21.9))
        if size * width < 2**31:
            sizes.append((rows, levels, size, width))
    return sizes


def test_grids_of_any_size_cover_it_within_what_cuda_launches(grids) -> None:
    rows_each, columns, block = triton_kernel.ROWS, triton_kernel.COLUMNS, triton_kernel.BLOCK
    beyond = 0
    for rows, levels, size, width in large_sizes():
        grids.clear()
        launch_without_values(rows, levels, size, width, slots=min(64, size))
        assert set(grids) == set(KERNELS)
        for grid in grids.values():
            assert 1 <= grid[0] < 2**31 and all(1 <= programs <= 65_535 for programs in grid[1:]), grid
        assert grids["_largest"][0] * block >= size * width and grids["_largest"][1] == levels
        assert grids["_accumulate"][0] * rows_each >= rows and grids["_accumulate"][1] * columns >= width
        assert grids["_draw"][0] * rows_each >= rows
        assert grids["_write_candidates"][0] == levels and grids["_write_candidates"][2] * columns >= width
        assert grids["_move_usage"] == (levels,)
        vectors = grids["_move_vectors"]
        assert vectors[0] * rows_each >= size and vectors[1] * columns >= width and vectors[2] == levels
        beyond += max(max(grid) for grid in grids.values()) > 65_535
    assert beyond > 20, "axis 0 alone takes more than 65,535 programs"


@pytest.mark.parametrize(
    ("sizes", "message", "launched"),
    [
        ((4, 65_536, 2, 2), "65536 programs on axis 1", set()),
        ((4, 1, 2, 65_536 * 64), "65536 programs on axis 1", {"_largest"}),
        ((4, 1, 2**16, 2**15), "codebooks have 2147483648 entries a level", set()),
    ],
)
def test_what_cuda_cannot_launch_is_refused_before_it_is_launched(grids, sizes, message, launched) -> None:
    with pytest.raises(ValueError, match=message):
        launch_without_values(*sizes, slots=2)
    assert set(grids) == launched
