"""The head undoes the encoder's weighting, and corrects each step by its own hidden state."""

import pytest
import torch

from csm.tokenizer.feature_head import FeatureHead
from csm.tokenizer.vocoder_features import STEPS_PER_FRAME, WIDTH


@pytest.fixture
def head() -> FeatureHead:
    torch.manual_seed(0)
    head = FeatureHead(12, 10)
    head.centre.normal_()
    head.scale.uniform_(0.5, 2)
    return head


def states(frames: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    fine = torch.randn(2, frames * STEPS_PER_FRAME, 10, generator=draw)
    return torch.randn(2, frames, 12, generator=draw), fine


def test_unweighted_undoes_the_weighting(head):
    features = torch.randn(2, 16, WIDTH, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(head.unweighted((features - head.centre) * head.scale), features)


def test_an_identity_without_correction_gives_the_latent_step_by_step():
    head = FeatureHead(STEPS_PER_FRAME * WIDTH, 10)
    torch.nn.init.eye_(head.frame.weight)
    torch.nn.init.zeros_(head.frame.bias)
    torch.nn.init.zeros_(head.correction.weight)
    steps = torch.randn(2, 24, WIDTH, generator=torch.Generator().manual_seed(0))
    frames = steps.unflatten(1, (-1, STEPS_PER_FRAME)).flatten(2)
    torch.testing.assert_close(head(frames, states()[1]), steps)


@torch.no_grad()
def test_a_fine_state_changes_its_own_step_and_a_frame_its_own_eight(head):
    frames, fine = states()
    before = head(frames, fine)
    other = fine.clone()
    other[:, 13] += 1
    changed = (head(frames, other) != before).any(dim=-1).any(dim=0).nonzero().flatten().tolist()
    assert changed == [13]
    other = frames.clone()
    other[:, 1] += 1
    changed = (head(other, fine) != before).any(dim=-1).any(dim=0).nonzero().flatten().tolist()
    assert changed == list(range(8, 16))


def test_products_are_of_single_precision_in_autocast_and_of_double_where_states_are(head):
    frames, fine = states()
    expected = head(frames, fine)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(frames, fine), expected)
    exact = head.double()(frames.double(), fine.double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(expected, exact.float(), atol=1e-5, rtol=1e-5)
