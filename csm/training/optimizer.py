"""AdamW as the engines use it: its parameter groups, its state from the start, and its form for the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from csm.training.distributed import DistributedContext
from csm.training.options import TrainingConfig

MOMENTS = ("exp_avg", "exp_avg_sq")


def parameter_groups(module: nn.Module, config: TrainingConfig) -> list[dict[str, Any]]:
    """Splits the trainable parameters by weight decay and by learning rate.

    Weight decay is for two or more dimensions, not for norms and biases. A parameter's attribute
    `learning_rate_factor`, set by `scale_learning_rate`, multiplies the learning rate of the schedule.
    """
    factors = sorted({learning_rate_factor(parameter) for parameter in module.parameters()}, reverse=True)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {
        (factor, decay): [] for factor in factors for decay in (config.weight_decay, 0.0)
    }
    for parameter in module.parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if parameter.ndim >= 2 else 0.0
            groups[learning_rate_factor(parameter), decay].append(parameter)
    # The learning rate of the schedule is set before every step; 0 here guards against a step without it.
    return [
        {"params": group, "lr": 0.0, "weight_decay": decay, "learning_rate_factor": factor}
        for (factor, decay), group in groups.items()
        if group
    ]


def learning_rate_factor(parameter: nn.Parameter) -> float:
    """Returns the factor on the schedule's learning rate; 1 where none was set."""
    return float(getattr(parameter, "learning_rate_factor", 1.0))


def scale_learning_rate(module: nn.Module, factor: float) -> None:
    """Trains a module's parameters at `factor` times the learning rate of the others."""
    for parameter in module.parameters():
        parameter.learning_rate_factor = factor  # type: ignore[attr-defined]


def build_optimizer(
    module: nn.Module, config: TrainingConfig, distributed: DistributedContext
) -> torch.optim.AdamW:
    """Returns AdamW: torch's fused kernel on CUDA, `CpuAdamW` elsewhere and for what is kept on the host."""
    groups = parameter_groups(module, config)
    if distributed.device.type == "cuda" and config.offload == "none":
        return torch.optim.AdamW(groups, betas=config.betas, fused=True)
    return CpuAdamW(groups, betas=config.betas)


class CpuAdamW(torch.optim.AdamW):
    """torch's AdamW to the bit, in pieces that stay in the cache: for large flat tensors, half the time.

    Torch's fused CPU kernel is faster still, but it rounds the last elements of a tensor otherwise than the
    rest, so that the result would depend on where ZeRO cuts.
    """

    PIECE = 2**16

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, self.state[parameter], group)

    def _update(self, parameter: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        state["step"] += 1
        count, (beta1, beta2), rate = float(state["step"]), group["betas"], group["lr"]
        scale, root = rate / (1 - beta1**count), (1 - beta2**count) ** 0.5
        tensors = (parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"])
        pieces = (tensor.view(-1).split(self.PIECE) for tensor in tensors if tensor is not None)
        for weight, gradient, mean, square in zip(*pieces, strict=True):
            weight.mul_(1 - rate * group["weight_decay"])
            mean.lerp_(gradient, 1 - beta1)
            square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            weight.addcdiv_(mean, square.sqrt().div_(root).add_(group["eps"]), value=-scale)


def set_learning_rate(optimizer: Any, learning_rate: float) -> None:
    """Sets the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("learning_rate_factor", 1.0)


def fresh_state(parameter: Tensor) -> dict[str, Tensor]:
    """Returns AdamW's state before the first update; made early, so that a checkpoint always finds it."""
    state = {"step": torch.zeros((), device=parameter.device)}
    return state | {moment: torch.zeros_like(parameter, requires_grad=False) for moment in MOMENTS}
