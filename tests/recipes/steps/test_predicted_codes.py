"""A voice's predictions of turns: of its training turns alone, code 0 theirs, the others of its latents."""

from dataclasses import replace

import pytest
import torch

from csm.data.code_companions import read_code_vectors
from csm.data.code_shards import read_code_shards
from csm.recipes.steps.predicted_codes import PredictedCodes
from csm.recipes.steps.train_model import train_model
from csm.training import engine as engine_file
from tests.recipes.steps.conftest import CPU


@pytest.fixture(scope="module")
def voice(steps, tmp_path_factory):
    """A run whose model predicts latents."""
    width = read_code_vectors(steps.codes).shape[2]
    model = replace(steps.run.model, depth_inputs="sum", latent_dim=width)
    folder = tmp_path_factory.mktemp("voice") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_file, "deepspeed_installed", lambda: False)
        train_model(replace(steps.run, model=model), steps.codes, folder, CPU)
    return folder


def test_predicted_codes_begin_with_the_turns_code_0_and_are_of_its_length(steps, voice) -> None:
    predicts, encoded = PredictedCodes(voice, CPU), read_code_shards(steps.codes)
    others = 0
    for index in range(10):
        found, true = predicts(f"train{index}"), encoded[f"train{index}"].codes
        true = true if true.ndim == 2 else true[0]
        assert found is not None and found.shape == (steps.run.model.num_codebooks, true.shape[-1])
        assert torch.equal(found[0], true[0].long())
        assert int(found.min()) >= 0 and int(found.max()) < steps.run.model.codebook_size
        assert torch.equal(found, predicts(f"train{index}"))
        others += int((found[1:] != true[1 : len(found)]).sum())
    assert others > 0, "two steps teach nothing: predictions are not the codes"
    assert predicts("validation0") is None and predicts("no turn") is None


def test_a_voice_without_a_latent_is_refused(steps) -> None:
    with pytest.raises(ValueError, match="predicts no latent: expected a model with latent_dim"):
        PredictedCodes(steps.model, CPU)
