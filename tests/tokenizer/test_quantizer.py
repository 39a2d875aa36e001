"""The semantic / acoustic split: what each stack quantizes and decodes, and where gradients go."""

import pytest
import torch

from csm.tokenizer.quantizer import SplitQuantizer, isotropy_loss, unexplained_share
from csm_kernels import rvq_search


@pytest.fixture
def quantizer():
    torch.manual_seed(0)
    return SplitQuantizer(24, num_codebooks=6, semantic_codebooks=2, codebook_size=16, codebook_dim=8)


@pytest.fixture
def latent():
    return torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(1))


def test_codes_come_in_the_order_of_the_codebooks(quantizer, latent):
    out = quantizer(latent)
    assert (
        out.codes.shape == (3, 6, 5) and out.latent.shape == latent.shape and out.semantic.shape == (3, 5, 8)
    )
    semantic = rvq_search(quantizer.semantic_in(latent).flatten(0, 1), quantizer.semantic.codebooks).codes
    assert torch.equal(out.codes[:, :2].transpose(1, 2).flatten(0, 1), semantic)


def test_the_acoustic_stack_quantizes_what_the_semantic_one_left(quantizer, latent):
    out = quantizer(latent)
    semantic = quantizer.semantic.lookup(out.codes[:, :2].transpose(1, 2).flatten(0, 1)).reshape(3, 5, 8)
    torch.testing.assert_close(out.semantic, semantic)
    left = quantizer.acoustic_in(latent - quantizer.semantic_out(semantic))
    torch.testing.assert_close(out.acoustic_rows, left.flatten(0, 1))
    found = rvq_search(out.acoustic_rows, quantizer.acoustic.codebooks).codes
    assert torch.equal(out.codes[:, 2:].transpose(1, 2).flatten(0, 1), found)


@pytest.mark.parametrize("count", range(1, 7))
def test_using_the_first_codebooks_means_decoding_them(quantizer, latent, count):
    out = quantizer(latent, torch.full((3,), count))
    torch.testing.assert_close(out.latent, quantizer.decode(out.codes[:, :count]))
    alone = quantizer(latent, num_codebooks=count)
    assert torch.equal(alone.codes, out.codes[:, :count])
    torch.testing.assert_close(alone.latent, out.latent)


def test_quantizer_dropout_leaks_nothing_of_the_unquantized_latent(quantizer, latent):
    """Two latents with equal codes and few levels give equal outputs, although they differ."""
    near = latent + 1e-4 * torch.randn(latent.shape, generator=torch.Generator().manual_seed(2))
    levels = torch.tensor([1, 2, 4])
    one, two = quantizer(latent, levels), quantizer(near, levels)
    assert torch.equal(one.codes, two.codes) and not torch.equal(latent, near)
    torch.testing.assert_close(one.latent, two.latent, atol=2e-6, rtol=0)
    # Where no acoustic codebook is used nothing flows through its projections either.
    (gradient,) = torch.autograd.grad(one.latent[:2].sum(), quantizer.acoustic_out.bias, allow_unused=True)
    assert gradient is None or not gradient.any()


def test_bypassed_items_are_handed_on_unquantized(quantizer, latent):
    out = quantizer(latent, torch.tensor([1, 6, 6]), bypass=torch.tensor([True, True, False]))
    plain = quantizer(latent)
    semantic = quantizer.semantic_in(latent)
    left = latent - quantizer.semantic_out(semantic)
    expected = quantizer.semantic_out(semantic) + quantizer.acoustic_out(quantizer.acoustic_in(left))
    torch.testing.assert_close(out.latent[:2], expected[:2])
    torch.testing.assert_close(out.latent[2], plain.latent[2])
    assert torch.equal(out.codes[2], plain.codes[2])


def test_gradients_pass_straight_through_to_the_encoder(quantizer, latent):
    latent.requires_grad_()
    weight = torch.randn(latent.shape)
    (through,) = torch.autograd.grad((quantizer(latent, num_codebooks=2).latent * weight).sum(), latent)
    linear = quantizer.semantic_out(quantizer.semantic_in(latent))
    (expected,) = torch.autograd.grad((linear * weight).sum(), latent)
    torch.testing.assert_close(through, expected)


def test_the_commitment_loss_pulls_the_projections_and_not_the_codebooks(quantizer, latent):
    latent.requires_grad_()
    quantizer(latent).commitment_loss.backward()
    assert (
        latent.grad.any()
        and quantizer.semantic_in.weight.grad.any()
        and quantizer.acoustic_in.weight.grad.any()
    )
    assert not any(buffer.requires_grad for buffer in quantizer.buffers())


def test_padding_counts_in_no_loss(quantizer, latent):
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] * 1 + [False] * 4])
    other = latent.masked_fill(~mask.unsqueeze(-1), 7.0)
    one, two = quantizer(latent, mask=mask), quantizer(other, mask=mask)
    torch.testing.assert_close(one.commitment_loss, two.commitment_loss)
    torch.testing.assert_close(one.isotropy_loss, two.isotropy_loss)


def test_codes_do_not_depend_on_autocast(quantizer, latent):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = quantizer(latent)
    assert torch.equal(cast.codes, quantizer(latent).codes) and cast.latent.dtype == torch.float32


def test_isotropy_is_0_where_all_directions_vary_alike_and_one_less_than_the_width_on_a_line():
    corners = torch.cat([torch.eye(6), -torch.eye(6)])
    assert isotropy_loss(corners + 5, torch.ones(12)) < 1e-6
    line = torch.linspace(-1, 1, 50).unsqueeze(1) * torch.randn(1, 6) + 3
    torch.testing.assert_close(isotropy_loss(line, torch.ones(50)), torch.tensor(5.0), atol=1e-3, rtol=0)
    weight = torch.cat([torch.ones(12), torch.zeros(50)])
    assert isotropy_loss(torch.cat([corners + 5, line]), weight) < 1e-6


def test_a_prediction_that_acoustic_codes_follow_is_moved_by_its_own_loss_alone(latent):
    """Acoustic codes undo every change of it, so that the decoder's gradient would drive it away."""
    torch.manual_seed(0)
    sizes = {"num_codebooks": 6, "semantic_codebooks": 2, "codebook_size": 16, "codebook_dim": 8}
    more = {"semantic_encoder": True, "prediction_frames": 2, "prediction_hidden": 5}
    quantizer, rows = SplitQuantizer(24, **sizes, **more), torch.randn(3, 5, 8)

    def moved(levels: list[int], part: str) -> list[bool]:
        """Whether each item's own loss has a gradient in the prediction."""
        out = quantizer(latent, torch.tensor(levels), semantic=rows)
        found = []
        for item in range(3):
            value = out.latent[item].square().sum() if part == "latent" else out.prediction_loss
            (gradient,) = torch.autograd.grad(
                value, quantizer.semantic_out.weight, retain_graph=True, allow_unused=True
            )
            found.append(gradient is not None and bool(gradient.any()))
        return found

    assert moved([1, 2, 6], "latent") == [True, True, False]
    assert moved([6, 6, 6], "latent") == [False] * 3
    assert moved([6, 6, 6], "prediction_loss") == [True] * 3


def test_the_unexplained_share_is_1_for_the_mean_and_has_no_unit():
    goal, weight = torch.randn(2, 6, 4) + 5, torch.tensor([1.0] * 9 + [0.0] * 3)
    counted = goal.flatten(0, 1)[:9]
    mean = counted.mean(dim=0).expand_as(goal)
    torch.testing.assert_close(unexplained_share(goal, mean, weight), torch.tensor(1.0))
    near = goal + 0.1 * torch.randn_like(goal)
    share = unexplained_share(goal, near, weight)
    torch.testing.assert_close(unexplained_share(7 * goal, 7 * near, weight), share)
    expected = (near.flatten(0, 1)[:9] - counted).square().sum() / (
        counted - counted.mean(dim=0)
    ).square().sum()
    torch.testing.assert_close(share, expected)


def test_acoustic_vectors_may_have_another_width(latent):
    torch.manual_seed(0)
    quantizer = SplitQuantizer(24, 6, 2, 16, 8, acoustic_dim=12, semantic_encoder=True)
    rows = torch.randn(3, 5, 8)
    out = quantizer(latent, semantic=rows)
    assert quantizer.acoustic.codebooks.shape == (4, 16, 12) and out.acoustic_rows.shape == (15, 12)
    predicted = quantizer.predicted_projection(rows)
    torch.testing.assert_close(out.acoustic_rows, (quantizer.acoustic_in(latent) - predicted).flatten(0, 1))
    torch.testing.assert_close(quantizer.decode(out.codes), out.latent)
