"""Turns recorded conversations into a corpus folder: audio, manifest, reject ledger, totals."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from csm.data.corpora import amazon_queen  # noqa: E402
from csm.data.corpora.folder import prepare_folder  # noqa: E402
from csm.data.corpora.librispeech import prepare_librispeech  # noqa: E402
from csm.data.manifest import Corpus  # noqa: E402

NAMES = ("amazon_queen_excerpt", "amazon_queen", "librispeech", "folder")
EPILOG = """corpora:
  amazon_queen_excerpt   about 50 minutes of acted dialogue that the package carries; no download, seconds
  amazon_queen           the whole of it (271 minutes) from the Debian package: --archive FILE, or apt-get
  librispeech            read speech, --subset dev-clean ... train-other-500; made-up, synthetic turns
  folder                 your own recordings in --source: NAME.wav (any format) with NAME.txt (what the one
                         speaker says) or NAME.json ({"turns": [{"speaker", "start", "end", "text"}, ...]});
                         two channels: one speaker each, found by voice activity where no times are given

examples:
  python launch/prepare_data.py --corpus amazon_queen_excerpt --output corpora/amazon_queen_excerpt
  python launch/prepare_data.py --corpus folder --source my_recordings --output corpora/mine

What is not used stands in OUTPUT/rejects.jsonl with its reason, totals in OUTPUT/corpus.json."""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=raw)
    parser.add_argument("--corpus", required=True, choices=NAMES, help="which corpus (below)")
    parser.add_argument("--output", type=Path, help="corpus folder to be; a finished one is left as it is")
    parser.add_argument("--archive", type=Path, help="amazon_queen: the .deb, else apt-get downloads it")
    parser.add_argument("--source", type=Path, help="your recordings; librispeech: where downloads are kept")
    parser.add_argument("--subset", default="dev-clean", help="librispeech: the part (default: %(default)s)")
    parser.add_argument("--make-excerpt", action="store_true", help="amazon_queen: write the excerpt anew")
    return parser.parse_args(arguments)


def prepare(options: argparse.Namespace) -> Corpus | None:
    if options.make_excerpt:
        print(f"wrote {amazon_queen.make_excerpt(options.output, archive=options.archive)}")
        return None
    if options.output is None:
        raise ValueError("--output DIR is needed: the corpus folder to be")
    if options.corpus == "amazon_queen_excerpt":
        return amazon_queen.prepare_excerpt(options.output)
    if options.corpus == "amazon_queen":
        return amazon_queen.prepare_amazon_queen(options.output, archive=options.archive)
    if options.source is None:
        raise ValueError(f"--source DIR is needed for --corpus {options.corpus}")
    if options.corpus == "librispeech":
        return prepare_librispeech(options.output, downloads=options.source, subset=options.subset)
    return prepare_folder(options.output, source=options.source)


def main(arguments: list[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # paths may hold what a terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        corpus = prepare(parse(arguments))
    except (ValueError, OSError) as error:
        print(f"prepare_data: {error}", file=sys.stderr)
        return 2
    if corpus and (info := corpus.info):
        print(
            f"{corpus.root}: {info['turns_used']} turns, {60 * info['hours']:.1f} minutes of {info['name']}"
        )
        print(f"rejected: {info['turns_rejected']} turns, {info['files_rejected']} files (rejects.jsonl)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
