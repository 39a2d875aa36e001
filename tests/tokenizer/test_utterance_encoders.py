"""Utterance embeddings: of unit length, of the utterance alone."""

import pytest
import torch

from csm.tokenizer.utterance_encoders import UtteranceEncoder


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return UtteranceEncoder(10, 16, 5)


@torch.no_grad()
def test_embeddings_have_unit_length(encoder):
    torch.testing.assert_close(encoder(torch.randn(3, 30, 10)).norm(dim=-1), torch.ones(3))


@pytest.mark.parametrize("steps", [3, 6, 27])
@torch.no_grad()
def test_padding_under_the_mask_changes_no_embedding(encoder, steps):
    features = torch.randn(2, 30, 10)
    mask = (torch.arange(30) < steps).expand(2, 30)
    alone = encoder(features[:, :steps])
    torch.testing.assert_close(encoder(features, mask), alone, atol=1e-5, rtol=0)
    features[:, steps:] = 99.0
    torch.testing.assert_close(encoder(features, mask), alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_different_utterances_differ(encoder):
    one, two = encoder(torch.randn(2, 30, 10))
    assert not torch.allclose(one, two, atol=1e-3)
