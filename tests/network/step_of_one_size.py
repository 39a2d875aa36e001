"""Compiles a training step for batches of one size and replays its graphs; prints what differs as JSON.

A program of its own: the checks of types that tests install cannot be traced. The graphs are replayed as CUDA
would: a call copies its inputs to the addresses of the first one, computes there, and gives the same tensors
as every call before, with new values.
"""

import json
from typing import Any

import torch
from functorch.compile import make_boxed_func
from step_as_one_graph import SIZES, made_up_rows
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters

from csm.losses import ConversationTargets, LossConfig, conversational_loss
from csm.model import CSMModel
from csm.network.execution import compile_step
from csm.network.fixed_shapes import RowBudget, padded
from csm.network.model_config import CSMConfig


class Replayed:
    """A graph of fixed addresses; `own` are those of parameters, which are read where they lie."""

    def __init__(self, graph: Any, own: set[int], copies: bool) -> None:
        self.graph, self.own, self.copies = graph, own, copies
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.calls = 0

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        if not self.inputs:
            self.inputs = [a if a.data_ptr() in self.own else a.clone() for a in arguments]
        for place, given in zip(self.inputs, arguments, strict=True):
            assert isinstance(given, Tensor) and given.shape == place.shape, "no number, and one shape"
            if place is not given:
                place.copy_(given)
        found = self.graph(*self.inputs)
        if not self.outputs:
            self.outputs = [x.clone() if isinstance(x, Tensor) else x for x in found]
        for place, made in zip(self.outputs, found, strict=True):
            if isinstance(place, Tensor):
                place.copy_(made)
        # Gradients that are accumulated are no tensors of a graph: torch's cudagraph trees see to it.
        return [x.clone() if self.copies and isinstance(x, Tensor) else x for x in self.outputs]


def main() -> None:
    torch.manual_seed(0)
    config = CSMConfig(
        text="bytes",
        num_codebooks=4,
        semantic_codebooks=2,
        memory_layers=(0,),
        letters_per_frame=2,
        latent_dim=8,
        depth_inputs="sum",
        **SIZES,
    )
    model = CSMModel(config).train()
    model.set_code_vectors(torch.randn(4, config.codebook_size, 8))
    batches = [made_up_rows(model, turns, seed=turns) for turns in (8, 12, 10)]
    rows = max(len(batch.text) for batch in batches)
    budget = RowBudget.of([(b, b.layout) for b in batches], rows=rows, max_context=config.max_context)
    own = {p.data_ptr() for p in [*model.parameters(), *model.buffers()]}
    graphs: list[Replayed] = []

    def compiler(copies: bool) -> Any:
        def compiled(graph: Any, inputs: Any) -> Any:
            graphs.append(Replayed(graph, own, copies))
            return make_boxed_func(graphs[-1])

        return compiled

    def run(batch: Any) -> tuple[Tensor, list[Tensor]]:
        model.zero_grad()
        output = model(batch=batch, label_smoothing=0.1)
        targets = ConversationTargets.of(batch, 2, model.code_vectors)
        loss = conversational_loss(output, targets, LossConfig()).total
        loss.backward()
        return loss.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    plain = [run(batch) for batch in batches]
    counters.clear()
    backend = aot_autograd(fw_compiler=compiler(False), bw_compiler=compiler(True))
    compile_step(model, backend=backend, fixed_shapes=True)
    replayed = [run(padded(batch, config, budget)) for batch in batches]
    losses = [float(abs(a - b) / b) for (a, _), (b, _) in zip(replayed, plain, strict=True)]
    gradients = [
        float((a - b).norm() / b.norm().clamp_min(1e-9))
        for (_, found), (_, wanted) in zip(replayed, plain, strict=True)
        for a, b in zip(found, wanted, strict=True)
    ]
    print(json.dumps({
        "graphs": counters["stats"]["unique_graphs"],
        "breaks": len(counters["graph_break"]),
        "calls": [graph.calls for graph in graphs],
        "rows": [len(batch.text) for batch in batches],
        "loss": max(losses),
        "gradient": max(gradients),
        "gradients": len(gradients),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
