"""Evaluates speech and writes a report: ``report.json`` and a page, ``report.html``.

python launch/evaluate_speech.py --run runs/quickstart --corpus corpora/amazon_queen_excerpt
python launch/evaluate_speech.py --compare runs/a runs/b      (paired bootstrap of two reports)
python launch/evaluate_speech.py --tokenizer csm/weights/tokenizer --corpus data/amazon_queen --output DIR
python launch/evaluate_speech.py --voice csm/weights/voice --corpus data/amazon_queen --output DIR
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path[1:1] = [str(Path(__file__).resolve().parents[1] / part) for part in ("", "kernels")]

from csm.cli.evaluate import add_arguments, run  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    """Evaluates or compares; the exit status is 1 with one line on bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    try:
        run(parser.parse_args(arguments))
    except ValueError as error:
        print(f"evaluate_speech: {error}".encode("ascii", "replace").decode(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
