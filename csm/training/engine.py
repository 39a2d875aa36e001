"""Optimizer steps. The only file that imports deepspeed.

An engine wraps one module. `DeepSpeedEngine` and `PlainEngine` have the same methods and, in fp32, the same
losses; the loop uses either. Both expose their state as *fragments*: one-dimensional views of the pieces of
parameters, moments and averages that this rank owns, in fp32. Clipping, the check for finite gradients,
the weight average and the checkpoint work on fragments, whatever ZeRO has partitioned.
"""

from __future__ import annotations

import atexit
import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from csm.system.log import log
from csm.training.distributed import DistributedContext, leave_distributed
from csm.training.optimizer import MOMENTS, build_optimizer, fresh_state, set_learning_rate
from csm.training.options import TrainingConfig
from csm.training.plain_engine import Engine, Fragment, LossAndParts, PlainEngine, filled_gradients


class DeepSpeedEngine:
    """The engine with DeepSpeed's ZeRO: stage 0 to 3, fp32 weights and moments, reduction in fp32.

    DeepSpeed averages the gradients and updates the partitions; clipping is done here, because its own clips
    differently in stage 0 than in stages 1 to 3.
    """

    def __init__(
        self, name: str, module: nn.Module, config: TrainingConfig, distributed: DistributedContext
    ) -> None:
        deepspeed = _import_deepspeed(distributed)
        self.name, self.module, self.distributed, self.stage = name, module, distributed, config.zero_stage
        self.offloaded = config.offload != "none"
        self.replicated, self.partitioned_weights = config.zero_stage == 0, config.zero_stage == 3
        self.updates = 0
        self.parameters = {key: p for key, p in module.named_parameters() if p.requires_grad}
        self.shapes = {key: tuple(p.shape) for key, p in self.parameters.items()}
        self.optimizer = build_optimizer(module, config, distributed)
        self.engine, self.zero, _, _ = deepspeed.initialize(
            model=_LossModule(module),
            optimizer=self.optimizer,
            config=deepspeed_config(module, config, distributed),
        )
        for flat in self._flat_parameters():
            self.optimizer.state[flat] = fresh_state(flat)
        self.average = {}
        if config.ema_decay:
            self.average = {fragment.name: fragment.slots["weight"].clone() for fragment in self.fragments()}

    def close(self) -> None:
        """Removes DeepSpeed's hooks: they refer to the module out of reach of Python's garbage collector."""
        self.engine.destroy()

    def forward(self, loss: Callable[[], LossAndParts]) -> LossAndParts:
        """Returns one micro-batch's loss; in it the module may be called in any way, any number of times."""
        return self.engine(loss)

    def backward(self, loss: Tensor) -> None:
        """Accumulates the gradient of one micro-batch's loss; the last call of a step averages over ranks."""
        self.engine.backward(loss)
        # DeepSpeed counts micro-batches in step(), which before the last one does nothing else.
        if not self.engine.is_gradient_accumulation_boundary():
            self.engine.step()

    def gradients(self) -> list[Tensor]:
        """Returns this rank's partition of the step's gradients, averaged over ranks."""
        if self.stage == 0:
            return filled_gradients(self.parameters.values())
        if self.offloaded:
            if self.distributed.device.type == "cuda":
                torch.cuda.synchronize()  # they are copied to the host without waiting
            return [flat.grad for flat in self._flat_parameters() if flat.grad is not None]
        return [piece for pieces in self.zero.averaged_gradients.values() for piece in pieces]

    def step(self, learning_rate: float) -> None:
        """Updates the weights with the gradients as they are now."""
        set_learning_rate(self.optimizer, learning_rate)
        self.engine.step()
        if self.offloaded:
            # DeepSpeed keeps these buffers: what the next loss does not reach must not be updated again.
            for flat in self._flat_parameters():
                if flat.grad is not None:
                    flat.grad.zero_()
        self.updates += 1

    def fragments(self) -> list[Fragment]:
        """Returns the pieces of parameters that ZeRO has given to this rank."""
        fragments = []
        for key, parameter in self.parameters.items():
            located = self._locate(parameter)
            if located is not None:
                offset, slots = located
                if key in self.average:
                    slots["average"] = self.average[key]
                fragments.append(Fragment(key, self.shapes[key], offset, slots))
        return fragments

    def loaded(self, updates: int) -> None:
        """Takes over the fragments that a checkpoint has just written into."""
        self.updates = updates
        for state in self.optimizer.state.values():
            state["step"].fill_(updates)
        if self.stage in (1, 2):
            self.zero.update_lp_params()
        elif self.stage == 3:
            for parameter in self.parameters.values():
                cast(Any, parameter).ds_tensor.data.copy_(self.zero.get_local_fp32_param(parameter))
            if self.zero.persistent_parameters:
                self.zero.persistent_parameters[0].partition(self.zero.persistent_parameters)
                self.zero.persistent_parameters[0].all_gather(self.zero.persistent_parameters)

    def constants(self) -> dict[str, Tensor]:
        """Returns the buffers that are saved, and frozen parameters: what training does not move.

        Under ZeRO-3 every rank must call this: frozen parameters are gathered.
        """
        state = self.module.state_dict(keep_vars=True)
        kept = {key: value for key, value in state.items() if not value.requires_grad}
        frozen = [value for value in kept.values() if hasattr(value, "ds_id")]
        if not frozen:
            return {key: value.detach() for key, value in kept.items()}
        with _import_deepspeed(self.distributed).zero.GatheredParameters(frozen):
            return {key: value.detach().clone() for key, value in kept.items()}

    def load_constants(self, constants: dict[str, Tensor]) -> None:
        """Copies saved buffers back, in place; frozen parameters under ZeRO-3 stay as the task made them."""
        for key, value in self.module.state_dict(keep_vars=True).items():
            if not value.requires_grad and not hasattr(value, "ds_id"):
                value.detach().copy_(constants[key])

    def _flat_parameters(self) -> list[Tensor]:
        """Returns what AdamW updates: the parameters (stage 0) or this rank's flat partitions of them."""
        if self.stage == 0:
            return list(self.parameters.values())
        return (
            self.zero.fp32_partitioned_groups_flat
            if self.stage == 3
            else self.zero.single_partition_of_fp32_groups
        )

    def _locate(self, parameter: Any) -> tuple[int, dict[str, Tensor]] | None:
        """Returns (offset in the parameter, views of weight and moments), or None: nothing of it is here."""
        if self.stage == 0:
            flat, start, count, offset = parameter.data.view(-1), 0, parameter.numel(), 0
            state = self.optimizer.state[parameter]
        elif self.stage == 3:
            group, start, count = self.zero.grad_position[self.zero.get_param_id(parameter)]
            offset = self.distributed.rank * count
            count = min(count, parameter.ds_numel - offset)  # the last rank's piece is padded
            flat = self.zero.fp32_partitioned_groups_flat[group]
            state = self.optimizer.state[flat]
        else:
            piece = parameter._hp_mapping
            if piece is None:
                return None
            start, count = piece.hp_fragment_address.start, piece.hp_fragment_address.numel
            offset = piece.lp_fragment_address.start
            flat = self.zero.single_partition_of_fp32_groups[piece.param_group_index]
            state = self.optimizer.state[flat]
        if count <= 0:
            return None
        tensors = {"weight": flat.data, **{moment: state[moment] for moment in MOMENTS}}
        return offset, {slot: tensor.view(-1).narrow(0, start, count) for slot, tensor in tensors.items()}


class _LossModule(nn.Module):
    """The module that DeepSpeed wraps: its only output is the loss.

    DeepSpeed prepares ZeRO's backward pass by hooks on the outputs of forward, and finds tensors, tuples,
    lists and dicts only. Given the module itself it would miss outputs in a dataclass and calls of other
    methods, and reduce no gradient.

    ZeRO-3 gathers a parameter that is read outside its own module's forward when it is read, and again before
    the backward pass of the module that read it, which it learns from that module's outputs. What the wrapped
    module reads so is therefore held by this one.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, loss: Callable[[], LossAndParts]) -> LossAndParts:
        result = loss()
        read_outside = vars(self.module).get("_external_params")
        if read_outside:
            vars(self)["_external_params"].update(read_outside)
            read_outside.clear()
        return result


def deepspeed_config(
    module: nn.Module, config: TrainingConfig, distributed: DistributedContext
) -> dict[str, Any]:
    """Derives DeepSpeed's configuration; nothing in it is set anywhere else."""
    bucket = bucket_elements([p.numel() for p in module.parameters() if p.requires_grad])
    zero: dict[str, Any] = {"stage": config.zero_stage, "reduce_bucket_size": bucket, "overlap_comm": False}
    if config.zero_stage in (1, 2):
        # With offloading DeepSpeed does not let its own norm be switched off.
        zero.update(allgather_bucket_size=bucket, compute_grad_norm=config.offload != "none")
    if config.zero_stage == 3:
        # Parameters below are kept whole on every rank: norms, at any size of model. DeepSpeed's own 100,000
        # is the same for csm-1b, but would keep a small model whole: tests would not see what is cut.
        zero["stage3_param_persistence_threshold"] = sum(p.numel() for p in module.parameters()) // 10_000
    host = {"device": "cpu", "pin_memory": distributed.device.type == "cuda"}
    if config.offload != "none":
        zero["offload_optimizer"] = host
    if config.offload == "all":
        zero["offload_param"] = host
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": config.micro_batches // distributed.size,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "gradient_clipping": 0.0,
        "steps_per_print": 10**9,
    }


def bucket_elements(numbers: Sequence[int]) -> int:
    """Returns how many gradient elements are reduced at a time, for trained parameters of these sizes."""
    # DeepSpeed's default of 5e8 elements would allocate 2 GB for the smallest module.
    bucket = max(max(numbers), min(sum(numbers), 50_000_000))
    return -(-bucket // 1024) * 1024  # it asks for an even number


def deepspeed_installed() -> bool:
    """Returns whether the package deepspeed can be found, without importing it."""
    return importlib.util.find_spec("deepspeed") is not None


def _import_deepspeed(distributed: DistributedContext) -> Any:
    if distributed.device.type == "cpu":
        # The documented choice of accelerator: without it DeepSpeed takes a GPU it finds, or warns of none.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("LOCAL_RANK", "0")
    import deepspeed
    import deepspeed.ops
    from deepspeed.utils import logger

    logger.setLevel(logging.WARNING)
    logger.addFilter(_worth_saying)
    # DeepSpeed 0.19 calls two collectives by their old names, thousands of times.
    warnings.filterwarnings("ignore", message=".*torch.distributed.* is deprecated", category=FutureWarning)
    # Else init builds a shared-memory op with gcc: a minute where there is a compiler, a failure elsewhere.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not dist.is_initialized():
        backend = "nccl" if distributed.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        atexit.register(leave_distributed)
    return deepspeed


def _worth_saying(record: logging.LogRecord) -> bool:
    # The first is said of every optimizer class that DeepSpeed has no list entry for; tests hold ours equal
    # to torch's. The second of outputs in a dataclass: see _LossModule.
    known = ("ZeRO with an untested optimizer", "A module has unknown inputs or outputs type")
    return not any(words in record.getMessage() for words in known)


def build_engines(
    modules: dict[str, nn.Module], config: TrainingConfig, distributed: DistributedContext
) -> dict[str, Engine]:
    """Moves each module to the device and wrap it, with DeepSpeed where it is installed."""
    if config.micro_batches % distributed.size:
        raise ValueError(
            f"micro_batches is {config.micro_batches}: expected a multiple of the {distributed.size} ranks; "
            f"set training.micro_batches"
        )
    if deepspeed_installed():
        kind: type[Engine] = DeepSpeedEngine
    else:
        kind = PlainEngine
        log.info("deepspeed is not installed: training with plain torch (the same losses, no ZeRO)")
    return {
        name: kind(name, module.to(distributed.device), config, distributed)
        for name, module in modules.items()
    }


@contextmanager
def trained_alone(engines: dict[str, Engine], name: str) -> Iterator[None]:
    """Lets gradients flow into the parameters of one engine only: other modules serve as fixed functions."""
    others = [
        p for other in engines if other != name for p in engines[other].module.parameters() if p.requires_grad
    ]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)
