"""The page of an evaluation of codes: every table, escaped, and what is missing."""

from csm.evaluation.core.report import Cell, Missing, Report, Table
from csm.evaluation.page.codes_page import write_codes_page

ROW = (Cell("0-9"), Cell("0.71", "0.70 to 0.72"))
TABLE = Table("Words from <codes>", ("codebooks", "accuracy"), [ROW], "A probe of ours.")


def test_the_page_has_every_table_and_what_is_missing(tmp_path):
    report = Report(
        kind="codes",
        run="a/tokenizer",
        corpus="some corpus",
        seed=0,
        repeats=10,
        hardware="a machine",
        software={},
        metrics=(),
        missing=(Missing("ceiling", "no <recogniser>"),),
        details={},
        conditions=(),
        tables=(TABLE, TABLE._replace(title="Other")),
    )
    page = write_codes_page(tmp_path, report).read_text(encoding="utf-8")
    for text in (
        "Words from &lt;codes&gt;",
        "Other",
        "0.70 to 0.72",
        "A probe of ours.",
        "no &lt;recogniser&gt;",
    ):
        assert text in page
