"""Writes a corpus folder in a layout that others read.

csm export corpus --corpus data/mine --format moshi --output exported
"""

from __future__ import annotations

import argparse
from pathlib import Path

from csm.data.exports.lhotse_cuts import write_lhotse
from csm.data.exports.moshi_finetune import write_moshi_finetune
from csm.data.exports.parquet import write_parquet
from csm.data.manifest import read_corpus
from csm.system.files import new_folder

FORMATS = {"moshi": write_moshi_finetune, "lhotse": write_lhotse, "parquet": write_parquet}
EPILOG = """formats:
  moshi     moshi-finetune's stereo layout: data.jsonl, data_stereo/NAME.wav and NAME.json (two speakers)
  lhotse    cuts.jsonl, recordings.jsonl, supervisions.jsonl; the audio stays in the corpus folder
  parquet   a Hugging Face dataset with an Audio column, one row a turn (pyarrow)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("--corpus", type=Path, required=True, metavar="FOLDER", help="folder of the corpus")
    parser.add_argument("--format", required=True, choices=FORMATS, help="layout of the export (below)")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="new folder of the export"
    )


def run(options: argparse.Namespace) -> None:
    """Writes the export and prints what it holds."""
    corpus = read_corpus(options.corpus)
    if options.output.exists():
        raise ValueError(f"--output is {options.output}: expected a new folder; choose another")
    with new_folder(options.output) as partial:
        left_out = FORMATS[options.format](corpus, partial)
    kept = len(corpus.conversations) - len(left_out)
    print(f"{options.output}: {kept} of {len(corpus.conversations)} conversations as {options.format}")
    for name, reason in left_out:
        print(f"left out: {name} {reason}".encode("ascii", "backslashreplace").decode())
