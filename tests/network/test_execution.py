"""Compiled blocks and recomputed activations: other ways to the same losses and gradients."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from csm.losses import ConversationTargets, conversational_loss
from csm.model import CSMModel
from csm.network.execution import ExecutionConfig, apply_execution, compile_step
from csm.network.lora import LoRAConfig, add_adapters
from csm.sequences.packed_batch import RowBatch


def batch_of(model: CSMModel, random_turn, lengths) -> RowBatch:
    rows = model.new_rows()
    for index, length in enumerate(lengths):
        rows.begin_sequence([random_turn("past")])
        rows.add_spoken(random_turn(f"t{index}", frames=length))
        rows.add_transcribed(random_turn(f"h{index}", frames=length))
    return rows.build()


def loss_and_gradients(model: CSMModel, batch: RowBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(1)  # of the dropout
    output = model(batch=batch, label_smoothing=0.1)
    loss = conversational_loss(output, ConversationTargets.of(batch, 2)).total
    model.zero_grad()
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), found


def test_recomputed_blocks_give_every_bit_of_loss_and_gradient_dropout_included(
    tiny_model, random_turn
) -> None:
    model = tiny_model(dropout=0.3).train()
    batch = batch_of(model, random_turn, [9, 14])
    loss, gradients = loss_and_gradients(model, batch)
    apply_execution(model, ExecutionConfig(checkpoint_layers=True), zero_stage=0)
    again, recomputed = loss_and_gradients(model, batch)
    assert torch.equal(loss, again) and gradients.keys() == recomputed.keys()
    for name, gradient in gradients.items():
        # A key's gradient is added up in another order where two layers read it.
        torch.testing.assert_close(recomputed[name], gradient, atol=1e-6, rtol=1e-5)


def test_recomputed_blocks_above_frozen_embeddings_still_learn(tiny_model, random_turn) -> None:
    model = tiny_model(cross_layers=(), memory_layers=()).train()
    model.text_embedding.requires_grad_(False)
    model.audio_embedding.requires_grad_(False)
    batch = batch_of(model, random_turn, [9])
    _, gradients = loss_and_gradients(model, batch)
    apply_execution(model, ExecutionConfig(checkpoint_layers=True), zero_stage=0)
    _, recomputed = loss_and_gradients(model, batch)
    assert gradients.keys() == recomputed.keys() and "backbone.blocks.0.attention.q_proj.weight" in gradients
    for name, gradient in gradients.items():
        torch.testing.assert_close(recomputed[name], gradient, atol=1e-6, rtol=1e-5)


def test_recomputed_blocks_keep_no_activation_of_theirs(tiny_model, random_turn) -> None:
    model = tiny_model().train()
    batch = batch_of(model, random_turn, [30, 30])

    def kept() -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(batch=batch, label_smoothing=0.0)
        return sum(sizes.values())

    whole = kept()
    apply_execution(model, ExecutionConfig(checkpoint_layers=True), zero_stage=0)
    assert kept() < 0.8 * whole


def test_compiled_blocks_give_the_same_loss_and_gradients_for_batches_of_any_size(
    tiny_model, random_turn
) -> None:
    model = tiny_model(n_layers=1, depth_n_layers=1).train()
    batches = [batch_of(model, random_turn, lengths) for lengths in ([9, 14], [5], [7, 3, 20])]
    expected = [loss_and_gradients(model, batch) for batch in batches]
    torch._dynamo.reset()
    apply_execution(model, ExecutionConfig(compile="blocks"), zero_stage=0)
    for batch, (loss, gradients) in zip(batches, expected, strict=True):
        compiled, found = loss_and_gradients(model, batch)
        torch.testing.assert_close(compiled, loss, atol=1e-5, rtol=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-3)


def test_a_compiled_step_is_one_graph_for_batches_of_any_size() -> None:
    """Traced and differentiated as one graph; what the compiler makes of the graph is its own matter."""
    program = Path(__file__).with_name("step_as_one_graph.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["graphs"], found["breaks"]) == (1, 0), found
    assert found["loss"] < 1e-6 and found["gradient"] < 1e-4 and found["gradients"] > 60, found


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"compile": "blocks"}, {"zero_stage": 3}, "zero_stage 3: expected 'nothing'"),
        ({"compile": "step"}, {"zero_stage": 3}, "zero_stage 3: expected 'nothing'"),
        ({"compile": "step", "checkpoint_layers": True}, {"zero_stage": 2}, "expected compile='blocks'"),
        ({"compile": "graphs"}, {"zero_stage": 3}, "'graphs' with training.zero_stage 3: expected 'nothing'"),
        ({"compile": "graphs", "checkpoint_layers": True}, {"zero_stage": 2}, "expected compile='blocks'"),
        (
            {"float8": True},
            {"zero_stage": 3},
            "float8 with training.zero_stage 3: expected a stage",
        ),
    ],
)
def test_what_cannot_be_compiled_is_refused(tiny_model, changes, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        apply_execution(tiny_model(), ExecutionConfig(**changes), **options)


def test_float8_is_refused_with_adapters(tiny_model) -> None:
    model = tiny_model()
    add_adapters(model, LoRAConfig(rank=2))
    with pytest.raises(ValueError, match="float8 with adapters"):
        apply_execution(model, ExecutionConfig(float8=True), zero_stage=0)


@pytest.mark.parametrize("training", [True, False])
def test_a_model_of_one_size_is_compiled_for_training_alone(
    monkeypatch, tiny_model, random_turn, training
) -> None:
    """Each size of a validation batch would be one more graph, and too many of them end a run."""
    called: list[bool] = []

    def compile(self: CSMModel, **options: object) -> None:
        self._compiled_call_impl = lambda **given: called.append(self.training) or self._call_impl(**given)

    monkeypatch.setattr(CSMModel, "compile", compile)
    model = tiny_model().train(training)
    compile_step(model, fixed_shapes=True)
    with torch.no_grad():
        model(batch=model.with_layout(batch_of(model, random_turn, [9])))
    assert called == [True] * training


def test_an_unknown_part_to_compile_is_refused() -> None:
    with pytest.raises(ValueError, match="compile is 'all': expected one of nothing, blocks, step, graphs"):
        ExecutionConfig(compile="all")


@pytest.mark.parametrize(
    ("compile", "options"),
    [
        ("step", {"dynamic": True, "backend": "inductor"}),
        ("graphs", {"dynamic": False, "backend": "inductor", "mode": "reduce-overhead"}),
    ],
)
def test_what_is_compiled_for_one_size_is_replayed(monkeypatch, tiny_model, compile, options) -> None:
    """`reduce-overhead` is inductor's name for CUDA graphs; tests/network/test_fixed_shapes.py replays."""
    found: list[dict[str, object]] = []
    monkeypatch.setattr(CSMModel, "compile", lambda self, **given: found.append(given))
    config = ExecutionConfig(compile=compile)
    apply_execution(tiny_model(), config, zero_stage=2)
    assert found == [{"fullgraph": True, **options}]
    assert config.fixed_shapes == (compile == "graphs")
