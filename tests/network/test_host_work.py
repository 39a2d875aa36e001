"""What a micro-batch asks of the host: no wait for the device, one copy, and a budget of operator calls."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from csm.losses import ConversationTargets, LossConfig, conversational_loss
from csm.model import CSMModel
from csm.recipes.telephone import TELEPHONE_MODEL
from csm.training.loop import optimizer_step

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks/gpu"
# Of torch's operators, views too, in the forward and backward pass of the quickstart model.
CALLS = 4150


def load(name: str):
    """Imports a file of benchmarks/gpu, which are no package."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


host_work, training_steps = load("host_work"), load("training_steps")
compiled_step = load("compiled_step")


@pytest.fixture(scope="module")
def model() -> CSMModel:
    torch.manual_seed(0)
    config = replace(TELEPHONE_MODEL, text="bytes", dropout=0.15, frame_dropout=0.25)
    model = CSMModel(config).train()
    model.set_code_vectors(torch.randn(config.num_codebooks, config.codebook_size, config.latent_dim))
    return model


def loss_of(model: CSMModel, batch) -> torch.Tensor:
    targets = ConversationTargets.of(batch, model.config.semantic_codebooks, model.code_vectors)
    return conversational_loss(model(batch=batch, label_smoothing=0.0), targets, LossConfig()).total


def test_forward_and_backward_never_wait_for_the_device(model) -> None:
    batch = training_steps.made_up_rows(model, 8, seed=0)
    with host_work.counted() as forward:
        loss = loss_of(model, batch)
    with host_work.counted() as backward:
        loss.backward()
    model.zero_grad()
    assert not forward.waits and not backward.waits, (forward.waits, backward.waits)
    assert not forward.copies and not backward.copies, forward.copies
    assert sum(forward.calls.values()) + sum(backward.calls.values()) <= CALLS


def test_a_batch_goes_to_a_device_in_one_copy(model) -> None:
    batch = training_steps.made_up_rows(model, 4, seed=0)
    with host_work.counted() as found:
        moved = batch.to(torch.device("meta"))
    assert sum(found.copies.values()) == 1
    assert moved.layout.voice.queries.is_meta and moved.past.codes.is_meta


def test_the_counter_sees_what_makes_a_host_wait() -> None:
    """Without this the zeros above might be the counter's."""
    x = torch.arange(6.0)
    waiting = {
        "aten::nonzero": lambda: x.nonzero(),
        "aten::_local_scalar_dense": lambda: float(x[0]),
        "aten::bincount": lambda: torch.bincount(x.long()),
        "aten::index": lambda: x[x > 2],
        "aten::masked_select": lambda: x.masked_select(x > 2),
        "aten::repeat_interleave": lambda: torch.repeat_interleave(x, x.long()),
        "aten::index_put_": lambda: x.clone().__setitem__(x > 2, 0.0),
        "tolist": lambda: x.tolist(),
    }
    for name, call in waiting.items():
        with host_work.counted() as found:
            call()
        assert [key.split()[0] for key in found.waits.elements()] == [name], (name, found.waits)
    with host_work.counted() as found:
        x[torch.tensor([1, 2])], x.index_select(0, torch.tensor([1])), x.repeat_interleave(2)
    assert not found.waits


def test_a_training_step_waits_once() -> None:
    sizes, turns = training_steps.SMALL["32 x 2"]
    training = training_steps.started(sizes, turns, torch.device("cpu"), 3)
    made = {step: training.batches.of(step) for step in (1, 2)}  # on a GPU by another thread
    batches = SimpleNamespace(of=made.get)
    optimizer_step(training.run, batches, 1, lambda: None)
    with host_work.counted() as found:
        optimizer_step(training.run, batches, 2, lambda: None)
    # The optimizer of the CPU reads its step count; on CUDA it is one fused kernel of torch.
    waits = {place: n for place, n in found.waits.items() if "training/optimizer.py" not in place}
    assert list(waits.values()) == [1] and "training/loop.py" in next(iter(waits)), found.waits


def test_launches_of_generated_code_are_the_calls_in_its_function_call() -> None:
    code = """
cpp_fused_add_0 = async_compile.cpp_pybinding()
def call(args):
    extern_kernels.mm(arg0, arg1, out=buf0)
    cpp_fused_add_0(buf0, buf1)
    buf2 = torch.ops.csm.linear_cross_entropy.default(buf1)
    # Topologically Sorted Source Nodes: [torch.ops.csm.linear_cross_entropy]
    assert_size_stride(buf2[0], (3,), (1,), 'torch.ops.csm.linear_cross_entropy.default')
    triton_poi_fused_1.run(buf2[0], 3)
"""
    assert sum(compiled_step.launches(code).values()) == 4
