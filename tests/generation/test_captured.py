"""A function at fixed addresses: called on a CPU, replayed as a graph on CUDA, with the newest values."""

import pytest
import torch

from csm.generation.captured import Captured, upload


def doubled(device: torch.device) -> list[list[float]]:
    given, calls = torch.zeros(3, device=device), []

    def function() -> torch.Tensor:
        calls.append(1)
        return 2 * given

    captured = Captured(function, device)
    found = []
    before = len(calls)
    for values in ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]):
        upload(torch.tensor(values), given)
        found.append(captured().tolist())
    assert len(calls) - before == (2 if device.type == "cpu" else 0)
    return found


def test_a_function_is_called_on_a_cpu() -> None:
    assert doubled(torch.device("cpu")) == [[2.0, 4.0, 6.0], [8.0, 10.0, 12.0]]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_graph_reads_what_was_uploaded_last() -> None:
    assert doubled(torch.device("cuda")) == [[2.0, 4.0, 6.0], [8.0, 10.0, 12.0]]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_what_waits_for_the_device_cannot_be_captured() -> None:
    given = torch.ones(3, device="cuda")
    with pytest.raises(RuntimeError, match="captur"):
        Captured(lambda: given[given > 0], given.device)
