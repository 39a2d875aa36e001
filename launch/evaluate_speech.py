"""Judges what a run has said and writes its report: ``report.json`` and a page, ``report.html``.

python launch/evaluate_speech.py --run runs/quickstart --corpus corpora/amazon_queen_excerpt
python launch/evaluate_speech.py --compare runs/a runs/b      (paired bootstrap of two reports)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path[1:1] = [str(Path(__file__).resolve().parents[1] / part) for part in ("", "kernels")]

from csm.evaluation.comparison import compare_reports, comparison_table  # noqa: E402
from csm.evaluation.material import SuiteOptions  # noqa: E402
from csm.evaluation.report import write_page  # noqa: E402
from csm.evaluation.suite import evaluate  # noqa: E402
from csm.evaluation.table import report_table  # noqa: E402


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="folder of a run, with speech/speech.jsonl in it")
    parser.add_argument("--corpus", type=Path, help="corpus folder: reference recordings of the speakers")
    parser.add_argument(
        "--asr", help="faster-whisper model, by name or folder (default: the packaged tiny.en)"
    )
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="two runs or report.json")
    parser.add_argument("--keep", action="store_true", help="leave a report that is newer than the speech")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--workers", type=int, default=2, help="judges at the same time")
    options = parser.parse_args(arguments)
    if (options.run is None) == (options.compare is None):
        parser.error("give --run DIR or --compare A B, one of them")
    return options


def say(message: str) -> None:
    """One progress line that any terminal can show."""
    print(f"  {message}".encode("ascii", "replace").decode(), flush=True)


def is_judged(run: Path) -> bool:
    """Whether the run has a report that is newer than its speech."""
    page, speech = run / "report.html", run / "speech" / "speech.jsonl"
    return page.is_file() and speech.is_file() and page.stat().st_mtime >= speech.stat().st_mtime


def main(arguments: list[str] | None = None) -> int:
    """Evaluates or compares; the exit status is 1 with one line on bad input."""
    options = parse(arguments)
    try:
        if options.compare:
            print(comparison_table(compare_reports(*options.compare, seed=options.seed)))
            return 0
        if options.keep and is_judged(options.run):
            print(f"report: {options.run / 'report.html'} (the evaluation is complete; nothing to do)")
            return 0
        settings = SuiteOptions(asr=options.asr, seed=options.seed, workers=options.workers)
        report = evaluate(options.run, options.corpus, settings, say=say)
        print(report_table(report))
        print(f"report: {write_page(options.run, report)}")
    except ValueError as error:
        print(f"evaluate_speech: {error}".encode("ascii", "replace").decode(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
