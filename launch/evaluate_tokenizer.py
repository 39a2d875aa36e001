"""Judges a voice tokenizer on held-out clips: what each number of codebooks keeps of speech.

    python launch/evaluate_tokenizer.py --corpus data/amazon_queen_excerpt
    python launch/evaluate_tokenizer.py --tokenizer runs/quickstart/tokenizer --codebooks 8,16,32 --clips 40

Clips are the first of the corpus' test split that last 1.5 s or more. WER is judged by Whisper tiny.en.
"""

import argparse
import sys
from pathlib import Path

from csm import pipeline
from csm.command_line import command, command_parser
from csm.data.manifest import read_corpus
from csm.evaluation.codec_ladder import codec_ladder, held_out_clips, ladder_table
from csm.evaluation.intelligibility import WhisperRecogniser
from csm.tokenizer.conversational_rvq import ConversationalRVQ


def numbers(text: str) -> list[int]:
    """Comma-separated numbers of codebooks."""
    return [int(part) for part in text.split(",")]


def work(options: argparse.Namespace) -> None:
    """Judges."""
    corpus = read_corpus(options.corpus)
    tokenizer = ConversationalRVQ.from_pretrained(options.tokenizer)
    turns = held_out_clips(corpus, options.clips)
    print(
        ladder_table(
            codec_ladder(tokenizer, corpus, turns, options.codebooks, WhisperRecogniser(options.asr))
        )
    )


def main() -> int:
    """The command."""
    parser = command_parser(__doc__)
    packaged = pipeline.PACKAGED / "tokenizer"
    parser.add_argument(
        "--tokenizer", type=Path, default=packaged, metavar="FOLDER", help="default: the packaged one"
    )
    parser.add_argument("--corpus", type=Path, required=True, metavar="FOLDER", help="a prepared corpus")
    parser.add_argument("--codebooks", type=numbers, default=[4, 10, 16, 32], metavar="4,10,16,32")
    parser.add_argument(
        "--clips", type=int, default=60, help="most clips that are judged (default: %(default)s)"
    )
    parser.add_argument(
        "--asr", metavar="NAME", help="Whisper model or folder (default: the packaged tiny.en)"
    )
    return command("evaluate_tokenizer", parser, work)


if __name__ == "__main__":
    sys.exit(main())
