"""The table of a tokenizer's report: a row a version, a column a metric, for terminals and for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

Entry = Mapping[str, Any]


class Column(NamedTuple):
    """One metric in the table.

    Attributes:
        name: Of the metric in the report. head: Of the column. better: lower or higher.
        places: Decimals; one number for a column, so that its rows can be compared at a glance.
    """

    name: str
    head: str
    better: str
    places: int

    def written(self, value: float | None) -> str:
        """A value of the column; a dash for none."""
        return "-" if value is None else f"{value:.{self.places}f}"


COLUMNS = (
    Column("wer", "WER", "lower", 3),
    Column("pesq_wb", "PESQ-WB", "higher", 2),
    Column("stoi", "STOI", "higher", 3),
    Column("distillmos", "distillMOS", "higher", 2),
    Column("original_similarity", "voice", "higher", 3),
    Column("log_mel_l1", "log-mel L1", "lower", 3),
)


def entries_of(report: Mapping[str, Any], version: str) -> dict[str, Entry]:
    """The report's entries of one version by the name of their metric."""
    return {entry["name"]: entry for entry in report["metrics"] if entry["condition"] == version}


def decoded_from(report: Mapping[str, Any]) -> str:
    """What the decoder was given, in words."""
    if report["conditioned"]:
        return "from the codes and each clip's own speaker and emotion embedding"
    return "from the codes alone, without speaker or emotion embedding"


def counted(report: Mapping[str, Any]) -> str:
    """Which clips were judged, in words."""
    clips = report["clips"]
    return (
        f"{clips['count']} clips ({clips['seconds']:.0f} s) of {clips['conversations']} conversations: "
        f"{clips['origin']}"
    )


def judged_counts(entries: Mapping[str, Entry]) -> tuple[str, int, list[str]]:
    """How many clips were judged (over the metrics), failures of all metrics together, and their reasons."""
    shown = [(column.head, entries[column.name]) for column in COLUMNS if column.name in entries]
    counts = sorted({entry["n_ok"] for _, entry in shown})
    judged = "-" if not counts else f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
    reasons = [
        f"{head}: {reason} ({count})" for head, entry in shown for reason, count in entry["failures"].items()
    ]
    return judged, sum(entry["n_failed"] for _, entry in shown), reasons


def ladder_text(report: Mapping[str, Any]) -> str:
    """Two ASCII lines a version: the means, and below them their 95 % intervals; then why clips failed."""
    heads = "".join(f"{column.head:>13}" for column in COLUMNS)
    lines = [f"{'version':<15}{'kbit/s':>8}{heads}{'N ok':>9}{'failed':>8}"]
    notes = []
    for version in report["versions"]:
        kbits = "-" if version["kbits"] is None else f"{version['kbits']:.2f}"
        if version["missing"]:
            lines.append(f"{version['title']:<15}{kbits:>8}   {version['missing']}")
            continue
        entries = entries_of(report, version["name"])
        judged, lost, reasons = judged_counts(entries)
        means = "".join(f"{_mean(column, entries.get(column.name)):>13}" for column in COLUMNS)
        lines.append(f"{version['title']:<15}{kbits:>8}{means}{judged:>9}{lost:>8}")
        intervals = "".join(f"{_interval(column, entries.get(column.name)):>13}" for column in COLUMNS)
        lines.append(f"{'':<23}{intervals}".rstrip())
        notes += [f"{version['title']}: {reason}" for reason in reasons]
    if any("*" in line for line in lines):
        lines.append("* of the clips that were judged; no fair mean exists, because others failed")
    lines += [f"failed: {note}" for note in notes]
    lines += [f"missing: {missing['reason']}" for missing in report["missing"]]
    lines += [f"{counted(report)}.", f"Codebooks are decoded {decoded_from(report)}."]
    lines.append("Below each mean its 95 % bootstrap interval over conversations.")
    return "\n".join(line for line in lines if line).encode("ascii", "replace").decode()


def extra_text(tables: Sequence[Mapping[str, Any]]) -> str:
    """The further tables of a report in ASCII, each with its title and note."""
    blocks = []
    for table in tables:
        rows = [tuple(table["header"]), *(tuple(row) for row in table["rows"])]
        widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
        blocks.append("\n".join([table["title"], *(line.rstrip() for line in lines), table["note"]]))
    return "\n\n".join(blocks).encode("ascii", "replace").decode()


def _mean(column: Column, entry: Entry | None) -> str:
    if entry is None:
        return "-"
    if entry["mean"] is None and entry["mean_of_judged"] is not None:
        return column.written(entry["mean_of_judged"]) + "*"
    return column.written(entry["mean"])


def _interval(column: Column, entry: Entry | None) -> str:
    if entry is None or entry["ci95"] is None:
        return ""
    return "{}-{}".format(*map(column.written, entry["ci95"]))


def ladder_html(report: Mapping[str, Any]) -> str:
    """The same table for the page."""
    heads = "".join(
        f'<th class="n">{escape(column.head)}<small>{column.better} is better</small></th>'
        for column in COLUMNS
    )
    rows = "".join(_row(report, version) for version in report["versions"])
    return (
        f'<div class="scroll"><table><tr><th>Version</th><th class="n">kbit/s</th>{heads}'
        f'<th class="n">N ok</th><th>Failed</th></tr>{rows}</table></div>'
    )


def _row(report: Mapping[str, Any], version: Mapping[str, Any]) -> str:
    kbits = "-" if version["kbits"] is None else f"{version['kbits']:.2f}"
    source = version["bits"].split(":")[0]
    delay = version["delay_ms"]
    late = f"<small>{abs(delay):.1f} ms {'late' if delay > 0 else 'early'}</small>" if delay else ""
    start = (
        f"<tr><td>{escape(version['title'])}{late}</td>"
        f'<td class="n" title="{escape(version["bits"], quote=True)}">{kbits}'
        f"<small>{escape(source)}</small></td>"
    )
    if version["missing"]:
        return f'{start}<td class="soft" colspan="{len(COLUMNS) + 2}">{escape(version["missing"])}</td></tr>'
    entries = entries_of(report, version["name"])
    judged, lost, reasons = judged_counts(entries)
    cells = "".join(_cell(column, entries.get(column.name)) for column in COLUMNS)
    why = "".join(f"<small>{escape(reason)}</small>" for reason in reasons)
    bad = " class=bad" if lost else ""
    return f'{start}{cells}<td class="n">{judged}</td><td{bad}>{lost}{why}</td></tr>'


def _cell(column: Column, entry: Entry | None) -> str:
    if entry is None:
        return '<td class="n">-</td>'
    below = (
        "" if entry["ci95"] is None else "<small>{} to {}</small>".format(*map(column.written, entry["ci95"]))
    )
    if entry["mean"] is None and entry["mean_of_judged"] is not None:
        below = f"<small>{column.written(entry['mean_of_judged'])} without the failed</small>"
    return f'<td class="n">{column.written(entry["mean"])}{below}</td>'


def extra_html(tables: Sequence[Mapping[str, Any]]) -> str:
    """The further tables of a report for the page; empty without any."""
    blocks = []
    for table in tables:
        rows = _line("th", table["header"]) + "".join(_line("td", row) for row in table["rows"])
        blocks.append(
            f'<h3>{escape(table["title"])}</h3><div class="scroll"><table>{rows}</table></div>'
            f'<p class="note">{escape(table["note"])}</p>'
        )
    return "".join(blocks)


def _line(tag: str, texts: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts) + "</tr>"
