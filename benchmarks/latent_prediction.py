"""How much of a tokenizer's acoustic latents can be predicted from what was decoded before.

    python benchmarks/latent_prediction.py --tokenizer runs/wideband/tokenizer --corpus data/amazon_queen

What is predicted need not be quantized. Linear predictions, and the network by which the tokenizer predicts,
are fitted on turns of the train split and tested on the held-out speakers that the corpus names.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from csm.data.manifest import Corpus, Turn, read_corpus
from csm.data.turn_audio import read_turn
from csm.system.log import progress_of
from csm.tokenizer import ConversationalRVQ
from csm.tokenizer.latent_prediction import LatentPrediction, fit_prediction
from csm_kernels import rvq_search

SUMS, LATENTS, HIDDEN = 5, 2, 512


def drawn(corpus: Corpus, held_out: bool, count: int) -> list[Turn]:
    """Returns turns of 2 to 6 s of held-out speakers, or of the train split."""
    strangers = corpus.held_out_speakers()
    turns = corpus.turns() if held_out else corpus.turns("train")
    found = [turn for turn in turns if (turn.speaker in strangers) == held_out and 2 < turn.duration < 6]
    return [found[int(place)] for place in np.random.default_rng(0).permutation(len(found))[:count]]


def before(rows: Tensor, first: int, last: int) -> Tensor:
    """Returns [T, N D]: the rows `first` to `last` frames before each; zeros before the turn."""
    return torch.cat(
        [torch.cat([rows.new_zeros(n, rows.shape[1]), rows])[: len(rows)] for n in range(first, last + 1)], 1
    )


@torch.no_grad()
def measured(
    tokenizer: ConversationalRVQ, corpus: Corpus, turns: Sequence[Turn]
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns latents, semantic sums of SUMS frames, and latents of the LATENTS frames before, end to end."""
    config, parts = tokenizer.config, []
    for turn in progress_of(turns, "latents", len(turns), unit="turn"):
        audio = read_turn(corpus, turn, config.sample_rate)
        audio = audio[:, : audio.shape[1] // config.samples_per_frame * config.samples_per_frame]
        latent, rows = tokenizer.encoder(audio)[0][0], tokenizer.semantic_rows(audio)
        if rows is None:
            raise ValueError(
                "the tokenizer has no semantic encoder: expected one of the recipe wideband_tokenizer"
            )
        sums = rvq_search(rows[0].float(), tokenizer.quantizer.semantic.codebooks).quantized
        parts.append((latent, before(sums, 0, SUMS - 1), before(latent, 1, LATENTS)))
    return (
        torch.cat([p[0] for p in parts]),
        torch.cat([p[1] for p in parts]),
        torch.cat([p[2] for p in parts]),
    )


def explained(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Returns R squared on `test` of the ridge regression fitted on `train`, each (inputs, targets)."""
    (x, y), (x_test, y_test) = ([part.double() for part in pair] for pair in (train, test))
    mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
    centred = x - mean_x
    ridge = 1e-2 * len(x) * centred.var() * torch.eye(x.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(centred.T @ centred + ridge, centred.T @ (y - mean_y))
    left = y_test - mean_y - (x_test - mean_x) @ weight
    return 1 - float(left.square().sum() / (y_test - mean_y).square().sum())


def explained_by_network(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], frames: int, hidden: int
) -> float:
    """Returns R squared on `test` of a `LatentPrediction` fitted on `train`, each (windows, latents)."""
    (x, y), (x_test, y_test) = train, test
    torch.manual_seed(0)
    prediction = LatentPrediction(x.shape[1] // frames, y.shape[1], frames=frames, hidden=hidden)
    fit_prediction(prediction, x, y, torch.Generator().manual_seed(0))
    with torch.no_grad():
        left = y_test - prediction.predicted(x_test)
    return 1 - float(left.square().sum() / (y_test - y.mean(dim=0)).square().sum())


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", required=True, help="folder of a tokenizer with a semantic encoder")
    parser.add_argument("--corpus", required=True, help="folders of prepared corpora, with commas between")
    parser.add_argument("--turns", type=int, default=400, help="turns to fit on (default: 400)")
    options = parser.parse_args()
    tokenizer, corpus = ConversationalRVQ.from_pretrained(options.tokenizer), read_corpus(options.corpus)
    y, sums, past = measured(tokenizer, corpus, drawn(corpus, False, options.turns))
    y_test, sums_test, past_test = measured(tokenizer, corpus, drawn(corpus, True, 60))
    width = tokenizer.config.codebook_dim
    rows = {
        "the frame's semantic sum": (sums[:, :width], sums_test[:, :width]),
        f"the semantic sums of {SUMS} frames, none later": (sums, sums_test),
        f"the latents of the {LATENTS} frames before": (past, past_test),
        f"the semantic sums of {SUMS} frames and those latents": (
            torch.cat([sums, past], 1),
            torch.cat([sums_test, past_test], 1),
        ),
    }
    print("| predicted from | R squared |\n|---|---|")
    for name, (x, x_test) in rows.items():
        print(f"| {name} | {explained((x, y), (x_test, y_test)):.3f} |")
    for frames in (1, SUMS):
        train, test = (sums[:, : frames * width], y), (sums_test[:, : frames * width], y_test)
        share = explained_by_network(train, test, frames, HIDDEN)
        print(f"| a network of {HIDDEN} hidden units: the semantic sums of {frames} frames | {share:.3f} |")


if __name__ == "__main__":
    main()
