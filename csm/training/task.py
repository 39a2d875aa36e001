"""Interface between the training loop and what it trains."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn


class Task(Protocol):
    """What is trained. Steps count from 1; micro-batches from 0 to `TrainingConfig.micro_batches` - 1.

    A task whose progress can be listened to has the methods of `csm.training.samples.Audible` too.

    Attributes:
        modules: The modules in the order of their updates; same initial weights on every rank.
        learning_rate_scales: Factor on the learning rate per module; a module left out has 1.
        headline: Names of the training metrics in the line of a report, the loss first.
        watched: Name of the validation metric beside them.
    """

    modules: dict[str, nn.Module]
    learning_rate_scales: dict[str, float]
    headline: tuple[str, ...]
    watched: str

    def batch(self, step: int, micro_batch: int) -> Any:
        """Returns one micro-batch, on the CPU: a pure function of (seed, step, micro-batch).

        It must not draw from the global random generators. Tensors, dicts of them and anything with `.to`
        are moved to the device.
        """
        ...

    def batch_ids(self, batch: Any) -> list[str]:
        """Names the batch's items, for the message when a loss is not finite."""
        ...

    def frames(self, batch: Any) -> Tensor:
        """Returns the number of codec frames in a batch, for the speed in a report."""
        ...

    def loss(self, name: str, module: Any, batch: Any, step: int) -> tuple[Tensor, dict[str, Tensor]] | None:
        """Returns (loss, named parts) of one micro-batch; the step's loss is the mean over micro-batches.

        `module` is `modules[name]`; call it in any way. The parameters of the other modules are frozen
        meanwhile. None, on every micro-batch alike, means that this module is not updated in this step.
        """
        ...

    def after_step(self, step: int) -> dict[str, Tensor] | None:
        """Updates buffers once per step, on every rank (any communication is the task's); returns metrics."""
        ...

    def validate(self, step: int) -> dict[str, float]:
        """Returns validation metrics; modules are in eval mode, without gradients.

        Called before the first step as step 0. Called on rank 0 while the others wait; under ZeRO-3 on every
        rank, so it must not write files.
        """
        ...
