"""What separates backchannels from short interruptions: voices stopped falsely, and interruptions missed.

    python benchmarks/backchannels.py --corpus data/amazon_queen_excerpt --backchannels words --output FILE

Each recorded line of at most --longest seconds is played once to the packaged voice, 0.6 s into a reply to a
typed turn, in simulated time: synthesis and recognition are charged by their CPU time. A line is a
backchannel if its text in the corpus is one, and a short interruption otherwise. The pause is how long the
voice was held for a backchannel; the decision is timed from the line's last audible sample. --without-voice
classifies the lines alone, a tenth of a second each.
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

from csm.conversation.backchannels import (
    BACKCHANNELS,
    Backchannels,
    ShortSpeech,
    available_backchannels,
    is_backchannel,
)
from csm.conversation.live import LiveConversation
from csm.conversation.live_config import LiveConfig
from csm.conversation.repliers import ScriptReplier
from csm.conversation.transcriber import FastTranscriber
from csm.conversation.user_audio import MARGIN_S
from csm.conversation.worker import SimulatedWorker
from csm.data.manifest import Corpus, Turn, read_corpus
from csm.evaluation.conversation.subject import SCRIPT
from csm.evaluation.conversation.users import RATE, recorded_speech
from csm.generation.talker import Talker
from csm.system.files import order_by_hash, write_atomically

STEP = RATE // 50  # 20 ms
INTO_S, AFTER_S, PATIENCE_S = 0.6, 0.8, 6.0


class Played(NamedTuple):
    """What became of one line; times in milliseconds, None where it did not happen.

    Attributes:
        line: Its id. text: Its text in the corpus. backchannel: Whether that is one.
        met: Whether it was found to be speech.
        stopped: Whether it interrupted the reply.
        words: What was recognised; of an interruption without a voice alone.
        held: How long the voice paused and spoke on.
        decided: From the line's last audible sample to the decision.
    """

    line: str
    text: str
    backchannel: bool
    met: bool
    stopped: bool
    words: str
    held: float | None
    decided: float | None


def short_lines(corpus: Corpus, longest: float, splits: Sequence[str]) -> list[Turn]:
    """Returns the lines with words of at most `longest` seconds, in a drawn order, split by split."""
    found = []
    for split in splits:
        turns = {
            turn.id: turn
            for turn in corpus.turns(split)
            if turn.duration <= longest and turn.text[:1] not in "("
        }
        found += [turns[name] for name in order_by_hash(turns, 0)]
    return found


@torch.no_grad()
def play(live: LiveConversation, corpus: Corpus, turn: Turn) -> Played:
    """Plays a line over the voice."""
    live.type("hello")
    while not live.audible and live.now < PATIENCE_S * live.rate:
        live.step(torch.zeros(STEP), RATE)
    speech = recorded_speech(corpus, turn)
    silence = [torch.zeros(round(seconds * RATE)) for seconds in (INTO_S, AFTER_S)]
    end = live.now / live.rate + (len(silence[0]) + len(speech)) / RATE
    for part in torch.cat([silence[0], speech, silence[1]]).split(STEP):
        live.step(part, RATE)
    stops, found = live.log.of("barge_in"), live.log.of("backchannel")
    holds, resumes = live.log.of("hold"), live.log.of("resume")
    decisions = [event.at / live.rate for event in (*stops, *found)]
    return Played(
        turn.id,
        turn.text,
        is_backchannel(turn.text),
        bool(decisions),
        bool(stops),
        found[0].text if found else "",
        1000 * (resumes[0].at - holds[0].at) / live.rate if resumes else None,
        1000 * (decisions[0] - end) if decisions else None,
    )


def classified(corpus: Corpus, turns: Sequence[Turn], decides: Backchannels) -> Iterator[Played]:
    """Classifies every line between 0.2 s of silence, without a conversation."""
    silence = torch.zeros(round(MARGIN_S * RATE))
    for turn in turns:
        task = decides.classify(torch.cat([silence, recorded_speech(corpus, turn), silence]))
        found = ShortSpeech("", True) if task is None else next(task)
        known = is_backchannel(turn.text)
        yield Played(turn.id, turn.text, known, True, not found.backchannel, found.text, None, None)


def played(
    corpus: Corpus, turns: Sequence[Turn], talker: Talker, decides: Backchannels, hold: bool
) -> Iterator[Played]:
    """Plays every line to a conversation of its own."""
    transcriber: Any = FastTranscriber()
    for turn in turns:
        live = LiveConversation(
            talker,
            ScriptReplier(SCRIPT),
            LiveConfig(hold=hold),
            worker=SimulatedWorker(timer=time.process_time),
            transcriber=transcriber,
            backchannels=decides,
        )
        yield play(live, corpus, turn)
        live.close()


def summary(rows: Sequence[Played]) -> str:
    """Returns the counts and the times (p50 / p95) as lines of a table."""
    back = [row for row in rows if row.backchannel and row.met]
    short = [row for row in rows if not row.backchannel and row.met]
    lines = [
        f"| lines, of them no speech found in | {len(rows)}, {len(rows) - len(back) - len(short)} |",
        f"| voices stopped by a backchannel | {sum(row.stopped for row in back)} of {len(back)} |",
        f"| short interruptions missed | {sum(not row.stopped for row in short)} of {len(short)} |",
        f"| pause at a backchannel, ms | {_times([row.held for row in back])} |",
        f"| from a backchannel's end to the decision, ms | {_times([row.decided for row in back])} |",
        f"| from an interruption's end to the decision, ms | {_times([row.decided for row in short])} |",
    ]
    return "\n".join(lines)


def _times(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return " / ".join(f"{value:.0f}" for value in np.percentile(known, [50, 95])) if known else "-"


def main() -> None:
    """Prints the table, and the lines that were decided otherwise than by their text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--backchannels", choices=BACKCHANNELS, default=BACKCHANNELS[0])
    parser.add_argument("--longest", type=float, default=1.0, help="seconds of a line, silence included")
    parser.add_argument("--splits", nargs="+", default=["test", "validation", "train"])
    parser.add_argument("--lines", type=int, help="the first N alone")
    parser.add_argument("--no-hold", action="store_true", help="speak on until it is decided")
    parser.add_argument("--without-voice", action="store_true", help="classify the lines alone")
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON of every line")
    options = parser.parse_args()
    torch.set_num_threads(1)
    corpus = read_corpus(options.corpus)
    decides = available_backchannels(options.backchannels, FastTranscriber())
    turns = short_lines(corpus, options.longest, options.splits)[: options.lines]
    if options.without_voice:
        rows = [*classified(corpus, turns, decides)]
    else:
        rows = [*played(corpus, turns, Talker.from_pretrained(), decides, not options.no_hold)]
    print(f"| {decides.name} | |\n|---|---|\n{summary(rows)}")
    for row in rows:
        if row.met and row.stopped == row.backchannel:
            print(f"{'stopped' if row.stopped else 'missed'}: {row.text!r} {row.words!r}")
    if options.output:
        write_atomically(options.output, json.dumps([row._asdict() for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
