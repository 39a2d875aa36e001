"""Measures how a voice takes turns: scripted users interrupt it, murmur, cough and hesitate.

    csm evaluate-conversation --corpus data/amazon_queen_excerpt --output DIR
    csm evaluate-conversation --corpus data/amazon_queen_excerpt --output DIR --subject always_stops

The users are held-out turns of the corpus. Time is simulated: synthesis and recognition are charged to the
conversation's clock by the CPU time that they take. Writes conversation.json: the summary, and what each user
met. The subjects ignores_users and always_stops show the ends of the scales.

    csm evaluate-conversation --full-duplex-bench FOLDER --output DIR
    csm evaluate-conversation --full-duplex-bench FOLDER --output DIR --subject recorded
    csm evaluate-conversation --turn-bench FOLDER --output DIR

answer the samples of Full-Duplex-Bench (`recorded`: score the output.wav beside each input.wav), and write
TurnBench's predictions.json for its own scorer.

    csm evaluate-conversation --corpus FOLDER --output DIR --load URL --sessions 4 --minutes 30

loads a running server in real time, and reports the delay of each block of 20 ms and the server's memory.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from csm.cli.options import add_backchannels, add_turn_end, add_voice
from csm.conversation.backchannels import available_backchannels
from csm.conversation.listener import ListenerConfig
from csm.conversation.live_config import LiveConfig
from csm.conversation.smart_turn import turn_end_of
from csm.conversation.transcriber import FastTranscriber
from csm.data.manifest import read_corpus
from csm.evaluation.conversation import full_duplex, turn_bench
from csm.evaluation.conversation.answering import Answers
from csm.evaluation.conversation.bench import run_bench, summary
from csm.evaluation.conversation.load import LoadOptions, run_load
from csm.evaluation.conversation.recorded_listener import RecordedListener
from csm.evaluation.conversation.stubs import AlwaysStops, IgnoresUsers
from csm.evaluation.conversation.subject import BenchConversation
from csm.evaluation.conversation.users import ScriptedUser, scripted_users
from csm.generation.talker import Talker
from csm.system.files import write_atomically

STUBS: dict[str, Any] = {"ignores_users": IgnoresUsers, "always_stops": AlwaysStops}
REPORT_FILE, AXES_FILE, PREDICTIONS_FILE = "conversation.json", "full_duplex.json", "predictions.json"
RECORDED, LOAD_FILE = "recorded", "load.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="corpus of the users' turns")
    parser.add_argument(
        "--full-duplex-bench",
        type=Path,
        metavar="FOLDER",
        help="folder of Full-Duplex-Bench samples to answer instead",
    )
    parser.add_argument(
        "--turn-bench",
        type=Path,
        metavar="FOLDER",
        help="folder of TurnBench's parquet files, whose turn ends are predicted instead",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the report")
    add_voice(parser)
    parser.add_argument(
        "--users",
        type=int,
        default=10,
        metavar="N",
        help="number of users of each kind (default: %(default)s)",
    )
    parser.add_argument("--no-hold", action="store_true", help="speak on until an interruption is certain")
    parser.add_argument(
        "--subject", choices=["voice", RECORDED, *STUBS], default="voice", help="system that is measured"
    )
    add_turn_end(parser)
    add_backchannels(parser)
    parser.add_argument(
        "--load", metavar="URL", help="address of a running csm serve, to which the users talk"
    )
    parser.add_argument(
        "--sessions", type=int, default=1, metavar="N", help="number of users at once (--load)"
    )
    parser.add_argument(
        "--minutes", type=float, default=1.0, metavar="M", help="minutes of the load (default: %(default)s)"
    )
    parser.add_argument(
        "--token", default=os.environ.get("CSM_TOKEN", ""), help="token of the server (default: $CSM_TOKEN)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the draw of turns")


def run(options: argparse.Namespace) -> None:
    """Measures and writes the report."""
    given = [name for name in ("corpus", "full_duplex_bench", "turn_bench") if getattr(options, name)]
    if len(given) != 1:
        raise ValueError("expected one of --corpus, --full-duplex-bench and --turn-bench")
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    {"corpus": _bench, "full_duplex_bench": _full_duplex, "turn_bench": _turn_bench}[given[0]](options)


def _bench(options: argparse.Namespace) -> None:
    if options.users < 1:
        raise ValueError(f"--users is {options.users}: expected 1 or more")
    if options.subject == RECORDED:
        raise ValueError("--subject is recorded: expected --full-duplex-bench with it")
    users = scripted_users(read_corpus(options.corpus), options.users, options.seed)
    if options.load is not None:
        _load(options, users)
        return
    outcomes = run_bench(users, _maker(options))
    report = {
        "schema": 1,
        "subject": options.subject,
        "turn_end": options.turn_end,
        "backchannels": options.backchannels,
        "seed": options.seed,
        "summary": summary(outcomes),
        "axes": full_duplex.axes(full_duplex.of_bench(outcomes)),
        "outcomes": [outcome._asdict() for outcome in outcomes],
    }
    _write(options.output / REPORT_FILE, report, {"summary": report["summary"], "axes": report["axes"]})


def _load(options: argparse.Namespace, users: Sequence[ScriptedUser]) -> None:
    settings = LoadOptions(
        url=options.load, sessions=options.sessions, minutes=options.minutes, token=options.token
    )
    report = {"schema": 1, "minutes": options.minutes, **run_load(settings, users)}
    _write(options.output / LOAD_FILE, report, report)


def _full_duplex(options: argparse.Namespace) -> None:
    root = options.full_duplex_bench
    samples = full_duplex.read_samples(root)
    recorded = options.subject == RECORDED
    answers = Answers(root if recorded else options.output, None if recorded else _maker(options))
    scored = full_duplex.score_all(samples, answers, root)
    report = {"schema": 1, "subject": options.subject, "axes": full_duplex.axes(scored)}
    rows = [row._asdict() for row in scored]
    _write(options.output / AXES_FILE, {**report, "samples": rows}, report["axes"])


def _turn_bench(options: argparse.Namespace) -> None:
    recordings = turn_bench.read_recordings(options.turn_bench)
    turn_end = turn_end_of(options.turn_end)

    def listener() -> RecordedListener:
        return RecordedListener(ListenerConfig(), turn_end)

    found = {one.name: turn_bench.predicted(one, listener) for one in recordings}
    path = options.output / PREDICTIONS_FILE
    turn_bench.write_predictions(path, found)
    print(f"{path}: {len(found)} conversations; score it with python -m turnbench.score")


def _write(path: Path, report: dict[str, Any], shown: object) -> None:
    write_atomically(path, json.dumps(report, indent=1) + "\n")
    print(json.dumps(shown, indent=1))
    print(f"report: {path}")


def _maker(options: argparse.Namespace) -> Any:
    """Returns what makes a new subject for each user."""
    if options.subject in STUBS:
        return STUBS[options.subject]
    talker, transcriber = Talker.from_pretrained(options.voice), FastTranscriber()
    config, turn_end = LiveConfig(hold=not options.no_hold), turn_end_of(options.turn_end)
    backchannels = available_backchannels(options.backchannels, transcriber)
    return lambda: BenchConversation(
        talker, transcriber, config, turn_end=turn_end, backchannels=backchannels
    )
