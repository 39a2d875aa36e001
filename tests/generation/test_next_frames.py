"""Frames that are drawn together are those that each draw gives alone, with random numbers of its own."""

from dataclasses import replace

import pytest
import torch

from csm.generation.depth_sampler import DepthSampler
from csm.generation.next_frames import Draw, later_frames, next_frames
from csm.generation.sampling import SamplingConfig
from tests.nondeterministic import RefusesNondeterministic

LATENT = {"depth_inputs": "sum", "latent_dim": 12}
MODELS = [{}, {"zeros_end": True}, LATENT, {"depth_n_kv_heads": 1}, {**LATENT, "zeros_end": True}]
SAMPLINGS = [
    SamplingConfig(),
    SamplingConfig(temperature=0.0),
    SamplingConfig(depth_temperature=0.3, top_k=4),
    SamplingConfig(later_codes="nearest"),
    SamplingConfig(later_codes="nearest", variance_restoration=0.5, temperature=0.4),
    SamplingConfig(top_k=0),
]


def draws_of(model, samplings, next_code=None) -> list[Draw]:
    """Returns one draw of random hidden rows for each sampling; every other turn may end."""
    rows = torch.randn(len(samplings), model.config.d_model, generator=torch.Generator().manual_seed(1))
    return [
        Draw(
            row,
            DepthSampler(model),
            sampling,
            torch.Generator().manual_seed(number),
            number % 2 == 0,
            next_code if number == 1 else None,
        )
        for number, (row, sampling) in enumerate(zip(rows, samplings, strict=True))
    ]


@torch.no_grad()
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("changes", MODELS, ids=str)
def test_each_frame_is_what_it_is_alone_and_so_is_the_generator(
    tiny_model, changes, native, monkeypatch
) -> None:
    model = tiny_model(**changes)
    if "latent_dim" in changes:
        model.set_code_vectors(torch.randn(5, 24, 12, generator=torch.Generator().manual_seed(0)))
    if not native:
        monkeypatch.setattr(DepthSampler, "is_native", lambda sampler: False)
    samplings = [s for s in SAMPLINGS * 2 if s.later_codes == "sampled" or "latent_dim" in changes]
    together, alone = draws_of(model, samplings), draws_of(model, samplings)
    frames, expected = next_frames(together), [one.alone() for one in alone]
    for frame, other in zip(frames, expected, strict=True):
        assert (frame is None) == (other is None)
        assert frame is None or torch.equal(frame, other)
    assert sum(frame is not None for frame in frames) > len(frames) // 2
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one.generator.get_state(), other.generator.get_state())


@torch.no_grad()
def test_a_code_without_a_vector_is_not_sampled_where_later_codes_are_the_nearest(tiny_model) -> None:
    """The extra codes of the vocabulary are the most probable ones of all draws."""
    model = tiny_model(**LATENT, zeros_end=True)
    size, rows = model.config.codebook_size, len(SAMPLINGS)
    model.set_code_vectors(torch.randn(5, size, 12, generator=torch.Generator().manual_seed(0)))
    model.codebook0_head.weight.zero_()
    for one in draws_of(model, SAMPLINGS):
        model.codebook0_head.weight[size:] += one.hidden
    extra = [replace(sampling, extra_codes=True) for sampling in SAMPLINGS]
    together, single = draws_of(model, extra), draws_of(model, extra)
    above = 0
    for sampling, frame, one in zip(extra, next_frames(together), single, strict=True):
        assert frame is not None and torch.equal(frame, one.alone())
        assert sampling.later_codes == "sampled" or int(frame[0]) < size
        above += int(frame[0]) >= size
    assert 0 < above < rows and model.config.audio_vocab_size > size


@torch.no_grad()
def test_a_chosen_code_without_a_vector_is_refused(tiny_model) -> None:
    model = tiny_model(**LATENT)
    model.set_code_vectors(torch.randn(5, 24, 12, generator=torch.Generator().manual_seed(0)))
    nearest = SamplingConfig(later_codes="nearest")
    for code in (-1, model.config.codebook_size, model.config.end_code):
        chosen = torch.tensor(code)
        draw = draws_of(model, [nearest])[0]._replace(
            may_end=False, next_code=lambda logits, codebook, allowed, chosen=chosen: chosen
        )
        with pytest.raises(ValueError, match=f"code 0 is {code} and sampling.later_codes is 'nearest'"):
            draw.alone()


@torch.no_grad()
def test_the_end_code_ends_a_turn_that_may_end_and_no_other(tiny_model) -> None:
    model = tiny_model()
    model.codebook0_head.weight.zero_()
    draws = draws_of(model, SAMPLINGS[:3])
    for one in draws:
        model.codebook0_head.weight[model.config.end_code] += one.hidden
    greedy = [one._replace(sampling=SamplingConfig(temperature=0.0)) for one in draws]
    assert [frame is None for frame in next_frames(greedy)] == [True, False, True]


@torch.no_grad()
def test_a_caller_who_chooses_codes_is_asked_for_his_own_frame_alone(tiny_model) -> None:
    model, chosen = tiny_model(), torch.tensor([3, 7, 0, 9, 1])
    draws = draws_of(model, SAMPLINGS[:3], lambda logits, codebook, allowed: chosen[codebook])
    frames = next_frames(draws)
    assert torch.equal(frames[1], chosen)
    others = draws_of(model, SAMPLINGS[:3])
    assert torch.equal(frames[0], others[0].alone()) and torch.equal(frames[2], others[2].alone())
    assert next_frames([]) == []


@torch.no_grad()
def test_later_codes_ask_for_no_running_sum_of_floats(tiny_model, monkeypatch) -> None:
    """CUDA refuses it where deterministic algorithms are asked for; a caller chooses, on the device."""
    monkeypatch.setattr(DepthSampler, "is_native", lambda sampler: False)
    model = tiny_model(depth_inputs="sum")
    rows = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    codes = torch.tensor([3, 7])

    def greedy(logits, codebook, allowed):
        return logits.argmax()

    options = {"limit": 24, "temperature": 0.0, "top_k": 0, "generator": torch.Generator()}
    with RefusesNondeterministic():
        together = later_frames(model, model.depth_row(rows), codes, [torch.argmax] * 2)
        single = [
            DepthSampler(model).later_codes(row, code, **options, next_code=greedy)
            for row, code in zip(rows, codes, strict=True)
        ]
    assert torch.equal(together, torch.stack(single))
