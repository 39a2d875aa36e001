"""The page of a tokenizer: table, players of every condition side by side, codebooks."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

from csm.evaluation.core.report import Report
from csm.evaluation.page.codebooks import codebook_charts
from csm.evaluation.page.definitions import definitions, footer
from csm.evaluation.page.figures import failures, table_html
from csm.evaluation.page.gallery import NOTE, ConditionLook, Gallery, first_clips
from csm.evaluation.page.tokenizer_tables import counted, decoded_from, titles_of, tokenizer_table
from csm.evaluation.subjects.tokenizer import EvaluatedTokenizer, tokenizer_sets
from csm.evaluation.systems.conditions import Condition
from csm.report.charts import legend
from csm.report.page import page_text, save_page

CHIPS = (
    ("pesq_wb", "PESQ"),
    ("stoi", "STOI"),
    ("distillmos", "distillMOS"),
    ("original_similarity", "voice"),
)
LEGEND = (
    ("recording", "recording"),
    ("resynthesis", "this tokenizer"),
    ("generated", "classical codecs"),
)


def write_tokenizer_page(folder: Path, evaluated: EvaluatedTokenizer) -> Path:
    """Writes report.html into the folder and returns its path."""
    report = evaluated.report
    table = tokenizer_table(report)
    parts = [
        ("table", table.title, table_html(table)),
        ("listen", "Listen", _gallery(evaluated)),
        ("codebooks", "Codebooks", _codebooks(report)),
        ("evaluators", "Evaluators", definitions(report, failures(report, titles_of(report)))),
    ]
    title = f"Tokenizer report: {escape(report.run)}"
    return save_page(folder, page_text(title, _summary(report), parts, footer(report)))


def _summary(report: Report) -> str:
    corpus = f" The corpus is {escape(report.corpus)}." if report.corpus else ""
    return (
        f"{escape(counted(report))}.{corpus} Each as recorded, from the tokenizer's first codebooks, and "
        f"through classical codecs, scored by the same evaluators in one run. Codebooks are decoded "
        f"{decoded_from(report)}. The recipe of its training says whether it left these speakers out. Where "
        f"a recording itself scores low, compare with it."
    )


def look_of(condition: Condition) -> ConditionLook:
    """Returns how a condition is shown: its title with the bit rate, and its colour."""
    tone = "resynthesis" if condition.codebooks else "recording" if condition.kbits is None else "generated"
    rate = "" if condition.kbits is None else f", {condition.kbits:.2f} kbit/s"
    return ConditionLook(title=f"{condition.title}{rate}", tone=tone)


def _gallery(evaluated: EvaluatedTokenizer) -> str:
    """The clips with players: each with its text, and every condition with its transcript."""
    report, conditions = evaluated
    count = len(report.details["clips"]["players"])
    if not count:
        return ""
    sets = first_clips(tokenizer_sets(conditions).sets, count)
    gallery = Gallery.of(report, sets, {one.name: look_of(one) for one in conditions}, CHIPS)
    scores = "word error rate, PESQ-WB, STOI, distillMOS and similarity to the original's voice"
    note = f'<p class="note">{NOTE}; {scores}.</p>'
    absent = "".join(
        f'<p class="note">{escape(one.title)}: {escape(one.missing)}</p>' for one in conditions if one.missing
    )
    texts = report.details.get("read_back", {})
    cards = (
        gallery.card(sets, place, below=_read_back(texts.get(sets[0].clips[place].id, {})))
        for place in range(count)
    )
    return note + legend(LEGEND) + absent + "".join(cards)


def _read_back(texts: Mapping[str, str]) -> str:
    """The letters that the tokenizer's own head reads from the clip's first semantic codebooks."""
    rows = "".join(
        f'<p class="text">{escape(text) or "(nothing)"} <span class="soft">read from the codes of '
        f"{'codebook 0' if count == '1' else f'codebooks 0-{int(count) - 1}'}, letter by letter</span></p>"
        for count, text in texts.items()
    )
    return f'<div class="turn">{rows}</div>' if rows else ""


def _codebooks(report: Report) -> str:
    books = report.details["codebooks"]
    summary = books["summary"]
    note = (
        f'<p class="note">Over these clips alone, {books["frames"]} frames: a codebook cannot show more '
        f"codes than there are frames. Efficiency (entropies over log2 of the sizes) "
        f"{summary['efficiency']:.3f}; "
        f"{summary['entropy_bitrate'] / 1000:.2f} of {summary['bitrate'] / 1000:.2f} kbit/s by entropy; "
        f"{summary['dead_codes']:.0f} codes never occur.</p>"
    )
    return note + codebook_charts(books, books["semantic"])
