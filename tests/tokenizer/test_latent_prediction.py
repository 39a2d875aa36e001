"""Prediction of latents from semantic sums: causal, equal in streams, and fitted to what can be predicted."""

import pytest
import torch

from csm.tokenizer.latent_prediction import LatentPrediction, fit_prediction
from csm.tokenizer.layers import streaming


def prediction(frames: int = 3, hidden: int = 16) -> LatentPrediction:
    torch.manual_seed(0)
    made = LatentPrediction(4, 6, frames=frames, hidden=hidden)
    if made.contract is not None:
        torch.nn.init.normal_(made.contract.weight)
    return made


def rows(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_one_frame_without_a_hidden_layer_is_a_linear_map():
    made, x = prediction(frames=1, hidden=0), rows(2, 5, 4)
    assert torch.equal(made(x), torch.nn.functional.linear(x, made.weight, made.bias))
    assert set(made.state_dict()) == {"weight", "bias"}


def test_a_frame_reaches_the_predictions_of_its_window_and_no_others():
    made, x = prediction(), rows(1, 9, 4)
    changed = x.clone()
    changed[:, 4] += 1
    moved = (made(changed) != made(x)).any(dim=-1)[0]
    assert moved.tolist() == [4 <= frame < 7 for frame in range(9)]


@pytest.mark.parametrize("cuts", [[], [1], [2, 3], [0, 4, 4, 8], list(range(1, 9))])
@pytest.mark.parametrize("decoding", [False, True])
def test_a_stream_cut_anywhere_equals_the_whole(cuts: list[int], decoding: bool):
    made, x = prediction().double(), rows(2, 9, 4).double()
    bounds = [0, *cuts, 9]
    with torch.no_grad(), streaming(made, 2):
        parts = []
        for first, last in zip(bounds[:-1], bounds[1:], strict=True):
            parts.append(made(x[:, first:last], decoding=decoding))
            made(rows(2, 1, 4, seed=first).double(), decoding=not decoding)
    torch.testing.assert_close(torch.cat(parts, dim=1), made(x), rtol=1e-12, atol=1e-12)


def test_the_output_has_the_precision_of_the_sums():
    made, x = prediction(), rows(1, 5, 4)
    exact = made(x.double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(made(x), exact.float())


def test_least_squares_finds_a_linear_map_of_the_window():
    made, x = prediction(hidden=0), rows(1, 4000, 4)
    target = made.windows(x)[0] @ rows(12, 6, seed=2) + 3
    fit_prediction(made, made.windows(x)[0], target, torch.Generator().manual_seed(0))
    left = (made(x)[0] - target).square().mean() / target.var()
    assert left < 1e-5


def test_the_hidden_layer_predicts_what_no_linear_map_does():
    x = rows(1, 6000, 4)
    target = (x[0] * x[0].roll(1, 0)).repeat(1, 2)[:, :6]  # a product of this frame and the one before
    missed = []
    for hidden in (0, 64):
        made = prediction(hidden=hidden)
        windows = made.windows(x)[0]
        fit_prediction(made, windows[:5000], target[:5000], torch.Generator().manual_seed(0))
        error = (made.predicted(windows[5000:]) - target[5000:]).square().mean()
        missed.append(float((error / target[5000:].var()).detach()))
    assert missed[0] > 0.95 and missed[1] < 0.3


def test_a_fit_is_repeatable_and_leaves_no_gradients():
    x, fits = rows(1, 300, 4), []
    for _ in range(2):
        made = prediction()
        windows = made.windows(x)[0]
        fit_prediction(made, windows, rows(300, 6, seed=5), torch.Generator().manual_seed(3), steps=5)
        assert all(parameter.grad is None for parameter in made.parameters())
        fits.append(made.state_dict())
    assert all(torch.equal(fits[0][name], fits[1][name]) for name in fits[0])


@pytest.mark.parametrize(("frames", "hidden"), [(1, 0), (5, 8)])
def test_gradients_reach_every_weight(frames: int, hidden: int):
    made = prediction(frames=frames, hidden=hidden)
    made(rows(2, 7, 4)).square().sum().backward()
    assert all(parameter.grad.any() for parameter in made.parameters())
