"""Compares the texts of a corpus with what a recogniser finds in its audio, for turns drawn at random.

    python benchmarks/corpus_texts.py --corpus corpora/drascula --turns 40

Prints the word error rate over the turns and the turns that are worst. It is an upper bound of how far the
texts are from the speech, because the recogniser errs as well.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from csm.audio.files import read_audio
from csm.data.manifest import Turn, read_corpus
from csm.evaluation.metrics.words import WhisperRecogniser, error_counts

RATE = 16_000
WORST = 10


def main() -> None:
    """Prints the rates."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=40, help="how many are drawn, the same on each run")
    parser.add_argument("--words", type=int, default=1, help="fewest words of a turn")
    parser.add_argument("--asr", help="faster-whisper model, a name or a folder (default: tiny.en)")
    options = parser.parse_args()
    corpus, recogniser = read_corpus(options.corpus), WhisperRecogniser(options.asr)
    long_enough = [turn for turn in corpus.turns() if len(turn.text.split()) >= options.words]
    drawn = random.Random(0).sample(long_enough, min(options.turns, len(long_enough)))
    rows = [compared(turn, options.corpus, recogniser) for turn in drawn]
    errors, words = sum(row[0] for row in rows), sum(row[1] for row in rows)
    print(f"{options.corpus.name}: {len(rows)} turns, {words} words, WER {errors / words:.3f}")
    print(recogniser.evaluator)
    for wrong, of, turn, found in sorted(rows, key=lambda row: -row[0] / row[1])[:WORST]:
        print(f"{wrong} of {of} in {turn.id}: {turn.text!r} is recognised as {found!r}")


def compared(turn: Turn, root: Path, recogniser: WhisperRecogniser) -> tuple[int, int, Turn, str]:
    """Returns word errors, words, the turn, and the text that is recognised in it."""
    clip = read_audio(root / turn.audio, sample_rate=RATE, start=turn.start, end=turn.end)
    found = recogniser.transcribe(clip.reshape(-1).numpy(), RATE)
    return *error_counts(turn.text, found), turn, found


if __name__ == "__main__":
    main()
