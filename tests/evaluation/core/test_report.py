"""A report is the same after it was written and read, and overwrites no other kind."""

import dataclasses
import json

import pytest

from csm.evaluation.core.report import (
    Cell,
    Missing,
    Reference,
    ReferenceRow,
    Report,
    Table,
    load_report,
    refuse_other_report,
    save_report,
)
from tests.evaluation.core.test_comparison import report


def test_a_report_survives_its_json(tmp_path):
    whole = dataclasses.replace(
        report("a", [0.25, None, 0.5]),
        missing=(Missing("distillMOS", "not installed"),),
        details={"clips": {"count": 3}},
        tables=(Table("Probes", ("what", "error"), [(Cell("phones"), Cell("0.5", "0.4 to 0.6"))], "ours"),),
        reference=Reference(
            name="before", rows=(ReferenceRow("m", "lines", "generated", "lines", 0.1, 0.2, [0.1, 0.3]),)
        ),
    )
    save_report(tmp_path, whole)
    read = load_report(tmp_path)
    assert read == whole
    assert read.find("m", "lines", "generated").values[1].reason == "gone"
    assert read.reference.of(read.metrics[0]).difference == 0.2
    assert not list(tmp_path.glob("*.tmp"))


def test_another_schema_or_a_torn_report_says_what_to_do(tmp_path):
    plain = report("a", [0.1]).to_json()
    for changed in ({**plain, "schema_version": 1}, {**plain, "metrics": [{"name": "m"}]}):
        with pytest.raises(ValueError, match="evaluate that run again"):
            Report.from_json(changed)
    (tmp_path / "report.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="cannot read"):
        load_report(tmp_path)


@pytest.mark.parametrize("kind", ["run", "tokenizer", "voice"])
def test_a_report_of_another_kind_is_not_overwritten(tmp_path, kind):
    refuse_other_report(tmp_path, kind)
    for other in ("run", "tokenizer", "voice"):
        (tmp_path / "report.json").write_text(json.dumps({"kind": other}), encoding="utf-8")
        if other == kind:
            refuse_other_report(tmp_path, kind)
        else:
            with pytest.raises(ValueError, match="name another --output"):
                refuse_other_report(tmp_path, kind)
