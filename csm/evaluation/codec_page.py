"""The page of a tokenizer's report: table, players of every version side by side, codebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from csm.evaluation.codec_ladder import Judged
from csm.evaluation.codec_tables import counted, decoded_from, extra_html, ladder_html
from csm.evaluation.codec_versions import Version
from csm.evaluation.report_clips import ClipValues, chips, marked
from csm.evaluation.report_codebooks import codebook_charts
from csm.evaluation.report_tables import judges
from csm.evaluation.suite import save_report
from csm.report.media import PAGE_AUDIO_BYTES, sound_of
from csm.report.page import page_text, save_page
from csm.report.players import player

EXTRA_HEADING = "What the codes carry"
CHIPS = (
    ("pesq_wb", "PESQ"),
    ("stoi", "STOI"),
    ("distillmos", "distillMOS"),
    ("original_similarity", "voice"),
)
_BYTES_PER_SAMPLE = 1.2  # of FLAC of 16-bit speech: 0.6 of WAV


def write_ladder(folder: Path, judged: Judged) -> Path:
    """Writes ``report.json`` and ``report.html`` into the folder, which is made; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    report = judged.report
    save_report(folder, report)
    parts = [
        ("table", "What each number of codebooks keeps", _table(report)),
        ("listen", "Listen", _gallery(judged)),
        ("codebooks", "Codebooks", _codebooks(report)),
        ("codes", EXTRA_HEADING, extra_html(report["extra_tables"])),
        ("judges", "Judges", judges(report, pictures=True)),
    ]
    footer = (
        f"Seed {report['seed']}, schema {report['schema_version']}. Judges ran on "
        f"{escape(report['hardware'])}. The figures are in report.json."
    )
    title = f"Tokenizer report: {escape(str(report['run']))}"
    return save_page(folder, page_text(title, _summary(report), parts, footer))


def _summary(report: Mapping[str, Any]) -> str:
    corpus = f" The corpus is {escape(str(report['corpus']))}." if report["corpus"] else ""
    return (
        f"{escape(counted(report))}.{corpus} Each as it was recorded, from the tokenizer's first codebooks, "
        f"and after classical codecs, heard by the same judges in one run. Codebooks are decoded "
        f"{decoded_from(report)}. Whether its training left these speakers out, "
        f"its recipe tells. Where a recording itself scores low, read the difference from it."
    )


def _table(report: Mapping[str, Any]) -> str:
    note = (
        '<p class="note">Mean and 95 % bootstrap interval over conversations. A failed clip counts at the '
        "worst end of the scale; where a scale has no end the mean is withheld, so that nothing is gained by "
        "a clip that is missing. A codec that answers late is put in step with the recording first; what was "
        "taken off stands under its name.</p>"
    )
    return note + ladder_html(report)


def _gallery(judged: Judged) -> str:
    """The clips that can be heard: for each the transcript, and every version with what was heard in it."""
    heard = judged.report["clips"]["heard"]
    present = [version for version in judged.versions if not version.missing]
    if not heard:
        return ""
    samples = sum(
        0 if clip.waveform is None else len(clip.waveform)
        for version in present
        for clip in version.clips[: len(heard)]
    )
    lossless = samples * _BYTES_PER_SAMPLE < PAGE_AUDIO_BYTES
    values = ClipValues.of(judged.report)
    note = (
        '<p class="note">Under each player: what the recogniser heard, wrong or added words marked, missing '
        "words struck through. Below it WER, PESQ-WB, STOI, distillMOS and similarity to the original's "
        "voice.</p>"
    )
    legend = (
        '<div class="legend"><span class="recording"><i></i>recording</span><span class="resynthesis"><i></i>'
        'this tokenizer</span><span class="generated"><i></i>classical codecs</span></div>'
    )
    absent = "".join(
        f'<p class="note">{escape(version.title)}: {escape(version.missing)}</p>'
        for version in judged.versions
        if version.missing
    )
    items = [_item(place, present, values, lossless=lossless) for place in range(len(heard))]
    return note + legend + absent + "".join(items)


def _item(place: int, versions: Sequence[Version], values: ClipValues, *, lossless: bool) -> str:
    clip = versions[0].clips[place]
    cells = "".join(_version(version, place, values, lossless=lossless) for version in versions)
    where = f"{escape(clip.speaker)} &middot; {escape(clip.conversation)}"
    return (
        f'<article class="item" id="{escape(clip.id, quote=True)}"><div class="who">{where}</div>'
        f'<p class="text">{escape(clip.text)}</p><div class="versions">{cells}</div></article>'
    )


def _version(version: Version, place: int, values: ClipValues, *, lossless: bool) -> str:
    clip = version.clips[place]
    style = "resynthesis" if version.codebooks else "recording" if version.kbits is None else "generated"
    rate = "" if version.kbits is None else f", {version.kbits:.2f} kbit/s"
    sound = None  # its absence is counted as a failure by every judge
    if clip.waveform is not None and len(clip.waveform):
        sound = sound_of(clip.waveform[None], clip.sample_rate, lossless=lossless)
    wer = values.of_clip("wer", version.name, clip.id)
    words = f'<p class="heard">{marked(clip.text, wer["detail"] or "")}</p>' if wer else ""
    return (
        f'<div class="version {style}"><h4>{escape(version.title)}{rate}</h4>'
        + player(sound, style, f"{version.title}: {clip.text}")
        + words
        + chips(values, version.name, clip.id, CHIPS)
        + "</div>"
    )


def _codebooks(report: Mapping[str, Any]) -> str:
    books = report["details"]["codebooks"]
    summary = books["summary"]
    note = (
        f'<p class="note">Over the judged clips alone, {books["frames"]} frames: a codebook cannot show more '
        f"codes than there are frames. Efficiency (entropies over log2 of the sizes) "
        f"{summary['efficiency']:.3f}; {summary['entropy_bitrate'] / 1000:.2f} of "
        f"{summary['bitrate'] / 1000:.2f} kbit/s by entropy; {summary['dead_codes']:.0f} codes never "
        "occur.</p>"
    )
    return note + codebook_charts(books, books["semantic"])
