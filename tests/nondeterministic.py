"""Refuses without CUDA what torch refuses on CUDA where deterministic algorithms are asked for."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

# Of those that torch.use_deterministic_algorithms lists, the ones that a network or its losses may ask for.
REFUSED = {"histc", "kthvalue", "nll_loss2d_forward", "put_", "upsample_linear1d_backward"}


class RefusesNondeterministic(TorchDispatchMode):
    """Raises RuntimeError at an operator without a deterministic form, as running sums of floats."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        kind = (kwargs or {}).get("dtype") or getattr(args[0] if args else None, "dtype", None)
        floats = kind is not None and (kind.is_floating_point or kind.is_complex)
        if name in REFUSED or (name == "cumsum" and floats) or (name == "bincount" and len(args) > 1):
            raise RuntimeError(f"{function} has no deterministic form on CUDA")
        return function(*args, **(kwargs or {}))
