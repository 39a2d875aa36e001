"""vocoder_frames: the reference's samples, whatever the cut, the batch and the number of threads."""

import ctypes
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from csm_kernels import Int8Rows, VocoderState, VocoderWeights, has_compiled, native, vocoder_frames
from csm_kernels.vocoder_frames import cpu, reference
from csm_kernels.vocoder_frames.weights import MATRICES, SHAPES

SETS = native.instruction_sets() if has_compiled("vocoder_frames") else ()
COMPILED: dict[str, Callable] = {name: partial(cpu.synthesise, instruction_set=name) for name in SETS}
compiled = pytest.mark.parametrize("synthesise", COMPILED.values(), ids=COMPILED)
EACH: dict[str, Callable] = {"reference": reference.synthesise, **COMPILED}
each = pytest.mark.parametrize("synthesise", EACH.values(), ids=EACH)
kinds = pytest.mark.parametrize("kind", ["fp32", "int8"])


@lru_cache(maxsize=4)
def random_weights(seed: int = 0, kind: str = "fp32") -> VocoderWeights:
    """Activations of order 1, log gains about -2."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(shape, generator=generator) * (1.5 * shape[-1] ** -0.5 if len(shape) > 1 else 1)
        for name, shape in SHAPES.items()
    }
    weights = VocoderWeights(**{**tensors, "gain_bias": torch.full((1,), -2.0)})
    return weights.int8() if kind == "int8" else weights


def random_input(batch: int, frames: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed + 100)
    periods = torch.randint(32, 256, (batch, frames), generator=generator)
    edges = torch.tensor([255, 32, 254, 39, 40, 41])
    periods[:, ::2] = edges[torch.randint(6, periods[:, ::2].shape, generator=generator)]
    return torch.randn(batch, frames, 4, 80, generator=generator).tanh(), periods


def double(weights: VocoderWeights) -> VocoderWeights:
    return VocoderWeights(**{name: tensor.double() for name, tensor in weights.restored().named().items()})


def in_double(state: VocoderState) -> VocoderState:
    return VocoderState(*(t.double() if t.is_floating_point() else t for t in state))


def rows(state: VocoderState, chosen: slice) -> VocoderState:
    return VocoderState(*(tensor[chosen] for tensor in state))


def same(found: tuple[Tensor, VocoderState], expected: tuple[Tensor, VocoderState]) -> bool:
    pairs = zip((found[0], *found[1]), (expected[0], *expected[1]), strict=True)
    return all(a.equal(b) for a, b in pairs)


@pytest.fixture(autouse=True)
def uninitialised_memory_is_garbage() -> Iterator[None]:
    """malloc gives bytes of 0xFE, which are floats of -1.7e38."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda option, value: 0)
    m_perturb = -6
    mallopt(m_perturb, 1)
    yield
    mallopt(m_perturb, 0)


class Expected(NamedTuple):
    """Arguments of a call for one frame, and what the reference gives in float64 and in float32."""

    arguments: tuple
    exact: tuple[Tensor, VocoderState]
    plain: tuple[Tensor, VocoderState]


@lru_cache(maxsize=2)  # all instruction sets are compared with it
def expectations(kind: str) -> list[Expected]:
    """Single frames, each from the state after the ones before: over a longer run rounding grows."""
    found = []
    for seed in range(3):
        weights, (conditions, periods) = random_weights(seed, kind), random_input(2, 6, seed)
        state = VocoderState.silence(2)
        for t in range(6):
            now = conditions[:, t : t + 1], periods[:, t : t + 1]
            exact = reference.synthesise(now[0].double(), now[1], double(weights), in_double(state))
            plain = reference.synthesise(*now, weights, state)
            found.append(Expected((*now, weights, state), exact, plain))
            state = plain[1]
    return found


@compiled
@kinds
def test_samples_and_states_are_as_near_to_float64_as_the_references(synthesise, kind):
    names = ("first subframe", "frame", *VocoderState._fields[1:-1])

    def parts(result: tuple[Tensor, VocoderState]) -> list[Tensor]:
        return [result[0][:, :40], result[0], *result[1][1:-1]]

    errors = {name: [0.0, 0.0, 0.0] for name in names}
    for arguments, exact, plain in expectations(kind):
        found = synthesise(*arguments)
        assert found[1].period.equal(exact[1].period)
        for name, ours, theirs, true in zip(names, *map(parts, (found, plain, exact)), strict=True):
            errors[name][0] += float((ours - true).square().sum())
            errors[name][1] += float((theirs - true).square().sum())
            errors[name][2] += float(true.square().sum())
    for name, (ours, theirs, size) in errors.items():
        # Of 36 frames both errors are themselves uncertain.
        assert ours <= 1.5**2 * theirs, (name, errors)
        assert ours <= 5e-7**2 * size, (name, errors)


@each
@kinds
def test_frames_may_be_cut_into_calls_anywhere(synthesise, kind):
    weights, (conditions, periods) = random_weights(1, kind), random_input(2, 7)
    whole = synthesise(conditions, periods, weights, VocoderState.silence(2))
    for cuts in ([1, 1, 1, 1, 1, 1, 1], [3, 4], [0, 6, 0, 1]):
        state, parts = VocoderState.silence(2), []
        for part in zip(conditions.split(cuts, 1), periods.split(cuts, 1), strict=True):
            samples, state = synthesise(*part, weights, state)
            parts.append(samples)
        assert same((torch.cat(parts, 1), state), whole)


@each
@kinds
def test_a_row_has_the_same_bits_alone_and_in_any_batch(synthesise, kind):
    weights, (conditions, periods) = random_weights(2, kind), random_input(7, 2)
    state = synthesise(conditions, periods, weights, VocoderState.silence(7))[1]
    alone = [
        synthesise(conditions[i : i + 1], periods[i : i + 1], weights, rows(state, slice(i, i + 1)))
        for i in range(7)
    ]
    for first, last in ((0, 7), (0, 2), (2, 5), (3, 7)):
        part = slice(first, last)
        together = synthesise(conditions[part], periods[part], weights, rows(state, part))
        for i in range(first, last):
            one = slice(i - first, i - first + 1)
            assert same((together[0][one], rows(together[1], one)), alone[i])


@compiled
@kinds
def test_the_number_of_threads_changes_no_bit(synthesise, kind):
    weights, given = random_weights(0, kind), random_input(5, 3)
    state = VocoderState.silence(5)
    one = synthesise(*given, weights, state, team=1)
    assert all(same(synthesise(*given, weights, state, team=team), one) for team in (2, 3, 8))


@each
def test_a_frame_is_predicted_by_the_period_before_it_and_the_first_one_by_its_own(synthesise):
    weights, (conditions, periods) = random_weights(), random_input(1, 4)
    state = VocoderState.silence(1)
    state.samples.copy_(torch.randn(1, 256, generator=torch.Generator().manual_seed(0)))
    frames = synthesise(conditions, periods, weights, state)[0].view(4, 160)
    for t in range(4):
        changed = periods.clone()
        changed[0, t] = 77
        other, after = synthesise(conditions, changed, weights, state)
        differ = [not a.equal(b) for a, b in zip(other.view(4, 160), frames, strict=True)]
        assert differ == [(f > t or f == t == 0) for f in range(4)]
        assert after.period.tolist() == changed[:, -1].tolist()


@each
@pytest.mark.parametrize("period", [32, 39, 40, 41, 42, 97, 254, 255])
def test_a_network_that_passes_its_pitch_prediction_on_continues_a_periodic_past(synthesise, period):
    small = 2.0**-7  # where tanh is the identity
    tensors = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    tensors["pitch_gains_bias"][3] = 40.0
    tensors["skip"][:40, 608:648] = small * torch.eye(40)
    tensors["output"][:, :40] = 2 / small * torch.eye(40)  # a gate of zeros halves
    cycle = 0.01 * torch.randn(period, generator=torch.Generator().manual_seed(period))
    signal = cycle.repeat(18)[: 256 + 320]
    state = VocoderState.silence(1)._replace(samples=signal[None, :256], period=torch.tensor([period]))
    periods = torch.full((1, 2), period)
    samples, after = synthesise(torch.zeros(1, 2, 4, 80), periods, VocoderWeights(**tensors), state)
    torch.testing.assert_close(samples[0], signal[256:], rtol=2e-3, atol=1e-5)
    assert after.samples.equal(samples[:, -256:])


@each
@kinds
@pytest.mark.parametrize("size", [1e3, -1e3, 1e30])
def test_samples_are_finite_and_within_four_full_scales_for_any_gain(synthesise, kind, size):
    weights, (conditions, periods) = random_weights(0, kind), random_input(3, 3)
    weights = replace(weights, gain=weights.gain.abs())
    conditions = conditions.sign()
    conditions[0], conditions[1] = size, -size
    state = VocoderState.silence(3)
    state.samples.fill_(4.0)
    samples, after = synthesise(conditions, periods, weights, state)
    assert all(bool(t.isfinite().all()) for t in (samples, *after))
    assert float(samples.abs().max()) <= 4 and float(samples[int(size < 0)].abs().max()) > 2
    assert not samples[int(size > 0)].any()


@each
def test_a_gain_below_four_full_scales_is_kept(synthesise):
    weights = random_weights()
    zeros = torch.zeros(1, 1, 4, 80), torch.full((1, 1), 100)
    state = synthesise(*random_input(1, 3), weights, VocoderState.silence(1))[1]
    state.samples.zero_()  # prediction and last samples do not depend on the gain then
    first = {}
    for gain in (0.5, 3.9, 4.0, 5.0):
        biased = replace(weights, gain_bias=torch.tensor([math.log(gain)]))
        first[gain] = synthesise(*zeros, biased, state)[0][:, :40]
    torch.testing.assert_close(first[3.9], first[0.5] * 7.8)
    torch.testing.assert_close(first[4.0], first[0.5] * 8)
    torch.testing.assert_close(first[5.0], first[4.0])


@pytest.mark.parametrize("impl", ["reference", *(["cpu"] if COMPILED else [])])
def test_a_call_leaves_the_state_as_it_was_and_takes_tensors_of_any_layout(impl):
    weights, (conditions, periods) = random_weights(), random_input(3, 2)
    state = vocoder_frames(weights, conditions, periods, VocoderState.silence(3), impl=impl)[1]
    before = VocoderState(*(tensor.clone() for tensor in state))
    expected = vocoder_frames(weights, conditions, periods, state, impl=impl)
    assert same((periods, state), (periods, before))
    turned = conditions.transpose(0, 3).contiguous().transpose(0, 3), periods.T.contiguous().T
    strided = VocoderState(*(torch.stack([t, t], -1)[..., 0] for t in state))
    assert same(vocoder_frames(weights, *turned, strided, impl=impl), expected)


@pytest.mark.parametrize("impl", ["reference", *(["cpu"] if COMPILED else [])])
@pytest.mark.parametrize(("batch", "frames"), [(0, 3), (2, 0), (0, 0)])
def test_no_rows_and_no_frames_are_no_samples(impl, batch, frames):
    state = VocoderState.silence(batch)
    state.samples.fill_(0.5)
    given = torch.zeros(batch, frames, 4, 80), torch.full((batch, frames), 50)
    samples, after = vocoder_frames(random_weights(), *given, state, impl=impl)
    assert samples.shape == (batch, frames * 160) and same((samples, after), (samples, state))


@pytest.mark.parametrize("impl", ["reference", *(["cpu"] if COMPILED else [])])
def test_weights_changed_in_place_count_from_the_next_call_on(impl):
    weights, given, state = random_weights(), random_input(1, 1), VocoderState.silence(1)
    weights = replace(weights, output=weights.output.clone())
    before = vocoder_frames(weights, *given, state, impl=impl)
    weights.output.neg_()
    after = vocoder_frames(weights, *given, state, impl=impl)
    assert after[0][:, :40].equal(-before[0][:, :40])


def test_auto_is_the_compiled_kernel_for_fp32_and_the_reference_for_float64():
    weights, (conditions, periods), state = random_weights(), random_input(1, 2), VocoderState.silence(1)
    found = vocoder_frames(weights, conditions.requires_grad_(), periods, state)
    assert not found[0].requires_grad
    if COMPILED:
        assert same(found, cpu.synthesise(conditions.detach(), periods, weights, state))
    exact = double(weights)
    found = vocoder_frames(exact, conditions.double(), periods, in_double(state))
    with torch.no_grad():
        assert same(found, reference.synthesise(conditions.double(), periods, exact, in_double(state)))


def test_int8_matrices_are_the_ones_they_stand_for_and_near_the_original():
    weights = random_weights()
    restored = weights.int8().restored()
    for name, tensor in weights.named().items():
        kept = getattr(restored, name)
        error = (kept - tensor).abs().amax(-1)
        assert bool((error <= tensor.abs().amax(-1) / 253).all()) and kept.equal(tensor) == (
            name not in MATRICES
        )
    assert weights.restored() is weights
    with pytest.raises(ValueError, match="got int8 already"):
        weights.int8().int8()


def test_wrong_input_is_refused():
    weights, (conditions, periods), state = random_weights(), random_input(2, 3), VocoderState.silence(2)
    good = {"weights": weights, "conditions": conditions, "periods": periods, "state": state}
    for changes, message in [
        ({"conditions": conditions[:, :2]}, r"conditions: expected torch.float32 \[2, 3, 4, 80\] on cpu"),
        ({"conditions": conditions.flatten(1, 2)}, "conditions: expected"),
        ({"conditions": conditions.double()}, "conditions: expected torch.float32"),
        ({"conditions": conditions.to("meta")}, "conditions: expected .* on cpu as periods and weights"),
        ({"conditions": conditions.log()}, "conditions: expected finite numbers"),
        ({"conditions": conditions / 0}, "conditions: expected finite numbers"),
        ({"periods": periods[0]}, r"periods: expected int64 \[B, T\]"),
        ({"periods": periods.int()}, "periods: expected int64"),
        ({"periods": periods * 0 + 31}, "periods: expected 32..255 samples, got 31"),
        ({"periods": periods * 0 + 256}, "periods: expected 32..255 samples, got 256"),
        ({"periods": periods * 0}, "periods: expected 32..255 samples, got 0"),
        ({"state": VocoderState.silence(1)}, r"state.samples: expected torch.float32 \[2, 256\]"),
        ({"state": in_double(state)}, "state.samples: expected torch.float32"),
        ({"state": state._replace(gru2=state.gru1)}, r"state.gru2: expected .*\[2, 128\]"),
        ({"state": state._replace(convolution=state.gru1)}, r"state.convolution: expected .*\[2, 164\]"),
        ({"state": state._replace(period=torch.tensor([0, 20]))}, "state.period: .* or 0 before .*got 20"),
        ({"state": state._replace(period=torch.zeros(2))}, "state.period: expected torch.int64"),
        ({"impl": "triton"}, "impl: 'triton' needs"),
        ({"impl": "best"}, "impl: expected one of"),
    ]:
        with pytest.raises(ValueError, match=message):
            vocoder_frames(**{**good, **changes})


def test_wrong_weights_are_refused():
    weights = random_weights()
    for name, shape in SHAPES.items():
        with pytest.raises(ValueError, match=rf"^{name}: expected"):
            replace(weights, **{name: torch.zeros(*shape, 1)})
        damaged = getattr(weights, name).clone()
        damaged.view(-1)[-1] = torch.nan
        with pytest.raises(ValueError, match=rf"^{name}: expected finite numbers"):
            replace(weights, **{name: damaged})
    rough = Int8Rows.of(weights.skip)
    for changes, message in [
        ({"skip": weights.skip.double()}, "skip: expected float32 .* got torch.float64"),
        ({"skip": weights.skip.to("meta")}, "skip: expected .* on cpu as gain .* got .* on meta"),
        ({"gain": weights.gain.half()}, "gain: expected float32"),
        ({"skip": rough}, "expected all matrices in int8 or none"),
        (
            {"skip": rough._replace(scale=rough.scale[1:])},
            r"skip: expected .*\[128\] .* got torch.float32 \[127\]",
        ),
        ({"skip": rough._replace(scale=rough.scale / 0)}, "skip: expected finite numbers"),
        ({"skip": rough._replace(values=rough.values.int())}, "skip: expected"),
        ({"gain": Int8Rows.of(weights.gain)}, "gain: expected float32: int8 replaces convolution, "),
    ]:
        with pytest.raises(ValueError, match=message):
            replace(weights, **changes)
