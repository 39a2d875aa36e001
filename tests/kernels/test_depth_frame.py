"""depth_frame: the reference's codes and logits from any shape, by seed and distribution, for any threads."""

import ctypes
import itertools
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import lru_cache, partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from csm_kernels import DepthLayer, DepthWeights, Int8Rows, depth_frame, has_compiled, native
from csm_kernels.depth_frame import cpu, reference

SETS = native.instruction_sets() if has_compiled("depth_frame") else ()
COMPILED: dict[str, Callable] = {name: partial(cpu.draw, instruction_set=name) for name in SETS}
compiled = pytest.mark.parametrize("draw", COMPILED.values(), ids=COMPILED)

# Codebooks, codes, the backbone's width, width, heads, key-value heads, a head's width, feed-forward, layers.
SHAPES = [
    (2, 5, 3, 6, 1, 1, 6, 5, 1),
    (3, 16, 16, 16, 2, 1, 8, 32, 1),
    (5, 27, 32, 16, 2, 2, 8, 64, 2),
    (7, 33, 20, 36, 3, 3, 12, 41, 3),
    (9, 130, 31, 17, 5, 1, 2, 19, 2),
    (17, 100, 64, 96, 8, 2, 12, 200, 1),
    (32, 51, 48, 64, 4, 2, 16, 96, 2),
    (32, 67, 130, 128, 8, 4, 34, 130, 4),
]
LARGE = (4, 300, 64, 128, 4, 2, 32, 512, 2)  # enough for two threads to share


def random_weights(shape: tuple[int, ...], seed: int = 0) -> DepthWeights:
    books, vocab, outer, width, heads, shared, head, hidden, layers = shape
    generator = torch.Generator().manual_seed(seed)
    normal = partial(torch.randn, generator=generator)

    def matrix(rows: int, columns: int) -> Tensor:
        return normal(rows, columns) * columns**-0.5

    def layer() -> DepthLayer:
        return DepthLayer(
            attention_norm=1 + 0.2 * normal(width),
            q=matrix(heads * head, width),
            k=matrix(shared * head, width),
            v=matrix(shared * head, width),
            o=matrix(width, heads * head),
            feed_forward_norm=1 + 0.2 * normal(width),
            gate=matrix(hidden, width),
            up=matrix(hidden, width),
            down=matrix(width, hidden),
        )

    angles = torch.arange(books).unsqueeze(1) * 100.0 ** -(torch.arange(0, head, 2) / head)
    return DepthWeights(
        table=normal(books * vocab, outer),
        projection=matrix(width, outer),
        layers=tuple(layer() for _ in range(layers)),
        norm=1 + 0.2 * normal(width),
        heads=normal(books - 1, width, vocab) * width**-0.5,
        cos=angles.cos(),
        sin=angles.sin(),
        n_heads=heads,
        n_kv_heads=shared,
        eps=1e-5,
        cumulative=seed % 2 == 1,
    )


def random_row(weights: DepthWeights, seed: int = 0) -> Tensor:
    return torch.randn(weights.table.shape[1], generator=torch.Generator().manual_seed(seed + 1000))


def uniforms_of(weights: DepthWeights, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(weights.books - 1, dtype=torch.float64, generator=generator)


def double(weights: DepthWeights) -> DepthWeights:
    """The same numbers in float64."""

    def of(value):
        if isinstance(value, Int8Rows):
            return of(value.restored())
        if isinstance(value, tuple):
            return type(value)(*map(of, value)) if isinstance(value, DepthLayer) else tuple(map(of, value))
        return value.double() if isinstance(value, Tensor) else value

    changed = {f.name: of(getattr(weights, f.name)) for f in fields(weights) if f.name != "originals"}
    if isinstance(weights.heads, Int8Rows):
        changed["heads"] = changed["heads"].transpose(1, 2)
    return replace(weights, **changed, originals=())


@pytest.fixture(autouse=True)
def uninitialised_memory_is_garbage() -> Iterator[None]:
    """malloc gives bytes of 0xFE, which are floats of -1.7e38."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda option, value: 0)
    m_perturb = -6
    mallopt(m_perturb, 1)
    yield
    mallopt(m_perturb, 0)


class Expected(NamedTuple):
    """Arguments of a draw, and what the reference gives in float64 and in float32."""

    arguments: tuple
    exact: tuple[Tensor, Tensor]
    plain: tuple[Tensor, Tensor]


@lru_cache(maxsize=1)  # all instruction sets are compared with it, one after the other
def expectations(shape: tuple[int, ...], kind: str) -> list[Expected]:
    found = []
    for seed in range(4):
        weights = random_weights(shape, seed)
        weights = weights.int8() if kind == "int8" else weights
        row, code, exact = random_row(weights, seed), seed % weights.vocab, double(weights)
        for drawn, temperature, top_k in [(weights.vocab, 0.0, 0), (weights.vocab - 2, 0.9, 0), (4, 1.5, 3)]:
            rest = (drawn, temperature, top_k, uniforms_of(weights, seed))
            arguments = (row, code, weights, *rest)
            in_double = reference.draw(row.double(), code, exact, *rest)
            found.append(Expected(arguments, in_double, reference.draw(*arguments)))
    return found


@compiled
@pytest.mark.parametrize("kind", ["fp32", "int8"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_codes_are_the_references_and_logits_as_near_to_float64(draw, shape, kind):
    errors = {"ours": 0.0, "reference": 0.0, "last place": 0.0}
    for arguments, (exact_codes, exact), (plain, near) in expectations(shape, kind):
        codes, logits = draw(*arguments, with_logits=True)
        assert codes.tolist() == plain.tolist() == exact_codes.tolist()
        errors["ours"] += float((logits - exact).square().sum())
        errors["reference"] += float((near - exact).square().sum())
        errors["last place"] += exact.numel() * (2.0**-23 * float(exact.abs().max())) ** 2
        assert draw(*arguments)[0].equal(codes)  # without the logits too
    weights = arguments[2]
    # Of a few hundred logits both errors are themselves uncertain.
    allowed = 1.0 if weights.books * weights.vocab > 1500 else 1.5
    # No less than the last place of the largest logit can be asked for.
    assert errors["ours"] <= max(allowed**2 * errors["reference"], errors["last place"]), errors


@compiled
@pytest.mark.parametrize("kind", ["fp32", "int8"])
@pytest.mark.parametrize("shape", [*SHAPES[::2], LARGE], ids=str)
def test_the_number_of_threads_changes_no_bit(draw, shape, kind):
    weights = random_weights(shape)
    weights = weights.int8() if kind == "int8" else weights
    row, uniforms = random_row(weights), uniforms_of(weights)
    for temperature in (0.0, 1.0):
        rest = (row, 1, weights, weights.vocab, temperature, 3, uniforms)
        one, two = (draw(*rest, with_logits=True, team=team) for team in (1, 2))
        assert all(a.equal(b) for a, b in zip(one, two, strict=True))


@pytest.mark.skipif(not COMPILED, reason="no compiled kernels")
def test_torchs_threads_share_a_step_that_is_large_enough():
    weights = random_weights(LARGE)
    row = random_row(weights)
    one = depth_frame(row, 0, weights, with_logits=True, impl="cpu")
    torch.set_num_threads(2)
    assert depth_frame(row, 0, weights, with_logits=True, impl="cpu").logits.equal(one.logits)


def test_draws_follow_the_distribution_of_temperature_and_top_k():
    impl = "cpu" if COMPILED else "reference"  # both draw the same codes: the test of all shapes
    weights = random_weights((2, 7, 8, 16, 2, 1, 8, 16, 1), 3)
    row, count = random_row(weights), 4000
    uniforms = torch.rand(count, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    for temperature, top_k, drawn in [(1.0, 0, 7), (0.6, 4, 7), (2.0, 0, 5)]:
        options = {"temperature": temperature, "top_k": top_k, "drawn": drawn, "impl": impl}
        draws = [int(depth_frame(row, 2, weights, uniforms=u, **options).codes[1]) for u in uniforms]
        logits = depth_frame(row, 2, weights, with_logits=True).logits[0, :drawn]
        if top_k:
            logits = logits.where(logits >= logits.topk(top_k).values[-1], -torch.inf)
        expected = (logits.double() / temperature).softmax(0) * count
        found = torch.bincount(torch.tensor(draws), minlength=drawn).double()
        assert not found[expected == 0].any()
        kept = expected > 0
        square = float(((found - expected).square() / expected)[kept].sum())
        # Six degrees of freedom at most: 22.5 is passed once in a thousand times.
        assert square < 22.5, (square, found, expected)


@pytest.mark.parametrize("impl", ["reference", *(["cpu"] if COMPILED else [])])
def test_of_equal_logits_the_lowest_codes_are_kept_and_the_lowest_is_the_argmax(impl):
    weights = random_weights((3, 40, 8, 16, 2, 1, 8, 16, 1))  # equal ones in one vector and in several
    weights.heads.zero_()
    row, options = random_row(weights), {"temperature": 1.0, "top_k": 4, "impl": impl}
    assert depth_frame(row, 5, weights, impl=impl).codes.tolist() == [5, 0, 0]
    for place in range(4):
        uniforms = torch.full((2,), place / 4 + 0.1, dtype=torch.float64)
        assert depth_frame(row, 5, weights, uniforms=uniforms, **options).codes.tolist() == [5, place, place]
    edges = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert depth_frame(row, 5, weights, uniforms=edges, **options).codes.tolist() == [5, 0, 3]


def test_the_error_of_int8_logits_is_a_hundredth_of_their_deviation():
    shares = []
    for shape, seed in itertools.product([*SHAPES[5:], LARGE], range(4)):
        weights = random_weights(shape, seed)
        row = random_row(weights, seed)
        exact = depth_frame(row, 0, weights, with_logits=True)
        # The first step alone: after another code the logits are other ones.
        rough = depth_frame(row, 0, weights.int8(), with_logits=True)
        shares.append(
            float((rough.logits[0] - exact.logits[0]).square().mean().sqrt() / exact.logits[0].std())
        )
    assert 0.002 < max(shares) < 0.03, shares


def test_weights_changed_in_place_count_from_the_next_frame_on_and_make_an_int8_copy_outdated():
    weights = random_weights(SHAPES[4])
    row, quantized = random_row(weights), weights.int8()
    before = depth_frame(row, 0, weights, with_logits=True).logits
    assert weights.is_current() and quantized.is_current()
    weights.layers[1].down.mul_(2)
    assert weights.is_current() and not quantized.is_current()
    assert not depth_frame(row, 0, weights, with_logits=True).logits.equal(before)


@pytest.mark.parametrize("impl", ["auto", "reference"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_damaged_weights_are_refused(impl, value):
    weights = random_weights(SHAPES[2])
    weights.layers[0].down[3, 5] = value
    with pytest.raises(ValueError, match="logits hold NaN or rule out every index"):
        depth_frame(random_row(weights), 0, weights, impl=impl)


def test_wrong_input_is_refused():
    weights = random_weights(SHAPES[2])
    row, books, vocab = random_row(weights), weights.books, weights.vocab
    good = torch.zeros(books - 1, dtype=torch.float64)
    for changes, message in [
        ({"hidden": row[:-1]}, r"hidden: expected torch.float32 \[32\]"),
        ({"hidden": row.double()}, "hidden: expected torch.float32"),
        ({"code": vocab}, "code: expected 0..26, got 27"),
        ({"code": -1}, "code: expected 0..26, got -1"),
        ({"drawn": 0}, "drawn: expected 1..27, got 0"),
        ({"drawn": vocab + 1}, "drawn: expected 1..27, got 28"),
        ({"temperature": -1.0}, "temperature: expected 0"),
        ({"temperature": float("nan")}, "temperature: expected 0"),
        ({"top_k": -1}, "top_k: expected 0"),
        ({"temperature": 1.0}, "uniforms: expected float64 .* got none"),
        ({"temperature": 1.0, "uniforms": good[1:]}, "uniforms: expected float64"),
        ({"temperature": 1.0, "uniforms": good.float()}, "uniforms: expected float64"),
        ({"temperature": 1.0, "uniforms": good + 1}, "uniforms: expected numbers in"),
        ({"impl": "triton"}, "impl: 'triton' needs"),
        ({"impl": "best"}, "impl: expected one of"),
    ]:
        with pytest.raises(ValueError, match=message):
            depth_frame(**{"hidden": row, "code": 0, "weights": weights, **changes})
    for changes, message in [
        ({"table": weights.table[1:]}, r"table: expected .*\[130, 32\]"),
        ({"norm": weights.norm[1:]}, "projection: expected"),
        ({"heads": weights.heads.transpose(1, 2)}, "heads: expected"),
        ({"n_kv_heads": 3}, "n_kv_heads: expected a divisor of n_heads 2"),
        ({"n_heads": 4}, r"layers\[0\].q: expected"),
        ({"sin": weights.sin[:, :1]}, "sin: expected"),
        ({"layers": ()}, "layers of at least one layer"),
        ({"projection": weights.projection.half()}, "projection: expected torch.float32"),
        ({"projection": Int8Rows.of(weights.projection)}, "expected all matrices in int8 or none"),
    ]:
        with pytest.raises(ValueError, match=message):
            replace(weights, **changes)
    with pytest.raises(ValueError, match="got int8 already"):
        weights.int8().int8()


@compiled
def test_the_norms_epsilon_is_the_callers(draw):
    weights = replace(random_weights(SHAPES[3]), eps=0.5)
    row = 0.1 * random_row(weights)
    given = (row, 1, weights, weights.vocab, 0.0, 0, None)
    logits, expected = draw(*given, with_logits=True)[1], reference.draw(*given)[1]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    other = reference.draw(row, 1, replace(weights, eps=1e-5), weights.vocab, 0.0, 0, None)[1]
    assert not torch.allclose(other[0], expected[0], atol=1e-2)
