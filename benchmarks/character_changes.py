"""How often a changed speaker is found at its turn, and an unchanged one is said to change.

python benchmarks/character_changes.py [--trials 200] [--turns 8]

Dialogues are drawn from the recordings of the packaged excerpt: one speaker's clips, from some turn on those
of another. Similarities are those of the report (Resemblyzer, mean voice of other clips); one core, 2 min.
The table is Markdown, as it stands in docs/MEASURED.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from csm.data.corpora.amazon_queen import prepare_excerpt
from csm.data.manifest import Corpus
from csm.data.turn_audio import read_turn
from csm.evaluation.core.clips import EVALUATION_RATE
from csm.evaluation.metrics.change_point import ERROR_RATE, change_point
from csm.evaluation.metrics.speaker import SHORTEST_RELIABLE, SpeakerEncoder


def embeddings_by_speaker(corpus: Corpus, fewest: int) -> dict[str, np.ndarray]:
    """Returns unit embeddings [clips, 256] of every speaker with at least `fewest` long enough recordings."""
    encoder = SpeakerEncoder()
    found: dict[str, list[np.ndarray]] = {}
    for turn in corpus.turns():
        if turn.duration >= SHORTEST_RELIABLE and not turn.overlap:
            waveform = read_turn(corpus, turn, EVALUATION_RATE)[0].numpy()
            found.setdefault(turn.speaker, []).append(encoder.embed(waveform))
    return {name: np.array(own) for name, own in found.items() if len(own) >= fewest}


def similarities(
    clips: dict[str, np.ndarray], turns: int, change: int, generator: np.random.Generator
) -> np.ndarray:
    """Draws the cosines of a dialogue to its voice, whose turns from `change` on are another speaker's."""
    own, other = generator.choice(sorted(clips), size=2, replace=False)
    order = generator.permutation(len(clips[own]))
    mean = clips[own][order[turns:]].mean(axis=0)
    spoken = clips[own][order[:turns]].copy()
    spoken[change:] = clips[other][generator.permutation(len(clips[other]))[: turns - change]]
    return spoken @ (mean / np.linalg.norm(mean))


def row(clips: dict[str, np.ndarray], turns: int, change: int, trials: int) -> Sequence[object]:
    """Counts what is found in dialogues that change at a turn; `turns` for none."""
    generator = np.random.default_rng([change, turns])
    near = elsewhere = 0
    for trial in range(trials):
        found = change_point(similarities(clips, turns, change, generator), seed=trial)
        assert found is not None
        near += found.found and change < turns and abs(found.place - change) <= 1
        elsewhere += found.found and not (change < turns and abs(found.place - change) <= 1)
    name = f"turn {change + 1} of {turns}" if change < turns else f"none in {turns} turns"
    return name, trials, f"{near / trials:.3f}" if change < turns else "", f"{elsewhere / trials:.3f}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--turns", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = prepare_excerpt(Path(folder) / "excerpt")
        clips = embeddings_by_speaker(corpus, options.turns + 4)
    print(f"{len(clips)} speakers, {sum(map(len, clips.values()))} clips; stated error rate {ERROR_RATE}\n")
    print(
        "| first changed turn | dialogues | flagged within one turn | flagged elsewhere |\n|---|---|---|---|"
    )
    for change in (*range(2, options.turns - 1), options.turns):
        print("|", " | ".join(map(str, row(clips, options.turns, change, options.trials))), "|")


if __name__ == "__main__":
    main()
