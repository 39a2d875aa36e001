"""Tables: a label on every cell for cards, intervals in sight, and no text unescaped."""

from importlib.resources import files

import pytest

from csm.report.numbers import percent
from csm.report.tables import Cell, Column, table
from tests.report.html_tree import parse

STYLE = files("csm.report").joinpath("tables.css").read_text(encoding="utf-8")
COLUMNS = [
    Column(head="Metric", numeric=False),
    Column(head="Generated", note="N 8"),
    Column(head="Unit <x>"),
]


def test_every_cell_has_the_label_of_its_column_for_cards():
    page = parse(table(COLUMNS, [["WER", Cell(text="0.1"), "share"], ["F0", "", "Hz"]], caption="Words"))
    assert [cell.attributes["data-label"] for cell in page.all("td")] == ["Generated", "Unit <x>"] * 2
    assert [head.attributes["scope"] for head in page.all("th")] == ["col"] * 3 + ["row"] * 2
    assert page.all("td")[2].children == [], "an empty cell is left out on cards"
    assert page.all("caption")[0].text == "Words" and page.children[0].name == "Words"


def test_the_interval_stands_under_its_value():
    cell = Cell.of(0.25, (0.125, 0.5), form=percent, notes=("2 failed", ""))
    page = parse(table(COLUMNS, [["WER <b>", cell, ""]], caption="t"))
    parts = page.all("td")[0].all("span", "small")
    assert [part.text for part in parts] == ["25.0 %", "12.5 % to 50.0 %", "2 failed"]
    assert "title" not in parts[1].attributes and not page.all("b")
    assert Cell.of(None) == Cell(text="-")


def test_a_cell_without_a_value_is_marked_so_that_cards_leave_it_out():
    page = parse(table(COLUMNS, [["WER", Cell.of(None), Cell(text="-", interval="no codec")]], caption="t"))
    assert [cell.attributes["class"] for cell in page.all("td")] == ["n none", "n"]
    assert ".fold td.none{display:none}" in STYLE


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="row has 2 cells: expected 3"):
        table(COLUMNS, [["a", "b"]], caption="t")
