"""What tells the end of a turn from a pause: turns ended falsely, and the delay of true ends.

    python benchmarks/turn_ends.py --corpus data/amazon_queen --turns 240

Held-out recorded turns between silences. Ended falsely is a turn of which an end was decided before its last
speech; the delay is from its last audible sample to the decision. Hesitations are the same turns, cut at the
quietest 20 ms of their middle, with 0.3 to 1.2 s of silence there. Voice activity and probabilities are
computed once and are the same for every row; a classification is there after the CPU time that it takes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from csm.audio.files import read_audio
from csm.audio.resampling import resample
from csm.audio.voice_activity import SpeechProbabilities, load_detector
from csm.conversation.listener import RATE, WINDOW, Heard, ListenerConfig
from csm.conversation.smart_turn import SmartTurn, SmartTurnConfig
from csm.conversation.turn_end import Patience, SilenceAlone, TurnEnd
from csm.conversation.worker import Task
from csm.data.manifest import Corpus, Turn, read_corpus
from csm.evaluation.conversation.recorded_listener import RecordedListener
from csm.evaluation.conversation.users import audible_span
from csm.system.files import order_by_hash, write_atomically

BEFORE_S, AFTER_S, SECOND_S = 0.3, 2.2, 0.5
SHORTEST_S = 1.5  # of a turn that is made a hesitation
SILENCES = (0.3, 0.5, 0.7)
CLASSIFIED = ((0.5, 0.3, 1.0), (0.5, 0.3, 2.0), (0.8, 0.3, 0.7), (0.8, 0.3, 1.0))  # threshold, shift, hold


class Recording(NamedTuple):
    """Speech between silences.

    Attributes:
        samples: float32 [S] at 16 kHz.
        end: Seconds at which its last audible sample ends; where a hesitation speaks on.
        activity: Probability of speech of each window.
    """

    samples: Tensor
    end: float
    activity: list[float]


class Replayed:
    """Voice activity that was computed before."""

    def __init__(self, values: Sequence[float]) -> None:
        self._values = iter(values)

    def __call__(self, window: Tensor) -> float:
        """Returns the next value."""
        return next(self._values)


class Classifier:
    """smart-turn that computes each probability once, whatever the threshold."""

    name = SmartTurn.name

    def __init__(self) -> None:
        self._network = SmartTurn()
        self._known: dict[tuple[int, int], float] = {}
        self.recording, self.seconds = 0, list[float]()
        self.asked: list[float] = []
        self.config, self.silence = SmartTurnConfig(), 0.0

    def configure(self, threshold: float, shift: float, hold: float) -> None:
        """Sets what a probability means."""
        self.config = SmartTurnConfig(threshold=threshold, shift=shift, hold=hold)
        self.silence = hold

    def classify(self, turn: Tensor) -> Task:
        """Yields the silence that this pause needs."""
        probability = self.probability(turn)
        self.asked.append(probability)
        yield Patience(self.config.shift if probability >= self.config.threshold else self.config.hold, "")

    def probability(self, turn: Tensor) -> float:
        """Returns the network's probability, and measures the CPU time of a new one."""
        key = (self.recording, len(turn))
        if key not in self._known:
            began = time.process_time()
            self._known[key] = self._network.probability(turn)
            self.seconds.append(time.process_time() - began)
        return self._known[key]


def recorded(samples: Tensor, end: int, detector: Any) -> Recording:
    """Runs voice activity over samples whose speech ends at sample `end`."""
    activity = SpeechProbabilities(detector, RATE)
    activity.push(samples)
    activity.finish()
    return Recording(samples, end / RATE, activity.values)


def whole(speech: Tensor, detector: Any) -> Recording:
    """A turn between silences."""
    before, after = (torch.zeros(round(seconds * RATE)) for seconds in (BEFORE_S, AFTER_S))
    return recorded(torch.cat([before, speech, after]), len(before) + len(speech), detector)


def hesitating(speech: Tensor, detector: Any, generator: torch.Generator) -> Recording:
    """The turn up to the quietest place of its middle, a drawn silence, and the beginning of the rest."""
    frame = round(0.02 * RATE)
    power = speech.unfold(0, frame, frame).square().mean(1)
    low, high = round(0.3 * len(power)), round(0.7 * len(power))
    cut = (low + int(power[low:high].argmin())) * frame + frame // 2
    silence = torch.zeros(round((0.3 + 0.9 * float(torch.rand((), generator=generator))) * RATE))
    before, rest = torch.zeros(round(BEFORE_S * RATE)), speech[cut : cut + round(SECOND_S * RATE)]
    samples = torch.cat([before, speech[:cut], silence, rest])
    return recorded(samples, len(samples) - len(rest), detector)


def heard(recording: Recording, turn_end: TurnEnd, cost: float) -> list[Heard]:
    """Returns what the listener decides."""
    listener = RecordedListener(ListenerConfig(), turn_end, Replayed(recording.activity), cost)
    return [change for part in recording.samples.split(WINDOW) for change in listener.push(part)]


def speech_of(corpus: Corpus, turn: Turn, rate: int) -> Tensor:
    """Returns a turn at 16 kHz without the silence around it, read at another rate first."""
    audio = read_audio(
        corpus.root / turn.audio, sample_rate=rate, start=turn.start, end=turn.end, channel=turn.channel
    )[0]
    audio = resample(audio, rate, RATE)
    first, last = audible_span(audio)
    return audio[first:last]


def inner_pauses(changes: Sequence[Heard]) -> Iterator[tuple[Heard, Heard]]:
    """Yields each pause after which the turn lasts on, and what resumed it."""
    for one, following in zip(changes, changes[1:], strict=False):
        if one.change == "pause" and following.change == "resumed":
            yield one, following


def row(
    name: str,
    turn_end: TurnEnd,
    classifier: Classifier,
    made: Sequence[Recording],
    cut: Sequence[Recording],
    cost: float,
) -> str:
    """Returns a row of the table."""
    early, delays, hesitations = 0, [], 0
    for number, recording in enumerate([*made, *cut]):
        classifier.recording = number
        ends = [change.at for change in heard(recording, turn_end, cost) if change.change == "ended"]
        if number >= len(made):
            hesitations += any(at <= recording.end for at in ends)
            continue
        early += len(ends) > 1
        delays += [ends[-1] - recording.end] if ends else []
    p50, p95 = 1000 * np.percentile(delays, [50, 95])
    return (
        f"| {name} | {early} ({100 * early / len(made):.1f} %) | {hesitations} "
        f"({100 * hesitations / len(cut):.0f} %) | {p50:.0f} | {p95:.0f} |"
    )


def classified_pauses(
    classifier: Classifier, made: Sequence[Recording], cut: Sequence[Recording]
) -> dict[str, list[dict]]:
    """Returns the probability of an end at true ends, at inner pauses and at hesitations."""
    found: dict[str, list[dict]] = {"ends": [], "inner pauses": [], "hesitations": []}
    classifier.configure(0.5, 3.0, 3.0)  # no end is decided within a recording
    for number, recording in enumerate([*made, *cut]):
        classifier.recording, classifier.asked = number, []
        inner = [
            later.since - pause.since for pause, later in inner_pauses(heard(recording, classifier, 0.0))
        ]
        kind = "inner pauses" if number < len(made) else "hesitations"
        found[kind] += [
            {"recording": number, "probability": value, "seconds": length}
            for value, length in zip(classifier.asked, inner, strict=False)
        ]
        if number < len(made) and len(classifier.asked) > len(inner):
            found["ends"].append({"recording": number, "probability": classifier.asked[-1]})
    return found


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=240, help="turns of the test split")
    parser.add_argument("--rate", type=int, default=RATE, help="of the speech: 11025 leaves 5.5 kHz of it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON of every probability")
    options = parser.parse_args()
    torch.set_num_threads(1)
    corpus = read_corpus(options.corpus)
    turns = {turn.id: turn for turn in corpus.turns("test") if turn.text}
    drawn = [turns[name] for name in order_by_hash(turns, options.seed)[: options.turns]]
    speeches = [speech_of(corpus, turn, options.rate) for turn in drawn]
    generator = torch.Generator().manual_seed(options.seed)
    detector = load_detector()
    made = [whole(speech, detector) for speech in speeches]
    long = [speech for speech in speeches if len(speech) >= SHORTEST_S * RATE]
    cut = [hesitating(speech, detector, generator) for speech in long]
    classifier = Classifier()
    found = classified_pauses(classifier, made, cut)
    if options.output:
        ids = [turn.id for turn in drawn]
        write_atomically(options.output, json.dumps({"turns": ids, **found}, indent=1) + "\n")
    report(classifier, found, made, cut)


def report(
    classifier: Classifier, found: dict[str, list[dict]], made: Sequence[Recording], cut: Sequence[Recording]
) -> None:
    """Prints both tables. A turn without an end among its pauses is one in which no speech was found."""
    cost = float(np.median(classifier.seconds))
    p50, p95 = 1000 * np.percentile(classifier.seconds, [50, 95])
    print(f"{len(made)} turns, no speech found in {len(made) - len(found['ends'])}; {len(cut)} hesitations")
    print(f"a classification takes {p50:.0f} / {p95:.0f} ms of CPU (p50 / p95)\n")
    print(
        "| probability of an end | n | median | above 0.5 | above 0.8 | below an end's |\n" + 6 * "|---" + "|"
    )
    ends = np.array([one["probability"] for one in found["ends"]])
    for name, rows in ((name, rows) for name, rows in found.items() if rows):
        values = np.array([one["probability"] for one in rows])
        shares = " | ".join(f"{100 * float((values >= level).mean()):.0f} %" for level in (0.5, 0.8))
        below = f"{100 * float((values[:, None] < ends).mean()):.0f} %" if name != "ends" else ""
        print(f"| {name} | {len(values)} | {np.median(values):.2f} | {shares} | {below} |")
    print("\n| turn end | turns ended falsely | hesitations cut off | delay p50, ms | p95, ms |")
    print("|---|---|---|---|---|")
    for seconds in SILENCES:
        print(row(f"silence {1000 * seconds:.0f} ms", SilenceAlone(seconds), classifier, made, cut, 0.0))
    for threshold, shift, hold in CLASSIFIED:
        classifier.configure(threshold, shift, hold)
        name = f"smart-turn from {threshold}: {1000 * shift:.0f} ms, else {1000 * hold:.0f} ms"
        print(row(name, classifier, classifier, made, cut, cost), flush=True)


if __name__ == "__main__":
    main()
