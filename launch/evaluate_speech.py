"""Judges speech and writes a report: ``report.json`` and a page, ``report.html``.

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

from csm.evaluation import tokenizer_command, voice_command  # noqa: E402
from csm.evaluation.comparison import compare_reports, comparison_table  # noqa: E402
from csm.evaluation.material import SuiteOptions  # noqa: E402
from csm.evaluation.report import is_judged, write_page  # noqa: E402
from csm.evaluation.suite import evaluate  # noqa: E402
from csm.evaluation.table import report_table  # noqa: E402


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="folder of a run, with speech/speech.jsonl in it")
    parser.add_argument("--corpus", type=Path, help="corpus folder: reference recordings, or held-out clips")
    parser.add_argument(
        "--asr", help="faster-whisper model, by name or folder (default: the packaged tiny.en)"
    )
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="two runs or report.json")
    parser.add_argument("--keep", action="store_true", help="leave a report that is newer than the speech")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap and of the clips drawn")
    parser.add_argument("--workers", type=int, default=2, help="judges at the same time")
    tokenizer_command.add_arguments(parser)
    voice_command.add_arguments(parser)
    options = parser.parse_args(arguments)
    if sum(vars(options)[name] is not None for name in ("run", "compare", "tokenizer", "voice")) != 1:
        parser.error("give --run DIR, --compare A B, --tokenizer FOLDER or --voice FOLDER, one of them")
    if (options.tokenizer or options.voice) and not (options.corpus and options.output):
        parser.error("--tokenizer and --voice need --corpus FOLDER, to take clips from, and --output DIR")
    return options


def say(message: str) -> None:
    """One progress line that any terminal can show."""
    print(f"  {message}".encode("ascii", "replace").decode(), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Evaluates or compares; the exit status is 1 with one line on bad input."""
    options = parse(arguments)
    try:
        if options.compare:
            print(comparison_table(compare_reports(*options.compare, seed=options.seed)))
            return 0
        if options.tokenizer or options.voice:
            judge = (tokenizer_command if options.tokenizer else voice_command).judge
            print(f"report: {judge(options, say)}")
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
