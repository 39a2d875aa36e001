"""The page: complete in one file, usable by keyboard, on a phone and on paper."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from csm.report.charts import Series, bar_chart, line_chart, plot
from csm.report.media import Sound
from csm.report.page import SCRIPTS, STYLES, folded, page_text, save_page
from csm.report.players import Version, clip_card
from csm.report.summary import Figure, headline, headlines
from csm.report.tables import Column, table
from tests.report.html_tree import Element, parse

SOUND = Sound(uri="data:audio/wav;base64,AA", duration=2.5, extension="wav")
ASSETS = {name: files("csm.report").joinpath(name).read_text(encoding="utf-8") for name in STYLES + SCRIPTS}
PHONE = 360  # CSS pixels


@pytest.fixture(scope="module")
def text() -> str:
    versions = [Version(title=name, tone="generated", sound=SOUND) for name in ("Recording", "Generated")]
    chart = line_chart([Series(label="a", points=[(0, 1), (1, 2)], style="faint")], title="Loss")
    bars = bar_chart([1.0], title="Usage", styles=["a"], labels=["b"], top=1.0, x_title="", y_title="")
    return page_text(
        "Report &amp; more",
        "What it is",
        [
            ("summary", "Summary", headlines([headline("WER", [Figure(label="Generated", value=0.1)])])),
            ("empty", "Empty", ""),
            ("lines", "Lines", clip_card(versions, anchor="line_00", source="JOE", text="Hi", more=versions)),
            ("charts", "Charts", plot("Loss", chart) + plot("Usage", bars)),
            ("tables", "Tables", folded("All", table([Column(head="Metric")], [["WER"]], caption="All"))),
        ],
        "Made in a test",
    )


@pytest.fixture(scope="module")
def page(text: str) -> Element:
    return parse(text.removeprefix("<!doctype html>"))


def test_the_page_is_one_ascii_file_that_fetches_nothing(text, page):
    assert text.isascii() and not re.findall(r"https?:|@import|url\(", text)
    assert not page.all("link")
    sources = [
        one.attributes[name] for one in page.all() for name in ("src", "href") if name in one.attributes
    ]
    assert sources and all(source.startswith(("data:", "#")) for source in sources)


def test_the_contents_list_every_section_that_has_a_body(page):
    (contents,) = page.all("nav")
    assert contents.name == "Contents"
    links = [(one.attributes["href"], one.text) for one in contents.all("a")]
    assert links == [
        ("#summary", "Summary"),
        ("#lines", "Lines"),
        ("#charts", "Charts"),
        ("#tables", "Tables"),
    ]
    ids = [one.attributes["id"] for one in page.all() if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    targets = {one.attributes["href"][1:] for one in page.all("a") if "download" not in one.attributes}
    assert targets <= set(ids) and "top" in targets


def test_every_control_and_picture_has_a_name(page):
    roles = {"slider", "region", "group", "img"}
    controls = [
        one
        for one in page.all()
        if one.tag in ("button", "a", "input", "select", "img", "nav") or one.attributes.get("role") in roles
    ]
    assert len(controls) > 20
    assert not [one for one in controls if not one.name]


def test_every_cell_of_every_table_has_a_label_for_cards(page):
    assert page.all("table") and all("data-label" in cell.attributes for cell in page.all("td"))


def test_the_script_finds_each_of_its_parts_in_the_page(page):
    selectors = set(re.findall(r'"(\.[a-z]+)"', ASSETS["players.js"] + ASSETS["page.js"]))
    assert {".transport", ".switch", ".save", ".player", ".up"} <= selectors
    assert not [name for name in selectors if not page.of_class(name[1:])]
    for name in ("transport", "toggle", "now", "switch", "speed", "volume", "loop", "close", "up"):
        assert len(page.of_class(name)) == 1, f".{name} of the script is not unique"


def test_the_player_bar_is_hidden_at_first_and_absent_without_players(page):
    assert "hidden" in page.of_class("transport")[0].attributes
    silent = page_text("t", "", [("a", "A", "<p>b</p>")], "")
    assert 'class="transport"' not in silent


def test_no_width_exceeds_a_phone():
    for name in STYLES:
        rules = re.sub(r"@media[^{]*", "", ASSETS[name])
        rules = re.sub(r"max-width:[^;}]*|min\([^)]*\)", "", rules)
        wide = [int(size) for size in re.findall(r"(?<![-\w])(?:min-)?width:(\d+)px", rules)]
        assert all(size <= PHONE for size in wide), f"{name}: {wide}"


def test_dark_phone_and_print_have_rules():
    style = "".join(ASSETS[name] for name in STYLES)
    for query in ("prefers-color-scheme:dark", "max-width:600px", "@media print", "prefers-reduced-motion"):
        assert query in style
    light, dark = (re.findall(r"--([a-z]+):", block) for block in re.findall(r":root\{([^}]*)\}", style))
    assert sorted(light) == sorted(dark), "a colour lacks its dark value"


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two #rrggbb or #rgb colours (WCAG 2)."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_text_colour_has_a_contrast_of_4_5_on_both_grounds():
    for block in re.findall(r":root\{([^}]*)\}", ASSETS["page.css"]):
        colours = dict(re.findall(r"--([a-z]+):(#[0-9a-fA-F]+)", block))
        tones = ("ink", "soft", "recording", "resynthesis", "generated", "reference", "wrong", "right")
        pairs = [(tone, ground) for tone in tones for ground in ("ground", "paper")]
        pairs += [("wrong", "wrongback"), ("ink", "shade")]
        weak = [pair for pair in pairs if contrast(colours[pair[0]], colours[pair[1]]) < 4.5]
        assert not weak


def test_folded_parts_are_closed_unless_asked_for():
    assert "open" not in parse(folded("All", "<p></p>")).children[0].attributes
    assert "open" in parse(folded("All", "<p></p>", opened=True)).children[0].attributes
    assert folded("All", "") == ""


def test_a_saved_page_appears_whole(tmp_path, text):
    path = save_page(tmp_path, text)
    assert path == tmp_path / "report.html" and path.read_text(encoding="utf-8") == text
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]
