"""fp32 matrix products without autocast, TF32 or bf16 operands."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Computes products of fp32 matrices on `device` in fp32, under any setting of the caller.

    Autocast stays active inside a custom operation, and `torch.set_float32_matmul_precision("medium")` turns
    fp32 products into bf16 ones on the CPU too. Both change up to 90 % of residual codes.

    Args:
        device: Device of the products.
    """
    with torch.autocast(device.type, enabled=False):
        backend: Any = torch.backends.cuda.matmul if device.type == "cuda" else torch.backends.mkldnn
        backend = getattr(backend, "matmul", backend)
        if hasattr(backend, "fp32_precision"):  # torch >= 2.9
            before = backend.fp32_precision
            if before in ("none", "ieee"):
                yield
                return
            backend.fp32_precision = "ieee"
            try:
                yield
            finally:
                backend.fp32_precision = before
            return
        legacy = torch.get_float32_matmul_precision()
        if legacy == "highest":
            yield
            return
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(legacy)
