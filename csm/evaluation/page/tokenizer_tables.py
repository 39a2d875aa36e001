"""The table of a tokenizer's report: a row for each condition, a column for each metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from csm.evaluation.core.report import Cell, Entry, Report, Table
from csm.evaluation.page.figures import FAIR, Column, entries_of, figure
from csm.evaluation.subjects.tokenizer import GROUP

COLUMNS = (
    Column("wer", "WER", "lower", 3),
    Column("pesq_wb", "PESQ-WB", "higher", 2),
    Column("stoi", "STOI", "higher", 3),
    Column("distillmos", "distillMOS", "higher", 2),
    Column("original_similarity", "voice", "higher", 3),
    Column("log_mel_l1", "log-mel L1", "lower", 3),
)


def decoded_from(report: Report) -> str:
    """Says what the decoder was given."""
    if report.details["conditioned"]:
        return "from the codes and each clip's own speaker and emotion embedding"
    return "from the codes alone, without speaker or emotion embedding"


def counted(report: Report) -> str:
    """Says which clips were measured."""
    clips = report.details["clips"]
    return (
        f"{clips['count']} clips ({clips['seconds']:.0f} s) of {clips['conversations']} conversations: "
        f"{clips['origin']}"
    )


def tokenizer_table(report: Report) -> Table:
    """Makes the table of the conditions, with intervals below the means."""
    header = ("condition", "kbit/s", *(column.head for column in COLUMNS), "N ok", "failed")
    rows = [_row(report, condition) for condition in report.details["conditions"]]
    better = ", ".join(f"{column.head} {column.better}" for column in COLUMNS)
    note = (
        f"{counted(report)}. Codebooks are decoded {decoded_from(report)}. Better is: {better}. {FAIR} A "
        f"codec with a delay is aligned with the recording first; the delay that was removed stands below "
        f"its name."
    )
    return Table("What each number of codebooks keeps", header, rows, note)


def _row(report: Report, condition: Mapping[str, Any]) -> tuple[Cell, ...]:
    delay = condition["delay_ms"]
    late = f"{abs(delay):.1f} ms {'late' if delay > 0 else 'early'}" if delay else ""
    kbits = "-" if condition["kbits"] is None else f"{condition['kbits']:.2f}"
    start = (Cell(condition["title"], late), Cell(kbits, condition["bits"].split(":")[0]))
    if condition["missing"]:
        return (*start, Cell("-", condition["missing"]), *(Cell("-") for _ in range(len(COLUMNS) + 1)))
    entries = entries_of(report, GROUP, condition["name"])
    cells = [figure(column, entries.get(column.name)) for column in COLUMNS]
    return (*start, *cells, *_counts(entries))


def _counts(entries: Mapping[str, Entry]) -> tuple[Cell, Cell]:
    """Number of clips with a score, over the metrics, and failures of all metrics together."""
    shown = [entries[column.name] for column in COLUMNS if column.name in entries]
    counts = sorted({entry.n_ok for entry in shown})
    ok = "-" if not counts else f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
    return Cell(ok), Cell(str(sum(entry.n_failed for entry in shown)))


def titles_of(report: Report) -> dict[str, str]:
    """Returns the titles of the conditions by name."""
    return {condition["name"]: condition["title"] for condition in report.details["conditions"]}
