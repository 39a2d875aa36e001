"""The flow samples what a mean cannot: a latent of one of two kinds, of the deviation that data have."""

import pytest
import torch

from csm.network.acoustic_flow import AcousticFlow
from csm.network.predicted_latent import latent_vectors

FLOW = {"depth_inputs": "sum", "latent_dim": 12, "flow_dim": 8}


def trained_on(latents, rows, codes, steps: int = 600) -> AcousticFlow:
    """Returns a flow that is trained to sample latents given rows and codes."""
    torch.manual_seed(0)
    flow = AcousticFlow(rows.shape[1], latents.shape[1])
    flow.reset_parameters()
    flow.spread = latents.std(dim=0)
    optimizer = torch.optim.Adam(flow.parameters(), lr=3e-3)
    for _ in range(steps):
        chosen = torch.randint(len(latents), (256,))
        optimizer.zero_grad()
        flow.error(rows[chosen], codes[chosen], latents[chosen]).mean().backward()
        optimizer.step()
    return flow.eval()


def test_samples_are_of_both_kinds_and_follow_what_is_given() -> None:
    generator = torch.Generator().manual_seed(1)
    side = torch.randint(0, 2, (4000, 1), generator=generator).float() * 2 - 1
    place, level = torch.randn(4000, 1, generator=generator), torch.randn(4000, 1, generator=generator)
    # The sign of the first dimension is open, the second follows the row, the third the codes.
    latents = torch.cat([2 * side, place, 0.1 * level], dim=1)
    latents += 0.05 * torch.randn(latents.shape, generator=generator) * latents.std(dim=0)
    rows = torch.cat([place, torch.randn(4000, 47, generator=generator)], dim=1)
    # Sums of embeddings are normalised: what they say lies in their direction.
    codes = torch.cat([level, level.new_ones(4000, 1), level.new_zeros(4000, 46)], dim=1)
    flow = trained_on(latents, rows, codes)
    noise = torch.randn(latents.shape, generator=generator)
    samples = flow.sample(rows, codes, noise)
    assert 0.4 < float((samples[:, 0] > 0).float().mean()) < 0.6
    assert float((samples[:, 0].abs() - 2).abs().mean()) < 0.35
    assert samples.std(dim=0) == pytest.approx(latents.std(dim=0), rel=0.15)
    for column in (1, 2):
        assert torch.corrcoef(torch.stack([samples[:, column], latents[:, column]]))[0, 1] > 0.95
    # Control: with the rows of other frames the second dimension follows nothing.
    other = flow.sample(rows.roll(1, dims=0), codes, noise)
    assert torch.corrcoef(torch.stack([other[:, 1], latents[:, 1]]))[0, 1].abs() < 0.1
    # Less noise, less spread.
    quiet = flow.sample(rows, codes, 0.3 * noise)
    assert (quiet.std(dim=0) < 1.01 * samples.std(dim=0)).all()


def test_spread_is_that_of_equally_frequent_codes() -> None:
    vectors = torch.randn(6, 16, 8, generator=torch.Generator().manual_seed(0))
    flow = AcousticFlow(4, 8)
    flow.set_spread(vectors)
    codes = torch.randint(0, 16, (20_000, 6), generator=torch.Generator().manual_seed(1))
    added = vectors[torch.arange(6), codes].sum(dim=1)
    assert flow.spread == pytest.approx(added.std(dim=0), rel=0.02)
    flow.set_spread(torch.zeros(6, 16, 8))
    assert bool((flow.spread > 0).all())


def test_validation_draws_the_same_numbers_and_no_others(tiny_model) -> None:
    flow = AcousticFlow(4, 8)
    flow.reset_parameters()
    flow.out.weight.data.normal_()
    rows, codes, latents = torch.randn(5, 4), torch.randn(5, 4), torch.randn(5, 8)
    before = torch.get_rng_state()
    first = flow.eval().error(rows, codes, latents)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(flow.error(rows, codes, latents), first)
    assert not torch.equal(flow.train().error(rows, codes, latents), first)


def test_it_passes_no_gradient_to_rows_and_embeddings(tiny_model) -> None:
    model = tiny_model(**FLOW)
    vectors = latent_vectors(torch.randn(5, 24, 12, generator=torch.Generator().manual_seed(0)))
    batch = model.pair_rows(["hello"], torch.randint(0, 24, (1, 5, 9)))
    with pytest.raises(ValueError, match="no code vectors"):
        model(batch=batch)
    model.set_code_vectors(vectors)
    out = model(batch=batch)
    assert out.flow.shape == (len(batch.target_rows().frames),)
    out.flow.sum().backward()
    moved = {
        name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert moved == {"acoustic_flow"}
    everything = {name for name, _ in model.acoustic_flow.named_parameters()}
    still = [n for n, p in model.acoustic_flow.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still and everything


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flow_dim": 13}, "flow_dim is 13 with latent_dim 12: expected 0 to latent_dim"),
        ({"flow_dim": -1}, "flow_dim is -1"),
        ({"flow_dim": 8, "semantic_codebooks": 5}, "all 5 codebooks are semantic"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(tiny_model, changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_model(**{"depth_inputs": "sum", "latent_dim": 12, **changes})
