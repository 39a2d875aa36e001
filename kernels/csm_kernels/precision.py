"""Matrix products as written: no autocast, no TF32, no bf16 operands behind an fp32 product."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Inside, a product of fp32 matrices on `device` is an fp32 product, whatever the caller has switched on.

    Autocast stays active inside a custom operation, and `torch.set_float32_matmul_precision("medium")` turns
    fp32 products into bf16 ones on the CPU too. Both change up to 90 % of residual codes.

    Args:
        device: Where the products run.
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
