"""What bits and dimensions bound a tokenizer that quantizes frames of magnitudes one by one.

    python benchmarks/codec_bound.py --corpus data/amazon_queen

The start of the packaged tokenizer at 11 kHz is linear: the compressed magnitudes of a codec frame, weighted
by audibility, projected to principal components. For Gaussian components of these variances
Shannon's rate-distortion function says how much of the weighted variance any quantizer of a
given number of bits must lose ("reverse water-filling", Cover & Thomas 2006, section 10.3.3); the
components beyond the width of the codebooks are lost whole. A decoder that predicts from earlier
frames can lose less.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from numpy.typing import NDArray

from csm.data.manifest import Corpus, read_corpus
from csm.data.turn_audio import read_turn
from csm.system.log import progress_of
from csm.tokenizer import presets
from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.spectrum import SpectralFrames
from csm.tokenizer.training.spectral_losses import audibility

BITS, WIDTHS = (60, 120, 220, 320), (64, 128, 192, 256, 512)


def variances(corpus: Corpus, config: TokenizerConfig, turns: int, seed: int) -> NDArray[np.float64]:
    """Returns the variances of the principal components of frames, the largest first."""
    spectrum = SpectralFrames(config.hop, config.window_hops)
    weight = audibility(config.sample_rate, spectrum.window_length).sqrt().repeat(config.hops_per_frame)
    found = [turn for turn in corpus.turns("train") if turn.duration > 1]
    chosen = np.random.default_rng(seed).permutation(len(found))[:turns]
    frames = []
    for place in progress_of(chosen, "frames", len(chosen), unit="turn"):
        waveform = read_turn(corpus, found[int(place)], config.sample_rate)
        whole = waveform[:, : waveform.shape[1] // config.samples_per_frame * config.samples_per_frame]
        compressed = spectrum.compressed(spectrum(whole))[0]
        frames.append(compressed.unflatten(0, (-1, config.hops_per_frame)).flatten(1))
    rows = (torch.cat(frames) * weight).double()
    rows -= rows.mean(dim=0)
    values: NDArray[np.float64] = torch.linalg.eigvalsh(rows.T @ rows / len(rows)).numpy()
    return values[::-1].clip(0)


def lost(values: NDArray[np.float64], bits: float, width: int) -> float:
    """Returns the share of the variance that `bits` a frame over the first `width` components must lose."""
    kept = values[:width]
    low, high = 1e-12 * kept[0], kept[0]
    for _ in range(100):
        level = (low * high) ** 0.5
        if 0.5 * np.log2(np.maximum(kept / level, 1)).sum() > bits:
            low = level
        else:
            high = level
    return float((np.minimum(kept, high).sum() + values[width:].sum()) / values.sum())


def main() -> None:
    """Prints a table: bits a frame by width of the codebooks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", required=True, help="folders of prepared corpora, with commas between")
    parser.add_argument("--turns", type=int, default=440, help="turns to measure (default: 440)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    values = variances(read_corpus(options.corpus), presets.quickstart(), options.turns, options.seed)
    print("| bits a frame | " + " | ".join(f"{width} components" for width in WIDTHS) + " |")
    print("|---" * (len(WIDTHS) + 1) + "|")
    print(
        "| unquantized | " + " | ".join(f"{1 - values[:w].sum() / values.sum():.3f}" for w in WIDTHS) + " |"
    )
    for bits in BITS:
        print(f"| {bits} | " + " | ".join(f"{lost(values, bits, width):.3f}" for width in WIDTHS) + " |")


if __name__ == "__main__":
    main()
