"""The statistics of a finished model are those of its predictions for turns it was not trained on."""

import torch

from csm.recipes.steps.latent_statistics import set_latent_statistics
from csm.sequences.packed_batch import IGNORE


@torch.no_grad()
def test_the_statistics_are_of_the_validation_turns_latents(tiny_model, made_task) -> None:
    model = tiny_model(depth_inputs="sum", latent_dim=6)
    task = made_task(model, latent_dim=6)
    model.latent_refiner.out.weight.normal_()
    set_latent_statistics(model, task.validation_batch, task.vectors)
    batch = task.validation_batch
    predicted = model(batch=batch, label_smoothing=0.0).refined
    follows = batch.code_target[:, 1] != IGNORE
    recorded = task.vectors[torch.arange(5), batch.code_target[follows]].sum(dim=1)
    lacks = (recorded.std(dim=0) / predicted.std(dim=0)).clamp(1, 3)
    torch.testing.assert_close(model.latent_gain, lacks, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(model.latent_mean, predicted.mean(dim=0), atol=1e-5, rtol=1e-4)


def test_without_spoken_frames_the_statistics_stay_as_they_are(
    tiny_model, made_task, random_turn, caplog
) -> None:
    """A training of transcription alone holds out no spoken frame: their deviation would be no number."""
    model = tiny_model(depth_inputs="sum", latent_dim=6)
    rows = model.new_rows()
    rows.begin_sequence()
    rows.add_transcribed(random_turn("heard"))
    before = model.latent_mean.clone(), model.latent_gain.clone()
    set_latent_statistics(model, rows.build(), made_task(model, latent_dim=6).vectors)
    assert torch.equal(model.latent_mean, before[0]) and torch.equal(model.latent_gain, before[1])
    assert "0 validation frames are spoken" in caplog.text


def test_a_model_that_predicts_no_latent_is_left_alone(tiny_model, made_task) -> None:
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    set_latent_statistics(model, made_task(model).validation_batch, None)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
