"""Several utterances at once, made together or one by one: real-time factors in interleaved rounds.

    python benchmarks/shared_steps.py [--voice FOLDER] [--device cuda] [--sizes 1 2 4 8] [--rounds 5]

A real-time factor is the time in which all utterances of a size are made, divided by the length of one. Time
is the process's own on a CPU, so that other programs count little, and the clock's on a GPU. Both ways run in
every round, in random order; ratios are taken within a round. Utterances have seeds of their own.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from csm.generation.shared_speech import SharedSteps
from csm.generation.talker import Talker

TEXT = "I had a plane to catch."


def made_together(talker: Talker, count: int) -> float:
    """Makes utterances at once, a chunk of each at a time; returns the seconds of audio of all."""
    samples, streams = 0, [talker.generate(TEXT, seed=seed, stream=True) for seed in range(count)]
    while streams:
        chunks = [next(stream, None) for stream in streams]
        streams = [stream for stream, chunk in zip(streams, chunks, strict=True) if chunk is not None]
        samples += sum(chunk.shape[1] for chunk in chunks if chunk is not None)
    return samples / talker.tokenizer.config.sample_rate


def made_one_by_one(talker: Talker, count: int) -> float:
    """Makes the same utterances one after the other; returns the seconds of audio of all."""
    chunks = [c for seed in range(count) for c in talker.generate(TEXT, seed=seed, stream=True)]
    return sum(chunk.shape[1] for chunk in chunks) / talker.tokenizer.config.sample_rate


def factor(make: Callable[[Talker, int], float], talker: Talker, count: int) -> float:
    """Returns the real-time factor of all utterances."""
    clock = time.process_time if talker.tokenizer.device.type == "cpu" else time.perf_counter
    began = clock()
    audio = make(talker, count)
    return (clock() - began) * count / audio


def main() -> None:
    """Prints a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--voice", type=Path, metavar="FOLDER", help="(default: the packaged voice)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8], metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    options = parser.parse_args()
    torch.set_num_threads(1)
    talker = Talker.from_pretrained(options.voice)
    talker.model.to(options.device), talker.tokenizer.to(options.device)
    together = replace(talker, shared=SharedSteps(talker.tokenizer, thread=False))
    ways = {"together": (made_together, together), "one by one": (made_one_by_one, talker)}
    for make, speaker in ways.values():
        make(speaker, 1)
    shuffle = random.Random(0).shuffle
    for size in options.sizes:
        factors: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            order = list(ways)
            shuffle(order)
            for name in order:
                factors[name].append(factor(*ways[name], size))
        ratios = [after / before for before, after in zip(*factors.values(), strict=True)]
        shared, alone = (statistics.median(values) for values in factors.values())
        print(
            f"{size} at once: together {shared:.2f} of real time, one by one {alone:.2f}; one by one "
            f"over together {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
