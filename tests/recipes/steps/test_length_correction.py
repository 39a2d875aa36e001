"""A finished model's turns are together as long as they were recorded."""

import pytest
import torch

from csm.recipes.steps.length_correction import correct_lengths, length_errors


@torch.no_grad()
def test_validation_turns_last_as_long_together_as_they_were(tiny_model, made_task) -> None:
    model = tiny_model()
    task = made_task(model)
    before = model.pace_head.pace.bias.clone()
    correct_lengths(model, task.validation)
    assert not torch.equal(model.pace_head.pace.bias, before)
    assert length_errors(model, task.validation) == pytest.approx((0.0, 0.0), abs=1e-5)
    # All turns last 6 frames.
    batch = task.validation.in_order(1000)
    last = (~batch.duration_target.isnan()).nonzero()[:, 0]
    said = model.duration_head(model.eval().hidden_rows(batch)[last])
    assert float(said.exp().mean()) == pytest.approx(6, abs=1e-4)
    # A head that is not trained is left alone.
    model.duration_head.weight.zero_()
    model.pace_head.pace.weight.zero_()
    assert length_errors(model, task.validation) == (0.0, 0.0)
