"""Products of Triton's interpreter with the rounding of a GPU's fused multiply-adds."""

import numpy as np
import pytest
import torch

try:
    from triton.runtime import interpreter
except ModuleNotFoundError:  # triton is for Linux alone
    interpreter = None


@pytest.fixture(autouse=True, scope="session")
def products_in_the_order_of_k():
    """Adds up fp32 products one k after another, each rounded once, as `input_precision="ieee"` compiles.

    The interpreter asks numpy, whose BLAS may round an element by its place in the tile: OpenBLAS does on
    processors without AVX-512, and tests of kernels compare bits.
    """
    if interpreter is None or torch.cuda.is_available():
        yield
        return
    builder = interpreter.InterpreterBuilder
    create_dot, create_fma = builder.create_dot, builder.create_fma

    def ordered(self, a, b, d, input_precision, max_num_imprecise_acc):
        if not a.data.dtype == b.data.dtype == d.data.dtype == np.float32:
            return create_dot(self, a, b, d, input_precision, max_num_imprecise_acc)
        sums = d.data
        with np.errstate(all="ignore"):
            for k in range(a.data.shape[-1]):
                # A product of fp32 is exact in float64.
                product = a.data[..., k, None].astype(np.float64) * b.data[..., k, None, :]
                sums = (product + sums).astype(np.float32)
        return interpreter.TensorHandle(sums, d.dtype.scalar)

    def fused(self, x, y, z):
        if not x.data.dtype == y.data.dtype == z.data.dtype == np.float32:
            return create_fma(self, x, y, z)
        with np.errstate(all="ignore"):
            total = x.data.astype(np.float64) * y.data + z.data
            return interpreter.TensorHandle(total.astype(np.float32), z.dtype.scalar)

    builder.create_dot, builder.create_fma = ordered, fused
    yield
    builder.create_dot, builder.create_fma = create_dot, create_fma
