"""Packed weights take half the room and less, and come back as they were up to rounding."""

import pytest
import torch

from csm.model import CSMModel


def test_a_packed_model_is_small_and_the_same_up_to_rounding(tiny_model, tmp_path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.audio_embedding.weight[3] = 0
    for name, half in (("whole", False), ("half", True)):
        model.save_pretrained(tmp_path / name, half=half)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    tables = model.audio_embedding.weight.numel() + model.depth_decoder.heads.numel()
    rest = sum(p.numel() for p in model.parameters()) - tables
    # Beside the header: 16 bits each, 8 of the tables.
    assert sizes[1] < tables + 2 * rest + 2 * (tables // 16) + 20_000 < sizes[0]
    again = CSMModel.from_pretrained(tmp_path / "half")
    for (name, ours), theirs in zip(model.named_parameters(), again.parameters(), strict=True):
        assert theirs.dtype == torch.float32
        if name in ("audio_embedding.weight", "depth_decoder.heads"):
            dim = -1 if "embedding" in name else -2
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
