"""A new model starts with embeddings that tell which codes sound alike."""

import pytest
import torch

from csm.network.code_embedding_init import start_from_code_vectors


@pytest.mark.parametrize("inputs", ["last", "sum"])
def test_codes_that_are_alike_start_alike(tiny_model, inputs) -> None:
    model = tiny_model(depth_inputs=inputs)
    # As many dimensions as the narrowest part can show.
    vectors = torch.randn(6, 24, 16, generator=torch.Generator().manual_seed(0))
    vectors *= 0.5 ** torch.arange(6).view(-1, 1, 1)
    end = model.audio_embedding.weight.view(5, -1, 32)[:, 24:].clone()
    start_from_code_vectors(model, vectors)
    table = model.audio_embedding.weight.view(5, -1, 32)
    centred = vectors[:5] - vectors[:5].mean(dim=1, keepdim=True)
    for book in range(5):
        true = torch.cdist(centred[book], centred[book])
        ours = torch.cdist(table[book, :24], table[book, :24])
        torch.testing.assert_close(ours / ours.max(), true / true.max(), atol=1e-3, rtol=1e-3)
    # A later codebook says less of the sound.
    norms = table[:, :24].square().sum(2).mean(1).sqrt()
    torch.testing.assert_close(norms[1:] / norms[:-1], torch.full((4,), 0.5), atol=0.1, rtol=0)
    heads = model.depth_decoder.heads[:, :, :24].transpose(1, 2)
    for book in range(4):
        true = centred[book + 1] @ centred[book + 1].T
        ours = heads[book] @ heads[book].T
        torch.testing.assert_close(ours / ours.max(), true / true.max(), atol=1e-3, rtol=1e-3)
    assert torch.equal(table[:, 24:], end)


def test_vectors_of_another_size_are_refused(tiny_model) -> None:
    for shape in ((4, 24, 8), (6, 23, 8), (6, 24)):
        with pytest.raises(ValueError, match=r"expected \[K, 24, D\] with K >= 5"):
            start_from_code_vectors(tiny_model(), torch.zeros(shape))
    with pytest.raises(ValueError, match=r"expected \[K, 24, 9\]"):
        start_from_code_vectors(tiny_model(depth_inputs="sum", latent_dim=9), torch.zeros(6, 24, 8))
