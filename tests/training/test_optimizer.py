"""AdamW: what decays, and the CPU form that is torch's to the bit."""

from __future__ import annotations

import torch
from torch import nn

from csm.training.optimizer import CpuAdamW, parameter_groups
from csm.training.options import TrainingConfig


def test_weight_decay_spares_norms_and_biases() -> None:
    module = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3))
    decayed, spared = parameter_groups(module, TrainingConfig(weight_decay=0.1))
    assert [p.shape for p in decayed["params"]] == [(5, 4), (3, 4)] and decayed["weight_decay"] == 0.1
    assert [p.ndim for p in spared["params"]] == [1, 1, 1] and spared["weight_decay"] == 0.0


def test_the_cpu_optimizer_equals_torch_to_the_bit_wherever_its_pieces_are_cut() -> None:
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(37, 11)), nn.Parameter(torch.randn(5))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    first = CpuAdamW(ours, lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    second = torch.optim.AdamW(theirs, lr=0.01, betas=(0.9, 0.99), weight_decay=0.1, foreach=False)
    first.PIECE = 13
    for p in ours:
        first.state[p] = {k: torch.zeros_like(p) for k in ("exp_avg", "exp_avg_sq")} | {
            "step": torch.zeros(())
        }
    for _ in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        first.step()
        second.step()
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))
