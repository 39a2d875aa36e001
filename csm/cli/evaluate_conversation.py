"""Measures how a voice takes turns: scripted users interrupt it, murmur, cough and hesitate.

    csm evaluate-conversation --corpus data/amazon_queen_excerpt --output DIR
    csm evaluate-conversation --corpus data/amazon_queen_excerpt --output DIR --subject always_stops

The users are held-out turns of the corpus. Time is simulated: synthesis and recognition are charged to the
conversation's clock by the CPU time that they take. Writes conversation.json: the summary, and what each user
met. The subjects ignores_users and always_stops show the ends of the scales.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from csm.conversation.live import LiveConfig
from csm.conversation.transcriber import FastTranscriber
from csm.data.manifest import read_corpus
from csm.evaluation.conversation.bench import run_bench, summary
from csm.evaluation.conversation.stubs import AlwaysStops, IgnoresUsers
from csm.evaluation.conversation.subject import BenchConversation
from csm.evaluation.conversation.users import scripted_users
from csm.generation.talker import Talker
from csm.system.files import write_atomically

STUBS: dict[str, Any] = {"ignores_users": IgnoresUsers, "always_stops": AlwaysStops}
REPORT_FILE = "conversation.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("--corpus", type=Path, required=True, metavar="FOLDER", help="the users' turns")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the report")
    parser.add_argument("--voice", type=Path, metavar="FOLDER", help="(default: the packaged voice)")
    parser.add_argument("--users", type=int, default=10, metavar="N", help="of each kind (%(default)s)")
    parser.add_argument("--no-hold", action="store_true", help="speak on until an interruption is certain")
    parser.add_argument("--subject", choices=["voice", *STUBS], default="voice", help="who is measured")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw of turns")


def run(options: argparse.Namespace) -> None:
    """Measures and writes the report."""
    if options.users < 1:
        raise ValueError(f"--users is {options.users}: expected 1 or more")
    torch.set_num_threads(1)
    users = scripted_users(read_corpus(options.corpus), options.users, options.seed)
    outcomes = run_bench(users, _maker(options))
    report = {
        "schema": 1,
        "subject": options.subject,
        "seed": options.seed,
        "summary": summary(outcomes),
        "outcomes": [outcome._asdict() for outcome in outcomes],
    }
    options.output.mkdir(parents=True, exist_ok=True)
    write_atomically(options.output / REPORT_FILE, json.dumps(report, indent=1) + "\n")
    print(json.dumps(report["summary"], indent=1))
    print(f"report: {options.output / REPORT_FILE}")


def _maker(options: argparse.Namespace) -> Any:
    """Returns what makes a new subject for each user."""
    if options.subject in STUBS:
        return STUBS[options.subject]
    talker, transcriber = Talker.from_pretrained(options.voice), FastTranscriber()
    config = LiveConfig(hold=not options.no_hold)
    return lambda: BenchConversation(talker, transcriber, config)
