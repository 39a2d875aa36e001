"""All tensors of a value go to a device as one buffer, and come out of it as they were."""

from typing import NamedTuple

import torch

from csm.sequences import one_copy
from csm.sequences.one_copy import map_tensors, moved


class Part(NamedTuple):
    rows: torch.Tensor
    count: int
    more: list


def value() -> Part:
    shared = torch.arange(5, dtype=torch.int32)
    flags = torch.tensor([True, False, True])
    return Part(shared, 3, [None, flags, torch.randn(3, 1, 2), (torch.zeros(0, 4), shared), torch.tensor(7)])


def tensors_of(found) -> list[torch.Tensor]:
    tensors: list[torch.Tensor] = []
    map_tensors(found, lambda tensor: tensors.append(tensor) or tensor)
    return tensors


def test_tensors_come_out_of_the_buffer_as_they_went_in() -> None:
    tensors = tensors_of(value())
    for before, after in zip(tensors, one_copy._copied(tensors, torch.device("cpu")), strict=True):
        assert after.dtype == before.dtype and torch.equal(after, before)
        assert not after.numel() or after.data_ptr() % 16 == tensors[0].data_ptr() % 16 == 0


def test_a_value_keeps_its_form_and_a_shared_tensor_stays_shared() -> None:
    found = moved(value(), torch.device("meta"))
    assert isinstance(found, Part) and found.count == 3 and found.more[0] is None
    assert found.more[3][1] is found.rows
    assert [(t.device.type, t.shape, t.dtype) for t in tensors_of(found)] == [
        ("meta", t.shape, t.dtype) for t in tensors_of(value())
    ]


def test_what_is_there_already_is_not_copied() -> None:
    before = value()
    assert moved(before, torch.device("cpu")) is before
