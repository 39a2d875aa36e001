"""Freed memory is kept for the next step, and given back once a process has grown without need."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from csm.system.host_memory import KeptMemory, resident_memory

ROOT = Path(__file__).resolve().parents[2]
GROWN = """
import torch
from csm.system.host_memory import KeptMemory, keep_freed_memory, resident_memory
assert keep_freed_memory()
kept = KeptMemory()
first = kept.look(), resident_memory()
# Two of three tensors are freed: the holes between those that live belong to the heap.
tensors = [torch.ones(1 << 18) for _ in range(2100)]
alive = tensors[::3]
del tensors
held = resident_memory()
second, after = kept.look(), resident_memory()
print(first[0], second, kept.look(), held - first[1] > 2e9, held - after > 1.2e9, sum(map(len, alive)))
"""


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_holes_in_the_heap_are_given_back_once_they_are_many() -> None:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    done = subprocess.run(
        [sys.executable, "-c", GROWN],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "True", "False", "True", "True", str(700 << 18)]


def test_a_process_of_its_usual_size_keeps_what_it_has() -> None:
    kept = KeptMemory()
    assert not kept.look() and not kept.look()
    assert resident_memory() >= 0
