"""An engine is one module with its optimizer; the plain one uses torch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from csm.training.distributed import DistributedContext
from csm.training.optimizer import MOMENTS, build_optimizer, fresh_state, set_learning_rate
from csm.training.options import TrainingConfig

LossAndParts = tuple[Tensor, dict[str, Tensor]] | None


@dataclass(frozen=True)
class Fragment:
    """A piece of one parameter that this rank owns: fp32, one-dimensional views of the live state."""

    name: str
    shape: tuple[int, ...]
    offset: int
    slots: dict[str, Tensor]


class Engine(Protocol):
    """One module with its optimizer.

    Attributes:
        name: Name of the module in the task.
        module: The module whose parameters are trained.
        replicated: Whether every rank holds all gradients and the whole optimizer state.
        partitioned_weights: Whether the ranks hold parts of the weights (ZeRO-3).
        updates: Number of optimizer steps so far.
        shapes: Shape of each trained parameter by name.
        average: Moving averages of the weights by name; empty without an average.
    """

    name: str
    module: nn.Module
    replicated: bool
    partitioned_weights: bool
    updates: int
    shapes: dict[str, tuple[int, ...]]
    average: dict[str, Tensor]

    def __init__(
        self, name: str, module: nn.Module, config: TrainingConfig, distributed: DistributedContext
    ) -> None:
        """Builds the optimizer of a module whose weights are equal on all ranks from then on."""
        ...

    def forward(self, loss: Callable[[], LossAndParts]) -> LossAndParts:
        """Returns one micro-batch's loss, which `loss` computes with the module."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Accumulates the gradient of one micro-batch's loss."""
        ...

    def gradients(self) -> list[Tensor]:
        """Returns the step's gradients that this rank owns, averaged over micro-batches and ranks."""
        ...

    def step(self, learning_rate: float) -> None:
        """Updates the weights with the gradients and clears these."""
        ...

    def fragments(self) -> list[Fragment]:
        """Returns the pieces of the parameters, moments and averages that this rank owns."""
        ...

    def loaded(self, updates: int) -> None:
        """Takes over the fragments that a checkpoint of this number of updates has been written into."""
        ...

    def close(self) -> None:
        """Lets go of the module and its optimizer; nothing else is called after it."""
        ...

    def constants(self) -> dict[str, Tensor]:
        """Returns the saved state that training does not change: buffers and frozen parameters."""
        ...

    def load_constants(self, constants: dict[str, Tensor]) -> None:
        """Copies the tensors of `constants` back, in place."""
        ...


class PlainEngine:
    """The engine without DeepSpeed: torch's AdamW, gradients averaged over ranks with one all-reduce."""

    replicated = True
    partitioned_weights = False

    def __init__(
        self, name: str, module: nn.Module, config: TrainingConfig, distributed: DistributedContext
    ) -> None:
        self.name, self.module, self.distributed = name, module, distributed
        self.updates = 0
        self.accumulation = config.micro_batches // distributed.size
        self.parameters = {key: p for key, p in module.named_parameters() if p.requires_grad}
        self.shapes = {key: tuple(p.shape) for key, p in self.parameters.items()}
        if distributed.size > 1:
            for tensor in list(module.parameters()) + list(module.buffers()):
                dist.broadcast(tensor.data, 0)
        self.optimizer = build_optimizer(module, config, distributed)
        for parameter in self.parameters.values():
            self.optimizer.state[parameter] = fresh_state(parameter)
        self.average = (
            {key: p.detach().clone() for key, p in self.parameters.items()} if config.ema_decay else {}
        )

    def forward(self, loss: Callable[[], LossAndParts]) -> LossAndParts:
        """Returns one micro-batch's loss."""
        return loss()

    def backward(self, loss: Tensor) -> None:
        """Accumulates the gradient of one micro-batch's loss."""
        (loss / self.accumulation).backward()

    def gradients(self) -> list[Tensor]:
        """Returns the gradients averaged over ranks; a parameter that the loss did not reach gets zeros."""
        gradients = filled_gradients(self.parameters.values())
        if self.distributed.size > 1:
            flat = (
                self.distributed.sum(torch.cat([gradient.flatten() for gradient in gradients]))
                / self.distributed.size
            )
            pieces = flat.split([gradient.numel() for gradient in gradients])
            for gradient, piece in zip(gradients, pieces, strict=True):
                gradient.copy_(piece.view_as(gradient))
        return gradients

    def step(self, learning_rate: float) -> None:
        """Updates the weights with the gradients as they are now."""
        set_learning_rate(self.optimizer, learning_rate)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1

    def fragments(self) -> list[Fragment]:
        """Returns every parameter whole: each rank holds all of them."""
        fragments = []
        for key, parameter in self.parameters.items():
            tensors = {"weight": parameter.data, **{m: self.optimizer.state[parameter][m] for m in MOMENTS}}
            if self.average:
                tensors["average"] = self.average[key]
            slots = {slot: tensor.view(-1) for slot, tensor in tensors.items()}
            fragments.append(Fragment(key, tuple(parameter.shape), 0, slots))
        return fragments

    def loaded(self, updates: int) -> None:
        """Takes over the fragments that a checkpoint has just written into."""
        self.updates = updates
        for state in self.optimizer.state.values():
            state["step"].fill_(updates)

    def close(self) -> None:
        """Does nothing: what is no longer referred to is freed."""

    def constants(self) -> dict[str, Tensor]:
        """Returns the buffers that are saved, and frozen parameters: what training does not move."""
        state = self.module.state_dict(keep_vars=True)
        return {key: value.detach() for key, value in state.items() if not value.requires_grad}

    def load_constants(self, constants: dict[str, Tensor]) -> None:
        """Copies saved constants back, in place."""
        for key, value in self.constants().items():
            value.copy_(constants[key])


def filled_gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """Returns all gradients; a parameter the loss did not reach gets zeros, as in ZeRO's flat partitions."""
    gradients = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    return gradients
