"""Makes a voice folder of a finished run: model, tokenizer and speakers, for launch/speak.py and Talker.

python launch/export_voice.py --run runs/quickstart --output my_voice
python launch/speak.py --voice my_voice "I had a plane to catch."

From Python: Talker.from_pretrained("my_voice").generate("I had a plane to catch.").
"""

import argparse
import sys
from pathlib import Path

from csm.command_line import command, command_parser, device_of
from csm.recipes import pipeline


def work(options: argparse.Namespace) -> None:
    """Writes the folder."""
    if (options.output / "voices.json").exists():
        raise ValueError(f"{options.output} holds a voice already: choose another --output")
    talker = pipeline.trained_talker(options.run, device_of(options), corpus=options.corpus, all_voices=True)
    talker.save_pretrained(options.output, half=not options.whole, tokenizer=not options.no_tokenizer)
    size = sum(path.stat().st_size for path in options.output.rglob("*") if path.is_file())
    print(f"{options.output}: {len(talker.voices)} voices, {size / 1e6:.1f} MB")


def main() -> int:
    """The command."""
    parser = command_parser(__doc__)
    parser.add_argument(
        "--run", type=Path, required=True, metavar="FOLDER", help="of a finished launch/train.py"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="where the voice is written"
    )
    parser.add_argument("--whole", action="store_true", help="fp32 weights (default: half precision)")
    parser.add_argument(
        "--no-tokenizer", action="store_true", help="use the one in a folder beside: tokenizer/"
    )
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="of the corpus, where it has moved")
    return command("export_voice", parser, work)


if __name__ == "__main__":
    sys.exit(main())
