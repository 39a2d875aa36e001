"""How much of a search its scan leaves for fp32, which no GPU is needed to count.

    python benchmarks/gpu/scored_again.py           random codebooks, as kernel_times.py has them
    python benchmarks/gpu/scored_again.py --tokenizer FOLDER --corpus FOLDER      those of a tokenizer

Scores are those of fp32: a scan differs from them by far less than its error. A row is unsettled where
another code lies within twice the error of the least score; of its tile of 64 rows every group of 16 codes
that holds such a code is scored again, and all groups where two of them share a lane.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from shapes import SearchShape
from torch import Tensor

ROWS, LANES, GROUP = 64, 64, 16  # csm_kernels.rvq_search.triton_kernel


def scan_error(squares: Tensor, largest: Tensor, width: int) -> Tensor:
    """`_scan_error` of the kernel, without what is for the ends of fp32."""
    row, code = squares.sqrt() * 1.001, largest.sqrt() * 1.001
    return row * code * (2.0**-16 + width * 1.5 * 2.0**-22) + (row * code + code * code) * 2.0**-22


def counted(x: Tensor, codebooks: Tensor) -> tuple[float, float, float]:
    """Returns the shares of rows and tiles that are unsettled, and groups scored again a tile and level."""
    rows = tiles = groups = 0.0
    for codebook in codebooks:
        norms = 0.5 * codebook.square().sum(1)
        scores = norms - x @ codebook.T
        limit = scores.amin(1) + 2 * scan_error(x.square().sum(1), 2 * norms.max(), x.shape[1])
        near = scores <= limit[:, None]
        near &= near.sum(1, keepdim=True) > 1
        rows += float(near.any(1).float().mean())
        for tile in near.split(ROWS):
            lanes = torch.nn.functional.pad(tile, (0, -tile.shape[1] % LANES)).unflatten(1, (-1, LANES))
            wanted = lanes.unflatten(2, (-1, GROUP)).any(3).any(0)
            crowded = bool((lanes.sum(1) > 1).any())
            tiles += float(tile.any()) * ROWS / len(x)
            groups += float(wanted.numel() if crowded else wanted.sum()) * ROWS / len(x)
        x = x - codebook[scores.argmin(1)]
    levels = len(codebooks)
    return rows / levels, tiles / levels, groups / levels


def random_case(shape: SearchShape) -> tuple[Tensor, Tensor]:
    """Returns rows and codebooks of kernel_times.py."""
    from kernel_times import quantizer

    return quantizer(shape, torch.device("cpu"))


@torch.no_grad()
def tokenizer_case(folder: Path, corpus: Path, turns: int) -> tuple[Tensor, Tensor]:
    """Returns the acoustic latents of turns and the acoustic codebooks of a tokenizer."""
    from csm.data.manifest import read_corpus
    from csm.data.turn_audio import read_turn
    from csm.tokenizer import quantizer
    from csm.tokenizer.conversational_rvq import ConversationalRVQ

    tokenizer, found = ConversationalRVQ.from_pretrained(folder), read_corpus(corpus)
    codebooks, given = tokenizer.quantizer.acoustic.codebooks, []
    search = quantizer.rvq_search

    def recorded(x: Tensor, books: Tensor, *rest, **options):
        if books.data_ptr() == codebooks.data_ptr():
            given.append(x)
        return search(x, books, *rest, **options)

    quantizer.rvq_search = recorded
    for turn in found.turns("test")[:turns]:
        tokenizer.encode(read_turn(found, turn, tokenizer.config.sample_rate)[None])
    quantizer.rvq_search = search
    return torch.cat(given), codebooks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokenizer", type=Path, help="count a tokenizer's latents instead of random rows")
    parser.add_argument("--corpus", type=Path, help="corpus whose held-out turns give the latents")
    parser.add_argument("--turns", type=int, default=60)
    options = parser.parse_args()
    print("| rows, codebooks | rows unsettled | tiles | groups a tile and level | of all codes |")
    print("|---|---|---|---|---|")
    if options.tokenizer:
        cases = {options.tokenizer.name: tokenizer_case(options.tokenizer, options.corpus, options.turns)}
    else:
        shapes = SearchShape(4096, 128, 1024, 32), SearchShape(4096, 256, 2048, 8)
        cases = {shape.title: random_case(shape) for shape in shapes}
    for name, (x, codebooks) in cases.items():
        rows, tiles, groups = counted(x, codebooks)
        share = groups * GROUP / codebooks.shape[1]
        print(f"| {name} | {rows:.2%} | {tiles:.1%} | {groups:.2f} | {share:.2%} |")


if __name__ == "__main__":
    main()
