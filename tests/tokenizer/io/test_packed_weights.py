"""The packaged form is small, near the full one, and the same however often it is packed."""

import torch

from csm.tokenizer.io.packed_weights import packed, unpacked


def state(**changes):
    generator = torch.Generator().manual_seed(0)
    made = {
        "quantizer.semantic.codebooks": torch.randn(3, 16, 8, generator=generator),
        "quantizer.semantic.usage": torch.rand(3, 16, generator=generator),
        "encoder.embed.weight": torch.randn(4, 5, generator=generator),
        "encoder.block.scale": torch.rand(5, generator=generator),
    }
    made["quantizer.semantic.vector_sum"] = made["quantizer.semantic.codebooks"] * 0.3
    return made | changes


def test_every_weight_is_restored_and_running_statistics_start_at_one_count():
    before = state()
    after = unpacked(packed(before))
    assert set(after) == set(before) and all(v.dtype == torch.float32 for v in after.values())
    books = "quantizer.semantic.codebooks"
    worst = (after[books] - before[books]).abs().amax(-1) / before[books].abs().amax(-1)
    assert float(worst.max()) < 0.0045
    for name in ("encoder.embed.weight", "encoder.block.scale"):
        torch.testing.assert_close(after[name], before[name], atol=0, rtol=5e-4)
    assert torch.equal(after["quantizer.semantic.usage"], torch.ones(3, 16))
    assert torch.equal(after["quantizer.semantic.vector_sum"], after[books])


def test_packing_twice_changes_no_vector():
    once = unpacked(packed(state()))
    twice = unpacked(packed(once))
    torch.testing.assert_close(
        twice["quantizer.semantic.codebooks"], once["quantizer.semantic.codebooks"], atol=1e-5, rtol=1e-3
    )


def test_vectors_take_one_byte_per_entry():
    small = packed(state())
    assert small["quantizer.semantic.codebooks"].dtype == torch.int8
    assert not any(name.endswith(("vector_sum", "usage")) for name in small)


def test_a_vector_of_zeros_and_a_full_form_stay_as_they_are():
    zero = torch.zeros(1, 4, 8)
    books = {"q.codebooks": zero, "q.usage": torch.ones(1, 4)}
    assert torch.equal(unpacked(packed(books))["q.codebooks"], zero)
    whole = unpacked(state())
    assert all(torch.equal(whole[name], value) for name, value in state().items())
