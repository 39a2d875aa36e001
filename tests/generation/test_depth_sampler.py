"""The native loop and the modules: the same codes and logits, for a seed too, and each where it belongs."""

import pytest
import torch
from torch import Tensor

from csm.generation import depth_sampler
from csm.generation.depth_sampler import DepthSampler
from csm.generation.sampling import SamplingConfig
from csm.generation.session import Session
from csm.network.lora import LoRAConfig, add_adapters
from csm.network.predicted_latent import VarianceRestoration
from csm_kernels import depth_frame, has_compiled

pytestmark = pytest.mark.skipif(not has_compiled("depth_frame"), reason="no compiled kernels")

CHANGES = [
    {},
    {"zeros_end": True},
    {"depth_n_kv_heads": 1},
    {"num_codebooks": 2},
    {"rope_scaling": 32.0},
    {"depth_inputs": "sum"},
    {"depth_inputs": "sum", "latent_dim": 12},
]


def draw(sampler: DepthSampler, seed: int, **options) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(sampler.model.config.d_model, generator=generator)
    code = torch.randint(24, (), generator=generator)
    chosen = {"limit": 24, "temperature": 0.9, "top_k": 5, "generator": generator, **options}
    return sampler.later_codes(hidden, code, **chosen)


def converse(model, random_turn, temperature: float, sampler: DepthSampler | None = None) -> list[Tensor]:
    """What is said in a conversation that overflows into the memory."""
    sampling = SamplingConfig(temperature=temperature, top_k=6, max_seconds=1.2, seed=3)
    session = Session(model, sampling, sampler=sampler)
    said = []
    for index in range(5):
        session.listen(random_turn(f"t{index}", "words that were said", 14, index % 2))
        said += list(session.speak(f"reply {index}", 1, frames=8))
    return said


@torch.no_grad()
@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_a_conversation_has_the_codes_and_logits_of_the_modules(
    changes, temperature, tiny_model, random_turn, monkeypatch
) -> None:
    model = tiny_model(max_context=80, **changes)
    native: list[Tensor] = []
    stepwise: list[Tensor] = []

    def recorded(*arguments, **options):
        frame = depth_frame(*arguments, **options, with_logits=True)
        native.extend(frame.logits)
        return frame

    monkeypatch.setattr(depth_sampler, "depth_frame", recorded)
    ours = converse(model, random_turn, temperature)
    logits = model.depth_decoder.logits

    def seen(row, codebook):
        stepwise.append(logits(row, codebook))
        return stepwise[-1]

    monkeypatch.setattr(model.depth_decoder, "logits", seen)
    monkeypatch.setattr(DepthSampler, "is_native", lambda sampler: False)
    theirs = converse(model, random_turn, temperature)
    assert torch.equal(torch.stack(ours), torch.stack(theirs)) and len(ours) > 20
    assert len(native) == len(stepwise) >= len(ours) * (model.config.num_codebooks - 1)
    torch.testing.assert_close(torch.stack(native), torch.stack(stepwise), atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_a_seed_gives_the_same_frame_on_both_ways(tiny_model, monkeypatch) -> None:
    sampler = DepthSampler(tiny_model())
    for top_k in (0, 1, 5, 24, 99):
        native = [draw(sampler, seed, top_k=top_k, limit=22) for seed in range(20)]
        with monkeypatch.context() as patch:
            patch.setattr(DepthSampler, "is_native", lambda self: False)
            assert [f.tolist() for f in native] == [
                draw(sampler, seed, top_k=top_k, limit=22).tolist() for seed in range(20)
            ]
        assert max(int(frame[1:].max()) for frame in native) < 22


@torch.no_grad()
def test_what_the_native_loop_does_not_compute_is_left_to_the_modules(tiny_model) -> None:
    def with_adapters(model) -> None:
        add_adapters(model, LoRAConfig(rank=2, targets=("gate_proj",), inside=("depth_decoder",)))

    def with_a_hook(model) -> None:
        model.depth_decoder.blocks[0].register_forward_hook(lambda *arguments: None)

    assert DepthSampler(tiny_model()).is_native()
    for change in (
        with_adapters,
        with_a_hook,
        lambda model: model.train(),
        lambda model: model.bfloat16(),
        lambda model: model.double(),
    ):
        model = tiny_model()
        change(model)
        sampler = DepthSampler(model)
        assert not sampler.is_native()
        if model.audio_embedding.weight.dtype == torch.float32:
            assert draw(sampler, 0).shape == (5,)
        with pytest.raises(ValueError, match="weights is 'int8': expected an fp32 model"):
            draw(DepthSampler(model, "int8"), 0)
    with torch.autocast("cpu", torch.bfloat16):
        assert not DepthSampler(tiny_model()).is_native()


@torch.no_grad()
@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_weights_that_change_between_two_frames_count(tiny_model, weights) -> None:
    model = tiny_model()
    sampler = DepthSampler(model, weights)
    options = {"temperature": 0.0, "limit": 27}
    before = [draw(sampler, seed, **options).tolist() for seed in range(6)]
    model.depth_decoder.heads.neg_()
    after = [draw(sampler, seed, **options).tolist() for seed in range(6)]
    assert after != before and after == [
        draw(DepthSampler(model, weights), seed, **options).tolist() for seed in range(6)
    ]


@torch.no_grad()
def test_int8_says_nearly_what_fp32_says(tiny_model) -> None:
    model = tiny_model()
    exact, rough = (
        torch.stack([draw(DepthSampler(model, kind), seed, temperature=0.0) for seed in range(40)])
        for kind in ("fp32", "int8")
    )
    # The first drawn code alone: after another one the others are drawn from other logits.
    assert 0.85 < float((exact[:, 1] == rough[:, 1]).float().mean())
    session = Session(model, SamplingConfig(max_seconds=0.5), sampler=DepthSampler(model, "int8"))
    assert torch.stack(list(session.speak("hello", 0))).shape[1] == 5


@torch.no_grad()
@pytest.mark.parametrize("way", ["native", "modules"])
def test_damaged_weights_are_refused_on_both_ways(tiny_model, monkeypatch, way) -> None:
    model = tiny_model()
    model.depth_decoder.blocks[1].feed_forward.down_proj.weight[3, 2] = torch.nan
    if way == "modules":
        monkeypatch.setattr(DepthSampler, "is_native", lambda sampler: False)
    with pytest.raises(ValueError, match="logits hold NaN or rule out every index"):
        draw(DepthSampler(model), 0)


def test_unknown_weights_are_refused(tiny_model) -> None:
    with pytest.raises(ValueError, match="weights is 'int4': expected one of fp32, int8"):
        DepthSampler(tiny_model(), "int4")


@torch.no_grad()
def test_nearest_codes_are_those_of_the_predicted_latent(tiny_model, random_turn) -> None:
    model = tiny_model(depth_inputs="sum", latent_dim=12)
    vectors = torch.randn(5, 24, 12, generator=torch.Generator().manual_seed(0))
    vectors *= 0.6 ** torch.arange(5).view(-1, 1, 1)
    sampling = SamplingConfig(later_codes="nearest", temperature=0.8, max_seconds=1.0, seed=2)
    with pytest.raises(ValueError, match="no code vectors"):
        list(Session(model, sampling).speak("hello", 0))
    model.set_code_vectors(vectors)
    hidden, first = torch.randn(32), torch.tensor(7)
    frame = DepthSampler(model).nearest_codes(hidden, first)
    latent = model.predicted_latent.given_code0(hidden[None], model.audio_embedding(first[None]))[0]
    rest = latent - vectors[0, 7]
    assert frame[0] == 7
    for book in range(1, 5):
        distance = (vectors[book] - rest).square().sum(dim=1)
        assert int(frame[book]) == int(distance.argmin())
        rest = rest - vectors[book, frame[book]]
    # Spread out, the same latent lies farther from the mean, and its codes follow.
    gain = torch.full((12,), 2.0)
    model.predicted_latent.set_variance_restoration(VarianceRestoration(torch.zeros(12), gain))
    wide = DepthSampler(model).nearest_codes(hidden, first, restored=0.5)
    rest = 2**0.5 * latent - vectors[0, 7]
    assert int(wide[1]) == int((vectors[1] - rest).square().sum(dim=1).argmin())
    assert torch.equal(DepthSampler(model).nearest_codes(hidden, first), frame)
    said = [list(Session(model, sampling).speak("hello", 0)) for _ in range(2)]
    assert said[0] and all(torch.equal(a, b) for a, b in zip(*said, strict=True))
    # Code 0 is still drawn: another seed says it another way.
    other = list(Session(model, SamplingConfig(later_codes="nearest", seed=5)).speak("hello", 0))
    assert [int(f[0]) for f in other[:5]] != [int(f[0]) for f in said[0][:5]]
    for shape in ((5, 24, 11), (4, 24, 12)):
        with pytest.raises(ValueError, match=r"expected \(5, 24, 12\)"):
            model.set_code_vectors(torch.zeros(shape))


@torch.no_grad()
def test_a_caller_may_choose_every_code_and_sees_all_logits(tiny_model) -> None:
    model, chosen = tiny_model(), torch.tensor([3, 26, 0, 9, 1])
    seen: list[tuple[int, int, int]] = []

    def next_code(logits: Tensor, codebook: int, allowed: Tensor) -> Tensor:
        seen.append((codebook, len(logits), int(allowed.sum())))
        return chosen[codebook]

    frame = draw(DepthSampler(model), 0, next_code=next_code)
    assert torch.equal(frame[1:], chosen[1:])
    assert seen == [(codebook, 27, 24) for codebook in range(1, 5)]
