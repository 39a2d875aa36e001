"""Holds a typed conversation with a trained model: a WAV for every turn, all in one session.

    csm converse --run runs/quickstart --speaker JOE --you FAYE

The model speaks words and does not choose them, so you type both sides: first a line of yours, then the one
that the model says to it, and so on in turn. Each is spoken in its own voice, with everything before it as
context. "NAME: text" gives the turn to one of the two. Ctrl-D (Ctrl-Z on Windows) ends it.

    csm converse --run runs/quickstart --lines script.txt      reads the lines from a file, one a line
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from csm.cli.options import add_run, device_of
from csm.generation.corpus_voices import minutes_of_speakers
from csm.generation.typed_conversation import free_path, typed_conversation
from csm.recipes.steps.speak import run_corpus, trained_talker


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_run(parser)
    parser.add_argument(
        "--speaker", metavar="NAME", help="the model's voice (default: the most trained speaker)"
    )
    parser.add_argument("--you", metavar="NAME", help="the voice of your lines (default: the second most)")
    parser.add_argument("--lines", type=Path, metavar="FILE", help="read the lines from a text file")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="default: RUN/conversations/000, 001, ..."
    )


def run(options: argparse.Namespace) -> None:
    """Speaks line after line."""
    talker = trained_talker(options.run, device_of(options), corpus=options.corpus)
    voice = options.speaker or talker.voice().name
    minutes = minutes_of_speakers(run_corpus(options.run, options.corpus))
    others = [name for name in talker.voices if name != voice]
    you = options.you or max(others, key=minutes.__getitem__, default=voice)
    output = options.output or free_path(options.run / "conversations")
    print(f"{you} (you) and {voice} (the model) speak in turn; end with Ctrl-D", flush=True)
    speakers = list(dict.fromkeys((you, voice)))
    for path, name, speech in typed_conversation(talker, typed(options.lines), speakers, output):
        print(f"{path}: {name}, {speech.timing.audio_s:.2f} s", flush=True)


def typed(path: Path | None) -> Iterator[str]:
    """Yields the lines of a file, or of the keyboard until its end."""
    if path is not None:
        if not path.is_file():
            raise ValueError(f"no file {path}: --lines takes a text file, one line a turn")
        yield from path.read_text(encoding="utf-8").splitlines()
        return
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
