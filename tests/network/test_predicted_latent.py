"""The predicted latent: variance that predictions lack is measured and restored, and codes are searched."""

import pytest
import torch

from csm.model import CSMModel
from csm.network.predicted_latent import (
    LARGEST_GAIN,
    VarianceRestoration,
    latent_vectors,
    variance_restoration,
)
from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.conversational_rvq import ConversationalRVQ


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Recorded latents, and predictions that keep 1, 0.5, 0.8 and 0 of four directions' deviations."""
    g = torch.Generator().manual_seed(0)
    recorded = torch.randn(4000, 4, generator=g) * torch.tensor([1.0, 2.0, 0.3, 1.0]) + 5
    kept = torch.tensor([1.0, 0.5, 0.8, 0.0])
    return recorded, 5 + kept * (recorded - 5) + 0.25


def test_the_gain_is_what_predictions_lack_by_direction(pair) -> None:
    recorded, predicted = pair
    statistics = variance_restoration(recorded, predicted)
    torch.testing.assert_close(statistics.mean, predicted.mean(dim=0))
    gains = torch.tensor([1.0, 2.0, 1.25, LARGEST_GAIN])
    torch.testing.assert_close(statistics.gain, gains, atol=1e-4, rtol=0)


def test_predictions_that_vary_more_are_not_drawn_together() -> None:
    g = torch.Generator().manual_seed(1)
    recorded = torch.randn(100, 3, generator=g)
    assert torch.equal(variance_restoration(recorded, 4 * recorded).gain, torch.ones(3))


@torch.no_grad()
def test_a_share_of_the_variance_is_restored(tiny_model, pair) -> None:
    latent = tiny_model(depth_inputs="sum", latent_dim=4).predicted_latent
    recorded, predicted = pair
    assert torch.equal(latent.restore_variance(predicted, 1.0), predicted)  # nothing has been measured
    latent.set_variance_restoration(variance_restoration(recorded, predicted))
    assert torch.equal(latent.restore_variance(predicted, 0.0), predicted)
    half, whole = latent.restore_variance(predicted, 0.5), latent.restore_variance(predicted, 1.0)
    torch.testing.assert_close(whole[:, :3].std(dim=0), recorded[:, :3].std(dim=0), atol=1e-3, rtol=0)
    torch.testing.assert_close(half.std(dim=0) ** 2, predicted.std(dim=0) * whole.std(dim=0))
    for given in (half, whole):
        torch.testing.assert_close(given.mean(dim=0), predicted.mean(dim=0), atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_statistics_are_saved_with_the_weights(tiny_model, pair, tmp_path) -> None:
    model = tiny_model(depth_inputs="sum", latent_dim=4)
    model.predicted_latent.set_variance_restoration(variance_restoration(*pair))
    for half in (False, True):
        model.save_pretrained(tmp_path / str(half), half=half)
        found = CSMModel.from_pretrained(tmp_path / str(half))
        torch.testing.assert_close(found.latent_gain, model.latent_gain, atol=2e-3, rtol=0)
        torch.testing.assert_close(found.latent_mean, model.latent_mean, atol=5e-3, rtol=0)


def test_statistics_of_other_latents_are_refused(tiny_model) -> None:
    statistics = VarianceRestoration(torch.zeros(3), torch.ones(3))
    with pytest.raises(ValueError, match="of width 3: expected 4"):
        tiny_model(depth_inputs="sum", latent_dim=4).predicted_latent.set_variance_restoration(statistics)
    assert tiny_model().predicted_latent is None


@torch.no_grad()
def test_a_model_that_is_read_from_a_folder_has_its_tokenizers_code_vectors(tiny_model, tmp_path) -> None:
    """The tokenizer lies in the folder, or beside it as the packaged one; without it there are none."""
    torch.manual_seed(0)
    tokenizer = ConversationalRVQ(TokenizerConfig(n_codebooks=6, semantic_codebooks=2, codebook_size=24))
    expected = latent_vectors(tokenizer.code_vectors()[:5])
    model = tiny_model(depth_inputs="sum", latent_dim=expected.shape[2])
    model.save_pretrained(tmp_path / "voice")
    assert CSMModel.from_pretrained(tmp_path / "voice").code_vectors is None
    for place in ("tokenizer", "voice/tokenizer"):
        tokenizer.save_pretrained(tmp_path / place)
        found = CSMModel.from_pretrained(tmp_path / "voice")
        assert torch.equal(found.code_vectors, expected)
        assert found.state_dict().keys() == model.state_dict().keys()
    with pytest.raises(ValueError, match="take those of the model's own tokenizer"):
        other = tiny_model(depth_inputs="sum", latent_dim=8)
        other.save_pretrained(tmp_path / "voice")
        CSMModel.from_pretrained(tmp_path / "voice")
