"""Frames of several turns at once: the codes, the ends and the random numbers of each turn alone."""

import pytest
import torch

from csm.generation.depth_sampler import DepthSampler
from csm.generation.next_frame import next_frame
from csm.generation.sampling import SamplingConfig
from csm.generation.spoken_turn import SpokenTurn, TurnPlan
from csm.generation.static_frames import FrameDraw, LaterRule, static_frames

TURNS = 60


def turn_of(model, sampling: SamplingConfig, hidden: torch.Tensor, *, may_end: bool) -> SpokenTurn:
    return SpokenTurn(
        plan=TurnPlan.of(model, "hello", 0, None),
        model=model,
        cache=model.depth_decoder.start(),
        memory=None,
        reading=None,
        hidden=hidden,
        expected=9,
        shortest=0 if may_end else 9,
        limit=9,
        sampling=sampling,
        generator=torch.Generator().manual_seed(sampling.seed),
    )


def samplings(**options) -> list[SamplingConfig]:
    """As many as turns, of all kinds."""
    kinds = [(t, d, k) for t in (0.0, 0.6, 1.5) for d in (None, 0.0, 0.9) for k in (0, 1, 7, 99)]
    made = []
    for seed, (t, d, k) in enumerate((kinds * TURNS)[:TURNS]):
        kind = {"temperature": t, "depth_temperature": d, "top_k": k, "extra_codes": seed % 2 > 0}
        made.append(SamplingConfig(**kind, seed=seed, **options))
    return made


@torch.no_grad()
@pytest.mark.parametrize("later", ["sampled", "nearest"])
@pytest.mark.parametrize(
    "changes",
    [
        {"depth_inputs": "sum", "latent_dim": 12},
        {"depth_inputs": "sum", "latent_dim": 12, "num_codebooks": 2, "zeros_end": True, "codebook_size": 3},
        {"depth_inputs": "sum", "latent_dim": 12, "depth_n_kv_heads": 1, "rope_scaling": 32.0},
    ],
    ids=["extra code ends", "zeros end", "grouped heads"],
)
def test_turns_of_all_settings_get_what_each_gets_alone(tiny_model, changes, later) -> None:
    model = tiny_model(**changes)
    config, g = model.config, torch.Generator().manual_seed(0)
    model.set_code_vectors(torch.randn(config.num_codebooks, config.codebook_size, 12, generator=g))
    # Codes that end turns are probable.
    hidden = torch.randn(TURNS, 32, generator=g) + model.codebook0_head.weight[config.end_code] / 8
    chosen = samplings(later_codes=later, variance_restoration=0.5)
    turns = [
        turn_of(model, sampling, row, may_end=sampling.seed % 3 > 0)
        for sampling, row in zip(chosen, hidden, strict=True)
    ]
    draws = [FrameDraw(config, turn) for turn in turns]
    rule = LaterRule.of(chosen[0])
    codes = static_frames(model, hidden, torch.stack([draw.inputs for draw in draws]), rule).tolist()
    sampler, ends = DepthSampler(model), 0
    for draw, turn, row, sampling in zip(draws, turns, codes, chosen, strict=True):
        generator = torch.Generator().manual_seed(sampling.seed)
        alone = next_frame(turn.hidden, sampler, sampling, generator, may_end=turn.may_end)
        frame = draw.frame(row)
        assert (frame is None) == (alone is None)
        assert frame is None or frame.tolist() == alone.tolist()
        # The next frame of the turn is drawn from the same numbers.
        assert torch.equal(turn.generator.get_state(), generator.get_state())
        ends += frame is None
    assert 0 < ends < TURNS or (later == "nearest" and not config.end_code)


def test_restored_variance_counts_where_codes_follow_the_latent() -> None:
    nearest, sampled = (
        [LaterRule.of(SamplingConfig(later_codes=later, variance_restoration=v)) for v in (0.0, 0.5)]
        for later in ("nearest", "sampled")
    )
    assert nearest[0] != nearest[1] and sampled[0] == sampled[1] == LaterRule("sampled", 0.0)


@torch.no_grad()
def test_a_code_that_cannot_be_sampled_is_an_error_of_its_turn_alone(tiny_model) -> None:
    model = tiny_model()
    hidden = torch.randn(3, 32)
    hidden[1] = torch.nan
    turns = [turn_of(model, SamplingConfig(), row, may_end=False) for row in hidden]
    draws = [FrameDraw(model.config, turn) for turn in turns]
    inputs = torch.stack([draw.inputs for draw in draws])
    codes = static_frames(model, hidden, inputs, LaterRule("sampled", 0.0)).tolist()
    with pytest.raises(ValueError, match="logits hold NaN or rule out every index"):
        draws[1].frame(codes[1])
    assert all(draws[index].frame(codes[index]) is not None for index in (0, 2))
