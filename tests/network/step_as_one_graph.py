"""Traces and differentiates a training step as one graph for three batches; prints what differs as JSON.

A program of its own: the checks of types that tests install cannot be traced.
"""

import json
import sys
from pathlib import Path

import torch
from torch._dynamo.utils import counters

from csm.losses import ConversationTargets, LossConfig, conversational_loss
from csm.model import CSMModel
from csm.network.execution import compile_step
from csm.network.model_config import CSMConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks/gpu"))
from training_steps import made_up_rows

SIZES = {"d_model": 32, "n_heads": 2, "n_layers": 1, "depth_n_layers": 1, "cross_layers": (0,)}


def main() -> None:
    torch.manual_seed(0)
    config = CSMConfig(
        text="bytes", num_codebooks=4, semantic_codebooks=2, memory_layers=(0,), letters_per_frame=2, **SIZES
    )
    model = CSMModel(config).train()
    batches = [made_up_rows(model, turns, seed=turns) for turns in (8, 12, 10)]

    def run(batch: object) -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        output = model(batch=batch, label_smoothing=0.1)
        loss = conversational_loss(output, ConversationTargets.of(batch, 2), LossConfig()).total
        loss.backward()
        return loss.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    plain = [run(batch) for batch in batches]
    counters.clear()
    compile_step(model, backend="aot_eager")
    compiled = [run(batch) for batch in batches]
    losses = [float(abs(a - b) / b) for (a, _), (b, _) in zip(compiled, plain, strict=True)]
    gradients = [
        float((a - b).norm() / b.norm().clamp_min(1e-9))
        for (_, found), (_, wanted) in zip(compiled, plain, strict=True)
        for a, b in zip(found, wanted, strict=True)
    ]
    print(json.dumps({
        "graphs": counters["stats"]["unique_graphs"],
        "breaks": len(counters["graph_break"]),
        "loss": max(losses),
        "gradient": max(gradients),
        "gradients": len(gradients),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
