"""Packed weights take a quarter of the room, and come back as they were up to rounding."""

import pytest
import torch
from safetensors.torch import save_file

from csm import int8_tables
from csm.model import CSMModel
from csm.network.io.packed_weights import FEWEST_VALUES
from csm.system.digests import record_digests


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


def test_folders_that_hold_half_precision_and_two_tables_in_8_bits_are_read(tiny_model, tmp_path) -> None:
    """The form that voices were packed in before."""
    model = tiny_model()
    model.save_pretrained(tmp_path / "a", half=True)
    state = {}
    for name, value in model.state_dict().items():
        if name in ("audio_embedding.weight", "depth_decoder.heads"):
            dim = -1 if "embedding" in name else -2
            state[name], state[f"{name}.scale"] = int8_tables.quantize(value, dim)
        else:
            state[name] = value.half()
    save_file(state, tmp_path / "a" / "model.safetensors")
    record_digests(tmp_path / "a", ["model.safetensors", "config.json"])
    again = CSMModel.from_pretrained(tmp_path / "a").state_dict()
    for name, value in model.state_dict().items():
        bound = value.abs().max() / 250 if f"{name}.scale" in state else 1e-3 * value.abs().max()
        assert float((again[name] - value).abs().max()) <= bound, name
