"""The two functions that CUDA graphs hold: nothing in them waits for a device, nor touches another one."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from csm.generation import static_lane
from csm.generation.static_frames import LaterRule, static_frames
from csm.generation.static_lane import RowInputs, StaticLane
from csm.model import CSMModel
from csm.network.model_config import CSMConfig

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks/gpu"
SAMPLED = LaterRule("sampled", 0.0)
TINY = {
    "d_model": 32,
    "n_layers": 2,
    "n_heads": 2,
    "depth_d_model": 16,
    "depth_n_layers": 1,
    "depth_n_heads": 2,
    "num_codebooks": 3,
    "semantic_codebooks": 2,
    "codebook_size": 24,
    "max_context": 160,
}


@pytest.fixture(scope="module")
def host_work():
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("host_work")
    sys.path.remove(str(FOLDER))


class OnCuda(TorchDispatchMode):
    """Refuses operators with a tensor on the host: a graph cannot hold their copies."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = function(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, results)):
            if isinstance(tensor, Tensor):
                assert tensor.device.type == "cuda", f"{function} has a tensor on {tensor.device}"
        return results


class Uncaptured:
    """A function that is called: there is no CUDA here."""

    def __init__(self, function, device) -> None:
        self.function = function


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({"depth_inputs": "sum", "latent_dim": 12}, torch.float32),
        ({"n_kv_heads": 1, "depth_n_kv_heads": 1, "zeros_end": True}, torch.bfloat16),
    ],
    ids=str,
)
@pytest.mark.parametrize("guided", [False, True])
@torch.no_grad()
def test_a_graph_can_hold_a_frame_and_a_row(monkeypatch, host_work, changes, dtype, guided) -> None:
    """On tensors without values that claim to be on CUDA: what depends on a value fails there too."""
    monkeypatch.setattr(static_lane, "Captured", Uncaptured)
    monkeypatch.setattr(static_lane, "addresses_of", lambda model: ())
    with FakeTensorMode():
        torch.set_default_dtype(dtype)
        try:
            with torch.device("cuda"):
                model = CSMModel(CSMConfig(**TINY, **changes)).eval()
        finally:
            torch.set_default_dtype(torch.float32)
        lane = StaticLane(model, 2, guided)
        rules = [SAMPLED]
        if model.config.latent_dim:
            model.set_code_vectors(torch.randn(3, 24, 12))
            rules += [LaterRule("nearest", share) for share in (0.0, 0.5)]
        with host_work.counted() as found, OnCuda():
            for rule in rules:
                assert static_frames(model, lane.hidden, lane._of_frame, rule).shape == (2, 3)
            assert lane._run_rows().shape == (2, 32)
        assert not found.waits


def test_the_check_sees_a_tensor_on_the_host_and_a_wait() -> None:
    with FakeTensorMode():
        x = torch.ones(3, device="cuda")
        with OnCuda(), pytest.raises(AssertionError, match="on cpu"):
            x + torch.tensor(1.0)
        with pytest.raises(RuntimeError):
            int(x[0])


def test_a_lane_does_not_keep_its_model_alive(tiny_model) -> None:
    model = tiny_model()
    lane = StaticLane(model, 1)
    del model
    with pytest.raises(ReferenceError):
        lane._run_rows()


@torch.no_grad()
def test_a_place_that_is_left_out_of_a_call_stays_as_it_was_loaded(tiny_model) -> None:
    """On a CPU, too, where inputs need no copy to a device: the row of a call before must not run again."""
    model = tiny_model()
    lane = StaticLane(model, 2)
    idle = lane._idle_frames.clone(), lane._idle_rows.clone()
    codes = torch.arange(5)
    lane.frames({0: torch.ones_like(idle[0][0])}, SAMPLED)
    lane.run({0: RowInputs(codes, 3, 1)})
    lane.hidden[0] = 7.0
    lane.frames({1: torch.ones_like(idle[0][0])}, SAMPLED)
    lane.run({1: RowInputs(codes, 5, 2)})
    assert (lane.hidden[0] == 7).all() and not (lane.hidden[1] == 0).all()
    assert torch.equal(idle[0], lane._idle_frames) and torch.equal(idle[1], lane._idle_rows)
