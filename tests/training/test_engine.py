"""The plain engine, the derived DeepSpeed configuration, ranks and devices."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from torch import nn

from csm.training import engine
from csm.training.distributed import DistributedContext, start_distributed
from csm.training.engine import deepspeed_config, trained_alone
from csm.training.options import TrainingConfig
from csm.training.plain_engine import PlainEngine

ROOT = Path(__file__).resolve().parents[2]
ALONE = DistributedContext(rank=0, size=1, local_size=1, device=torch.device("cpu"))


def test_accumulated_shards_weigh_the_same() -> None:
    module = nn.Linear(2, 1, bias=False)
    engine = PlainEngine("model", module, TrainingConfig(micro_batches=2), ALONE)
    for value in (1.0, 3.0):
        engine.backward(module(torch.full((1, 2), value)).sum())
    assert torch.equal(engine.gradients()[0], torch.full((1, 2), 2.0))


def test_a_parameter_without_gradient_is_updated_like_one_with_a_zero_gradient() -> None:
    module = nn.Linear(2, 2)
    engine = PlainEngine("model", module, TrainingConfig(micro_batches=1, weight_decay=0.5), ALONE)
    before = module.weight.detach().clone()
    engine.backward(module.bias.sum())
    assert torch.equal(engine.gradients()[0], torch.zeros(2, 2))
    engine.step(0.1)
    assert torch.allclose(module.weight, before * (1 - 0.1 * 0.5))


def test_fragments_are_views_of_the_live_state() -> None:
    module = nn.Linear(2, 2)
    engine = PlainEngine("model", module, TrainingConfig(ema_decay=0.5), ALONE)
    fragment = next(f for f in engine.fragments() if f.name == "weight")
    assert set(fragment.slots) == {"weight", "exp_avg", "exp_avg_sq", "average"}
    fragment.slots["weight"].fill_(3.0)
    assert torch.equal(module.weight.detach(), torch.full((2, 2), 3.0))


def test_other_modules_are_fixed_functions_while_one_is_trained() -> None:
    modules = {"net": nn.Linear(2, 2), "discriminator": nn.Linear(2, 1)}
    modules["discriminator"].bias.requires_grad_(False)
    engines = {n: PlainEngine(n, m, TrainingConfig(), ALONE) for n, m in modules.items()}
    with trained_alone(engines, "net"):  # type: ignore[arg-type]
        modules["discriminator"](modules["net"](torch.ones(1, 2))).sum().backward()
    assert modules["net"].weight.grad is not None and modules["discriminator"].weight.grad is None
    assert modules["discriminator"].weight.requires_grad and not modules["discriminator"].bias.requires_grad


def test_frozen_parameters_and_saved_buffers_are_constants() -> None:
    module = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    module[1].requires_grad_(False)
    module.register_buffer("scratch", torch.zeros(1), persistent=False)
    constants = PlainEngine("model", module, TrainingConfig(), ALONE).constants()
    assert set(constants) == {
        "0.running_mean",
        "0.running_var",
        "0.num_batches_tracked",
        "1.weight",
        "1.bias",
    }


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_deepspeed_config_follows_the_options(stage: int) -> None:
    distributed = DistributedContext(rank=0, size=4, local_size=4, device=torch.device("cpu"))
    derived = deepspeed_config(
        nn.Linear(3, 5), TrainingConfig(micro_batches=8, zero_stage=stage), distributed
    )
    assert derived["gradient_accumulation_steps"] == 2
    assert derived["zero_optimization"]["stage"] == stage
    assert derived["zero_optimization"]["reduce_bucket_size"] == 1024
    assert "fp16" not in derived and "bf16" not in derived


def test_what_is_offloaded_lies_on_the_host_pinned_where_there_is_a_gpu() -> None:
    def zero(offload: str, device: str) -> dict[str, object]:
        distributed = DistributedContext(rank=0, size=1, local_size=1, device=torch.device(device))
        config = TrainingConfig(zero_stage=3, offload=offload)  # type: ignore[arg-type]
        derived = deepspeed_config(nn.Linear(3, 5), config, distributed)
        assert derived["zero_force_ds_cpu_optimizer"] is False
        return derived["zero_optimization"]

    assert not {"offload_optimizer", "offload_param"} & zero("none", "cuda").keys()
    assert zero("optimizer", "cpu")["offload_optimizer"] == {"device": "cpu", "pin_memory": False}
    assert "offload_param" not in zero("optimizer", "cpu")
    assert zero("all", "cuda")["offload_param"] == {"device": "cpu", "pin_memory": True}


def test_the_bucket_is_that_of_the_trained_parameters_alone() -> None:
    module = nn.Sequential(nn.Linear(100, 100), nn.Linear(3, 5))
    module[0].requires_grad_(False)
    derived = deepspeed_config(module, TrainingConfig(), ALONE)
    assert derived["zero_optimization"]["reduce_bucket_size"] == 1024


def test_zero_3_cuts_small_models_as_it_cuts_large_ones() -> None:
    module = nn.Linear(1000, 1000)
    derived = deepspeed_config(module, TrainingConfig(zero_stage=3), ALONE)
    assert derived["zero_optimization"]["stage3_param_persistence_threshold"] == 100


def test_an_unknown_or_missing_device_is_refused() -> None:
    with pytest.raises(ValueError, match="device: expected 'auto', 'cpu' or 'cuda', got 'gpu'"):
        start_distributed("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="torch sees no GPU; use 'auto' or 'cpu'"):
            start_distributed("cuda")


def test_deepspeed_is_imported_in_a_function_alone() -> None:
    """No other file imports it (tests/test_layout.py)."""
    tree = ast.parse(Path(engine.__file__).read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = {node for function in functions for node in imports(function)}
    found = {node for node in imports(tree) if "deepspeed" in ast.unparse(node)}
    assert len(found) == 3 and found <= inside


def imports(tree: ast.AST) -> list[ast.AST]:
    return [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
