"""The spread of latents: what predictions lack of it is measured by direction and given back by shares."""

import pytest
import torch

from csm.network.csm_model import CSMModel
from csm.network.latent import LARGEST_GAIN, LatentSpread, latent_spread


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Recorded latents, and predictions that keep 1, 0.5, 0.8 and 0 of four directions' deviations."""
    g = torch.Generator().manual_seed(0)
    recorded = torch.randn(4000, 4, generator=g) * torch.tensor([1.0, 2.0, 0.3, 1.0]) + 5
    kept = torch.tensor([1.0, 0.5, 0.8, 0.0])
    return recorded, 5 + kept * (recorded - 5) + 0.25


def test_the_gain_is_what_predictions_lack_by_direction(pair) -> None:
    recorded, predicted = pair
    spread = latent_spread(recorded, predicted)
    torch.testing.assert_close(spread.mean, predicted.mean(dim=0))
    torch.testing.assert_close(spread.gain, torch.tensor([1.0, 2.0, 1.25, LARGEST_GAIN]), atol=1e-4, rtol=0)


def test_nothing_is_drawn_together() -> None:
    g = torch.Generator().manual_seed(1)
    recorded = torch.randn(100, 3, generator=g)
    assert torch.equal(latent_spread(recorded, 4 * recorded).gain, torch.ones(3))


@torch.no_grad()
def test_a_share_of_the_spread_is_given_back(tiny_model, pair) -> None:
    model = tiny_model(depth_inputs="sum", latent_dim=4)
    recorded, predicted = pair
    assert torch.equal(model.spread_out(predicted, 1.0), predicted)  # nobody has told it
    model.know_spread(latent_spread(recorded, predicted))
    assert torch.equal(model.spread_out(predicted, 0.0), predicted)
    half, whole = model.spread_out(predicted, 0.5), model.spread_out(predicted, 1.0)
    torch.testing.assert_close(whole[:, :3].std(dim=0), recorded[:, :3].std(dim=0), atol=1e-3, rtol=0)
    torch.testing.assert_close(half.std(dim=0) ** 2, predicted.std(dim=0) * whole.std(dim=0))
    for given in (half, whole):
        torch.testing.assert_close(given.mean(dim=0), predicted.mean(dim=0), atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_spread_goes_with_the_weights(tiny_model, pair, tmp_path) -> None:
    model = tiny_model(depth_inputs="sum", latent_dim=4)
    model.know_spread(latent_spread(*pair))
    for half in (False, True):
        model.save_pretrained(tmp_path / str(half), half=half)
        found = CSMModel.from_pretrained(tmp_path / str(half))
        torch.testing.assert_close(found.latent_gain, model.latent_gain, atol=2e-3, rtol=0)
        torch.testing.assert_close(found.latent_mean, model.latent_mean, atol=5e-3, rtol=0)


def test_the_spread_of_other_latents_is_refused(tiny_model) -> None:
    spread = LatentSpread(torch.zeros(3), torch.ones(3))
    for changes in ({}, {"depth_inputs": "sum", "latent_dim": 4}):
        with pytest.raises(ValueError, match="of width 3: expected"):
            tiny_model(**changes).know_spread(spread)
