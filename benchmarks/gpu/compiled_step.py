"""Counts what a compiled training step starts: the kernels and library calls of its generated code.

    python benchmarks/gpu/compiled_step.py

The forward and the backward pass of `execution.compile=step` are compiled to code, for batches of any size;
no kernel of it is built: the graphs run operator by operator instead. The code is that for a CPU; for a GPU
the compiler joins operators by the same rules into Triton kernels. The quickstart model, 8 turns of 60 to 130
frames; its code takes minutes to make.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

# A call of a kernel of its own, of a library, or of an operator that the compiler leaves as it is.
CALL = re.compile(r"\b(cpp_fused|triton_|extern_kernels\.\w+|torch\.ops\.[\w.]+)\w*(?:\.run)?\(")


def launches(code: str) -> Counter[str]:
    """Returns the calls in the function `call` of generated code, by name."""
    return Counter(CALL.findall(code[code.index("def call(") :]))


@contextmanager
def generated() -> Iterator[list[str]]:
    """Gives the code of each graph that is compiled inside; the graph itself runs operator by operator."""
    from torch._inductor import config
    from torch._inductor.graph import GraphLowering

    found: list[str] = []

    def kept(self: Any) -> Any:
        found.append(self.codegen()[0].value)
        graph = self.module
        return SimpleNamespace(call=lambda arguments: graph.forward(*arguments), __file__="", key=None)

    patch = mock.patch.object(GraphLowering, "compile_to_module", kept)
    with patch, config.patch(fx_graph_cache=False):
        yield found


def main() -> None:
    from host_work import counted
    from training_steps import made_up_rows

    from csm.losses import ConversationTargets, LossConfig, conversational_loss
    from csm.model import CSMModel
    from csm.network import cross_entropy
    from csm.network.execution import compile_step
    from csm.recipes.telephone import TELEPHONE_MODEL

    torch.manual_seed(0)
    model = CSMModel(replace(TELEPHONE_MODEL, text="bytes", dropout=0.15, frame_dropout=0.25)).train()
    config = model.config
    model.set_code_vectors(torch.randn(config.num_codebooks, config.codebook_size, config.latent_dim))
    batch = made_up_rows(model, 8, seed=0)
    targets = ConversationTargets.of(batch, config.semantic_codebooks, model.code_vectors)

    def loss_of(output: Any) -> torch.Tensor:
        return conversational_loss(output, targets, LossConfig()).total

    output = model(batch=batch, label_smoothing=0.0)
    leaves = {key: part.detach().requires_grad_() for key, part in vars(output).items() if part is not None}
    with counted() as weighted:
        loss = loss_of(replace(output, **leaves))
        loss.backward()
    # As on a GPU, where the heads of all codebooks are one batched product.
    cross_entropy.TOGETHER, cross_entropy.CHUNK = True, cross_entropy.CUDA_CHUNK
    with counted() as plain:
        loss_of(model(batch=batch, label_smoothing=0.0)).backward()
    compile_step(model)
    start = time.perf_counter()
    inside: Counter[str] = Counter()
    whole = cross_entropy._sums_and_gradients

    def counting(*arguments: Any) -> Any:
        with counted() as found:
            result = whole(*arguments)
        inside.update(found.calls)
        return result

    with generated() as codes, mock.patch.object(cross_entropy, "_sums_and_gradients", counting):
        loss_of(model(batch=batch, label_smoothing=0.0)).backward()
    print(f"loss {float(loss.detach()):.3f}, with dropout; compiled in {time.perf_counter() - start:.0f} s")
    print(f"operator by operator: {sum(plain.calls.values())} calls")
    print(f"not compiled: {sum(weighted.calls.values())} calls of the weighted losses, forward and backward, "
          f"{sum(inside.values())} inside linear_cross_entropy")  # fmt: skip
    for name, code in zip(("forward", "backward"), codes, strict=True):
        counts = launches(code)
        most = ", ".join(f"{key.strip('_')} {n}" for key, n in counts.most_common(8))
        print(f"compiled, {name}: {sum(counts.values())} launches ({most})")


if __name__ == "__main__":
    main()
