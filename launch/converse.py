"""Holds a typed conversation with a trained model: a WAV for every turn, all in one session.

    python launch/converse.py --run runs/quickstart --speaker JOE --you FAYE

A csm gives words their voice; it does not think of any. So you type both sides: first a line of yours, then
the one that the model says to it, and so on in turn. Each is spoken in its own voice and hears how everything
before it was said. "NAME: text" lets one of the two speak out of turn. Ctrl-D (Ctrl-Z on Windows) ends it.

    python launch/converse.py --run runs/quickstart --lines script.txt      the lines from a file, one a line
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from csm.command_line import command, command_parser, device_of
from csm.generation.corpus_voices import minutes_of_speakers
from csm.generation.typed_conversation import free_path, typed_conversation
from csm.recipes import pipeline


def typed(path: Path | None) -> Iterator[str]:
    """Lines of a file, or of the keyboard until its end."""
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


def work(options: argparse.Namespace) -> None:
    """Speaks line after line."""
    talker = pipeline.trained_talker(options.run, device_of(options), corpus=options.corpus)
    voice = options.speaker or talker.voice().name
    minutes = minutes_of_speakers(pipeline.run_corpus(options.run, options.corpus))
    you = options.you or max(
        (name for name in talker.voices if name != voice), key=minutes.__getitem__, default=voice
    )
    output = options.output or free_path(options.run / "conversations")
    print(f"{you} (you) and {voice} (the model) speak in turn; end with Ctrl-D", flush=True)
    speakers = list(dict.fromkeys((you, voice)))
    for path, name, speech in typed_conversation(talker, typed(options.lines), speakers, output):
        print(f"{path}: {name}, {speech.timing.audio_s:.2f} s", flush=True)


def main() -> int:
    """The command."""
    parser = command_parser(__doc__)
    parser.add_argument(
        "--run", type=Path, required=True, metavar="FOLDER", help="of a finished launch/train.py"
    )
    parser.add_argument(
        "--speaker", metavar="NAME", help="the model's voice (default: who was trained on most)"
    )
    parser.add_argument("--you", metavar="NAME", help="the voice of your lines (default: who comes second)")
    parser.add_argument("--lines", type=Path, metavar="FILE", help="read the lines from a text file")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="default: RUN/conversations/000, 001, ..."
    )
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="of the corpus, where it has moved")
    return command("converse", parser, work)


if __name__ == "__main__":
    sys.exit(main())
