"""Peak memory of a training step at ratio 1, ours and transformers', each in its own process.

The figure is the growth of the resident set after the imports.
"""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # the child process runs this file as a script

from test_training_step import PEER, batch_of, our_loss, padded, step, their_loss, theirs  # noqa: E402, F401

from csm.model import CSMModel  # noqa: E402
from csm.network.execution import ExecutionConfig, apply_execution  # noqa: E402
from csm.system.host_memory import keep_freed_memory  # noqa: E402

RECOMPUTED = "csm recomputed"
STEPS, LENGTHS = 3, (256, 256)


def resident() -> int:
    """Returns the resident set of this process in bytes."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def grown(name: str, folder: str) -> int:
    """Runs the steps of one contender; returns the growth of this process in bytes."""
    keep_freed_memory()
    if name == PEER:
        import transformers

        before = resident()
        batch, _ = batch_of(CSMModel.from_pretrained(folder, text="bytes"), LENGTHS, 1.0)
        model = transformers.CsmForConditionalGeneration.from_pretrained(folder).train()
        inputs = padded(batch)
        trained = [p for n, p in model.named_parameters() if not n.startswith("codec_model")]
        optimizer = torch.optim.AdamW(trained, 1e-6, fused=True)
        for _ in range(STEPS):
            step(optimizer, lambda: their_loss(model, inputs))
    else:
        before = resident()
        model = CSMModel.from_pretrained(folder, text="bytes").train()
        apply_execution(model, ExecutionConfig(checkpoint_layers=name == RECOMPUTED), zero_stage=0)
        batch, _ = batch_of(model, LENGTHS, 1.0)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-6, fused=True)
        for _ in range(STEPS):
            step(optimizer, lambda: our_loss(model, batch, half=False))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


@pytest.mark.parametrize("name", ["csm", RECOMPUTED, PEER])
def test_peak_memory(name, benchmark, theirs):  # noqa: F811
    """Reports `peak_megabytes`; the reported time is that of the whole process and has no meaning."""
    benchmark.group = "model step, 2 x 256 frames, ratio 1: peak memory"
    _, folder = theirs

    def run() -> None:
        command = [sys.executable, __file__, name, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        benchmark.extra_info["peak_megabytes"] = int(done.stdout.split()[-1]) // 10**6

    benchmark.pedantic(run, rounds=1)
    print(f"{name}: peak {benchmark.extra_info['peak_megabytes']} MB")


if __name__ == "__main__":
    print(grown(*sys.argv[1:]))
