"""Packed weights take half the room and less, and come back as they were up to rounding."""

import pytest
import torch

from csm.model import CSMModel
from csm.network.io.packed_weights import FEWEST_VALUES


def test_a_packed_model_is_small_and_the_same_up_to_rounding(tiny_model, tmp_path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.audio_embedding.weight[3] = 0
    for name, half in (("whole", False), ("half", True)):
        model.save_pretrained(tmp_path / name, half=half)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    matrices = [p for p in model.parameters() if p.ndim > 1 and p.numel() >= FEWEST_VALUES]
    eight = sum(p.numel() for p in matrices)
    rest = sum(p.numel() for p in model.parameters()) - eight
    # Beside the header: 8 bits each and 16 a scale, of which one stands for at least 16 values; else 16.
    assert eight > rest and sizes[1] < eight + 2 * rest + 2 * (eight // 16) + 20_000 < sizes[0] / 2
    again = CSMModel.from_pretrained(tmp_path / "half")
    for (name, ours), theirs in zip(model.named_parameters(), again.parameters(), strict=True):
        assert theirs.dtype == torch.float32
        if ours.ndim > 1 and ours.numel() >= FEWEST_VALUES:
            dim = -2 if name == "depth_decoder.heads" else -1
            bound = ours.abs().amax(dim=dim, keepdim=True) / 250
            assert bool(((ours - theirs).abs() <= bound).all())
        else:
            torch.testing.assert_close(theirs, ours.half().float(), atol=0, rtol=0)
    # Packed once more, nothing changes any further.
    again.save_pretrained(tmp_path / "again", half=True)
    third = CSMModel.from_pretrained(tmp_path / "again")
    for ours, theirs in zip(again.parameters(), third.parameters(), strict=True):
        torch.testing.assert_close(theirs, ours, atol=0, rtol=2e-3)


def test_public_layouts_are_not_packed(tiny_model, tmp_path) -> None:
    with pytest.raises(ValueError, match="half"):
        tiny_model(extra_codes=3).save_pretrained(tmp_path / "x", "transformers", half=True)
    assert not (tmp_path / "x").exists()
