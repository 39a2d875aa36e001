"""The report of an evaluation: one type, one JSON form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from csm.evaluation.core.metric import MetricInfo, Score
from csm.system.files import write_atomically

SCHEMA_VERSION = 2
REPORT_FILE = "report.json"


@dataclass(frozen=True, kw_only=True)
class Entry(MetricInfo):
    """One metric of one group of clips in one condition.

    Attributes:
        group, condition: Which clips.
        n_in, n_ok, n_failed: Number of inputs, of those scored and of those failed.
        failures: Number of failed inputs by reason.
        mean: Mean with failures at the worst end of the scale; None where no fair mean exists.
        mean_of_scored: Mean of the inputs that have a value.
        ci95: 95 % bootstrap interval of the mean over conversations.
        conversations: Number of conversations.
        values: Scores clip by clip; empty for a metric of all clips together.
        quantiles: "n", "p50", "p90" and "p99" where they matter, as for waiting times.
        median_ci95: 95 % bootstrap interval of "p50".
    """

    group: str
    condition: str
    n_in: int
    n_ok: int
    n_failed: int
    failures: Mapping[str, int]
    mean: float | None
    mean_of_scored: float | None
    ci95: Sequence[float] | None = None
    conversations: int
    values: Sequence[Score] = ()
    quantiles: Mapping[str, float] | None = None
    median_ci95: Sequence[float] | None = None


class Missing(NamedTuple):
    """What could not be measured: the section of the evaluation, and the reason in one sentence."""

    section: str
    reason: str


class Cell(NamedTuple):
    """A cell of a table: its text, and a smaller line below it such as an interval."""

    text: str
    below: str = ""


class Table(NamedTuple):
    """A table with finished cells.

    Attributes:
        title: Heading. header: Name of each column.
        rows: Rows from top to bottom, as many cells as `header` has names.
        note: How it was measured, and what it does not show.
        words: Number of columns, from the left, that hold words; the others hold figures.
    """

    title: str
    header: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    note: str = ""
    words: int = 1


class ReferenceRow(NamedTuple):
    """A metric of this report beside the same metric of a finished report.

    Attributes:
        name, group, condition: Which entry of this report.
        of_group: Group of the entry in the finished report.
        mean: Mean in the finished report.
        difference: Mean in this report minus that one.
        ci95: 95 % interval of the difference, None where the clips are not the same.
    """

    name: str
    group: str
    condition: str
    of_group: str
    mean: float
    difference: float
    ci95: list[float] | None


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A finished report that this one stands beside: its name, and a row for each metric of both."""

    name: str
    rows: tuple[ReferenceRow, ...]

    def of(self, entry: Entry) -> ReferenceRow | None:
        """Returns the row of an entry, None where the finished report has no such metric."""
        key = (entry.name, entry.group, entry.condition)
        return next((row for row in self.rows if row[:3] == key), None)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of an evaluation.

    Attributes:
        kind: What was evaluated: "run", "tokenizer", "codes", "voice", "texts" or "pronunciation".
        run: Name of what was evaluated.
        corpus: Name of the corpus, None without one.
        seed: Seed of the bootstrap and of the draws of clips.
        repeats: Bootstrap repeats; whole conversations are resampled.
        conditions: Names of the conditions.
        hardware, software: What the evaluators ran on.
        metrics: All entries.
        missing: What could not be measured, with reasons.
        details: Named data for the page, as JSON values.
        tables: Further tables.
        reference: The finished report beside this one, None without one.
    """

    kind: str
    run: str
    corpus: str | None
    seed: int
    repeats: int
    conditions: Sequence[str]
    hardware: str
    software: Mapping[str, str]
    metrics: tuple[Entry, ...]
    missing: tuple[Missing, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    reference: Reference | None = None

    def find(self, name: str, group: str, condition: str) -> Entry | None:
        """Returns one entry, None where the report has none."""
        key = (name, group, condition)
        return next((e for e in self.metrics if (e.name, e.group, e.condition) == key), None)

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON values."""
        plain = {item.name: getattr(self, item.name) for item in fields(self)}
        plain |= {
            "schema_version": SCHEMA_VERSION,
            "conditions": list(self.conditions),
            "metrics": [_without_none(asdict(entry), ("quantiles", "median_ci95")) for entry in self.metrics],
            "missing": [missing._asdict() for missing in self.missing],
            "tables": [table._asdict() for table in self.tables],
            "reference": None,
        }
        if self.reference is not None:
            rows = [row._asdict() for row in self.reference.rows]
            plain["reference"] = {"name": self.reference.name, "rows": rows}
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Report:
        """Builds a report from the values of `to_json`.

        Raises:
            ValueError: The values are of another schema version or lack a field.
        """
        if not isinstance(plain, Mapping) or plain.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(f"no report of schema version {SCHEMA_VERSION}: evaluate that run again")
        known = {item.name: plain[item.name] for item in fields(cls) if item.name in plain}
        try:
            reference = known.get("reference")
            known["metrics"] = tuple(
                Entry(**{**entry, "values": tuple(Score(**value) for value in entry["values"])})
                for entry in known["metrics"]
            )
            known["missing"] = tuple(Missing(**missing) for missing in known["missing"])
            known["tables"] = tuple(_table(table) for table in known["tables"])
            if reference is not None:
                rows = tuple(ReferenceRow(**row) for row in reference["rows"])
                known["reference"] = Reference(name=reference["name"], rows=rows)
            return cls(**known)
        except (TypeError, KeyError) as error:
            raise ValueError(f"the report is not complete ({error}): evaluate that run again") from error


def _without_none(entry: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if value is not None or key not in names}


def _table(plain: Mapping[str, Any]) -> Table:
    rows = [tuple(Cell(*cell) for cell in row) for row in plain["rows"]]
    return Table(**{**plain, "header": tuple(plain["header"]), "rows": rows})


def save_report(folder: Path, report: Report) -> Path:
    """Writes report.json into the folder, whole or not at all, and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report.to_json(), indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    path = folder / REPORT_FILE
    write_atomically(path, text + "\n")
    return path


def load_report(path: Path) -> Report:
    """Reads a report.json, or that of a folder.

    Raises:
        ValueError: There is none, or it is of another schema version.
    """
    path = path / REPORT_FILE if path.is_dir() else path
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}; evaluate that run first") from error
    try:
        return Report.from_json(plain)
    except ValueError as error:
        raise ValueError(f"{path} is {error}") from error


def refuse_other_report(folder: Path, kind: str) -> None:
    """Refuses to overwrite a report of another kind.

    Raises:
        ValueError: report.json in `folder` is of another kind, or cannot be read.
    """
    path = folder / REPORT_FILE
    if not path.is_file():
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("kind", "run")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): delete it or name another --output") from error
    if found != kind:
        raise ValueError(f"{path} is the report of a {found}: name another --output for that of a {kind}")
