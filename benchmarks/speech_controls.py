"""What the inputs of a voice change: the rate of speech, and a word in capitals, each beside its control.

    python benchmarks/speech_controls.py [--voice FOLDER] [--seeds 3] [--asr base]

Lengths at each speed are compared with those at speed 1, a stressed word with the same word of the same line
and seed without capitals: its length, and its loudness and pitch against the rest of the line. Words are
found by a recogniser with word times; a line whose word is not found in both is counted and left out.
Intervals are bootstrapped over lines.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from csm.data.corpora.transcription.recogniser import WordRecogniser
from csm.data.manifest import Segment
from csm.data.word_times import Word
from csm.evaluation.core.clips import EVALUATION_RATE, at_rate
from csm.evaluation.core.statistics import bootstrap_repeats, interval
from csm.evaluation.metrics.contours import FRAME, contour
from csm.evaluation.metrics.text_normalisation import normalise_text
from csm.evaluation.metrics.words import WhisperRecogniser, error_counts
from csm.generation.talker import Talker
from csm.system.log import progress_of

SPEEDS = (0.8, 0.9, 1.0, 1.15, 1.3)
#: The word in braces is stressed.
LINES = (
    "I never said that {she} took the money.",
    "We need to leave this house {tonight}.",
    "The {blue} box belongs on the upper shelf.",
    "You can have tea, but there is {no} coffee.",
    "My brother drives to work {every} morning.",
    "That was the {best} dinner of the whole week.",
    "Please put the letters on the {kitchen} table.",
    "He wanted to call {you} about the meeting.",
    "They found the old map {under} the bridge.",
    "I asked for {three} tickets, please.",
    "The train to the city leaves at {seven}.",
    "It is {really} cold outside today.",
    "Your {sister} can fix the engine, too.",
    "We should open the {window} before we start.",
    "Nothing in this town {ever} changes.",
    "She reads a {different} book on Sundays.",
    "I think the {doctor} will see you now.",
    "The children {love} to play near the river.",
)


class Said(NamedTuple):
    """A line as it was spoken: waveform [S] at `EVALUATION_RATE`, and what the recogniser reads."""

    waveform: np.ndarray
    errors: int
    words: int


class Stress(NamedTuple):
    """One word of a line: its length in s, and loudness (dB) and pitch (semitones) against the rest."""

    seconds: float
    loudness: float
    pitch: float


def main() -> None:
    """Prints two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--voice", type=Path, metavar="FOLDER", help="voice (default: the packaged one)")
    parser.add_argument("--speaker", metavar="NAME", help="who speaks (default: the voice's main speaker)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="renditions (default: %(default)s)")
    parser.add_argument("--asr", default="base", metavar="MODEL", help="recogniser (default: %(default)s)")
    options = parser.parse_args()
    talker = Talker.from_pretrained(options.voice)
    recogniser = WhisperRecogniser(options.asr)
    seeds = range(options.seeds)

    def say(line: str, seed: int, speed: float = 1.0) -> Said:
        speech = talker.generate(line, options.speaker, seed=seed, speed=speed)
        clip = at_rate(speech.waveform[0].numpy(), talker.tokenizer.config.sample_rate)
        return Said(clip, *error_counts(line, recogniser.transcribe(clip, EVALUATION_RATE)))

    speeds_table(say, seeds)
    stress_table(say, seeds, WordRecogniser(options.asr))


def speeds_table(say: Callable[..., Said], seeds: Sequence[int]) -> None:
    """Prints lengths and word errors at each speed."""
    plain = [line.replace("{", "").replace("}", "") for line in LINES]
    said = {
        speed: [[say(line, seed, speed) for seed in seeds] for line in plain]
        for speed in progress_of(SPEEDS, "speeds", len(SPEEDS), unit="speed")
    }
    print("| speed | length / length at 1 | 1 / speed | word errors |\n|---|---|---|---|")
    for speed, lines in said.items():
        ratios = [
            np.mean([np.log(len(a.waveform) / len(b.waveform)) for a, b in zip(one, same, strict=True)])
            for one, same in zip(lines, said[1.0], strict=True)
        ]
        mean, low, high = (float(np.exp(value)) for value in with_interval(ratios))
        print(
            f"| {speed} | {mean:.3f} [{low:.3f}, {high:.3f}] | {1 / speed:.3f} | {word_errors(lines):.3f} |"
        )


def stress_table(say: Callable[..., Said], seeds: Sequence[int], times: WordRecogniser) -> None:
    """Prints what capitals change of a word, and what they cost in words."""
    changes: list[list[float]] = []
    plain_said, stressed_said, lost = [], [], 0
    for line in progress_of(LINES, "lines", len(LINES), unit="line"):
        word = line[line.index("{") + 1 : line.index("}")]
        plain = [say(line.replace("{", "").replace("}", ""), seed) for seed in seeds]
        stressed = [say(line.replace("{" + word + "}", word.upper()), seed) for seed in seeds]
        plain_said.append(plain)
        stressed_said.append(stressed)
        pairs = [
            (stress(a, word, times), stress(b, word, times)) for a, b in zip(plain, stressed, strict=True)
        ]
        found = [(a, b) for a, b in pairs if a is not None and b is not None]
        lost += len(pairs) - len(found)
        if found:
            changes.append(
                [
                    float(np.mean([np.log(b.seconds / a.seconds) for a, b in found])),
                    float(np.mean([b.loudness - a.loudness for a, b in found])),
                    float(np.mean([b.pitch - a.pitch for a, b in found])),
                ]
            )
    print(f"\nThe word in capitals against the same word without, {len(changes)} lines, {lost} pairs lost:\n")
    print("| length, ratio | loudness, dB | pitch, semitones |\n|---|---|---|")
    columns = list(zip(*changes, strict=True))
    length = [float(np.exp(value)) for value in with_interval(columns[0])]
    cells = [length, with_interval(columns[1]), with_interval(columns[2])]
    print("| " + " | ".join(f"{mean:.2f} [{low:.2f}, {high:.2f}]" for mean, low, high in cells) + " |")
    print(f"\nWord errors: {word_errors(plain_said):.3f} without, {word_errors(stressed_said):.3f} with.")


def stress(said: Said, word: str, times: WordRecogniser) -> Stress | None:
    """Returns the stress of a word; None where it is not found or has no pitch."""
    length = len(said.waveform) / EVALUATION_RATE
    samples = at_rate(said.waveform, EVALUATION_RATE)
    read = times.words(
        [Segment(speaker="", start=0.0, end=length)],
        lambda start, end: samples[round(start * EVALUATION_RATE) : round(end * EVALUATION_RATE)],
    )[0]
    found = next((one for one in read if normalise_text(one.text) == normalise_text(word)), None)
    return None if found is None else _stress(said, found)


def _stress(said: Said, word: Word) -> Stress | None:
    curve = contour(said.waveform)
    frames = np.arange(len(curve.f0)) * FRAME
    inside = (frames >= word.start) & (frames < word.end)
    loud = curve.energy > curve.energy.max() - 40  # speech, without pauses
    parts = []
    for chosen in (inside, ~inside):
        if not (chosen & curve.voiced).any() or not (chosen & loud).any():
            return None
        pitch = 12 * np.log2(curve.f0[chosen & curve.voiced]).mean()
        parts.append((curve.energy[chosen & loud].mean(), pitch))
    (loudness, pitch), (other_loudness, other_pitch) = parts
    return Stress(max(word.end - word.start, FRAME), loudness - other_loudness, pitch - other_pitch)


def word_errors(lines: Sequence[Sequence[Said]]) -> float:
    """Returns word errors / words of all renditions."""
    flat = [said for one in lines for said in one]
    return sum(said.errors for said in flat) / sum(said.words for said in flat)


def with_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the mean of lines and its bootstrapped 95 % interval."""
    draws = bootstrap_repeats(list(values), lambda picked: float(np.mean(picked)), repeats=2000, seed=0)
    low, high = interval(draws) or (float("nan"), float("nan"))
    return float(np.mean(values)), low, high


if __name__ == "__main__":
    main()
