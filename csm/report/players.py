"""Players: clips to listen to, the versions of a clip side by side, and words that were recognised wrongly.

`players.js` gives them one shared bar with version switch, speed, volume and loop.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from csm.report.media import Sound

PLAY = '<svg class="play" viewBox="0 0 12 12" aria-hidden="true"><path d="M2.5 0.8v10.4L11 6z"/></svg>'
PAUSE = '<svg class="pause" viewBox="0 0 12 12" aria-hidden="true"><path d="M2 1h3v10H2zM7 1h3v10H7z"/></svg>'
SAVE = '<svg viewBox="0 0 12 12" aria-hidden="true"><path d="M6 1v7M3 5.5 6 8.5l3-3M1.5 11h9"/></svg>'


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A small value below a player.

    Attributes:
        text: Name and value.
        title: Explanation, as a tooltip.
        bad: Whether it takes the colour of errors.
    """

    text: str
    title: str = ""
    bad: bool = False


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of a clip.

    Attributes:
        title: Name of the version, such as `Recording`.
        tone: Class of its colour: recording, resynthesis or generated.
        sound: The audio; None where there is none, with the reason in `missing`.
        picture: Data URI of a spectrogram.
        transcript: HTML of the recognised words, from `word_differences`.
        chips: Small values below the transcript.
        missing: Reason for a sound that is None.
    """

    title: str
    tone: str
    sound: Sound | None
    picture: str | None = None
    transcript: str = ""
    chips: Sequence[Chip] = ()
    missing: str = "no audio"


@dataclass(frozen=True, kw_only=True)
class WordSpan:
    """A stretch of an aligned transcript.

    Attributes:
        kind: Type of the edit that turns the expected words into the recognised ones.
        expected: Words of the text.
        recognised: Words of the transcript.
    """

    kind: Literal["equal", "delete", "insert", "substitute"]
    expected: str
    recognised: str


def player(sound: Sound | None, tone: str, label: str, *, missing: str = "no audio") -> str:
    """Returns a play button, the waveform as a slider, the length and a download link.

    Args:
        sound: The audio; None shows `missing` instead.
        tone: Class of the colour.
        label: Accessible name of the clip; the name of a downloaded file is made from it.
        missing: Reason for a sound that is None.
    """
    if sound is None:
        return f'<p class="soft">{escape(missing)}</p>'
    name = escape(label, quote=True)
    wave = f'<svg viewBox="0 0 90 20" preserveAspectRatio="none" aria-hidden="true">{_outline(sound)}</svg>'
    return (
        f'<div class="player {tone}" data-duration="{sound.duration:.3f}" data-label="{name}">'
        f'<button type="button" aria-label="Play {name}">{PLAY}{PAUSE}</button>'
        f'<div class="wave" role="slider" tabindex="0" aria-label="Position in {name}" aria-valuemin="0" '
        f'aria-valuemax="{sound.duration:.2f}" aria-valuenow="0" '
        f'aria-valuetext="0.0 of {sound.duration:.1f} seconds">'
        f"{wave}{wave.replace('<svg ', '<svg class=done ', 1)}</div>"
        f"<time>{sound.duration:.1f} s</time>"
        f'<a class="save" href="#" download="{file_name(label)}.{sound.extension}" '
        f'aria-label="Download {name}" title="Download">{SAVE}</a>'
        f'<audio preload="none" controls src="{sound.uri}"></audio></div>'
    )


def versions(label: str, items: Sequence[Version], more: Sequence[Version] = ()) -> str:
    """Returns the versions of one clip side by side; the keys 1 to 9 switch between them.

    Args:
        label: Name of the clip, such as its text.
        items: Versions from left to right.
        more: Further versions, folded away.
    """
    name = escape(f"Versions of {label}", quote=True)
    folded = f"<details><summary>other versions</summary>{_grid(label, more)}</details>" if more else ""
    return f'<div class="set" role="group" aria-label="{name}">{_grid(label, items)}{folded}</div>'


def clip_card(
    items: Sequence[Version],
    *,
    anchor: str,
    source: str,
    text: str,
    more: Sequence[Version] = (),
    note: str = "",
    below: str = "",
) -> str:
    """Returns a clip with its text and versions.

    Args:
        items: Versions side by side.
        anchor: Id of the element in the page.
        source: Speaker and place, in a small line above the text.
        text: What is said.
        more: Further versions, folded away.
        note: Small line below the text.
        below: HTML below the versions.
    """
    return (
        f'<article class="item" id="{escape(anchor, quote=True)}"><p class="who">{escape(source)}</p>'
        + (f'<p class="text">{escape(text)}</p>' if text else "")
        + (f'<p class="soft">{escape(note)}</p>' if note else "")
        + f"{versions(text or source, items, more)}{below}</article>"
    )


def turn_list(turns: Sequence[tuple[str, str, Sequence[Version]]]) -> str:
    """Returns the turns of a dialogue, folded away: (speaker, text, versions) of each."""
    rows = "".join(
        f'<div class="turn"><p class="who">{escape(speaker)}</p><p class="text">{escape(text)}</p>'
        f"{versions(text, items)}</div>"
        for speaker, text, items in turns
    )
    return f"<details><summary>{len(turns)} turns, one by one</summary>{rows}</details>" if turns else ""


def word_differences(spans: Sequence[WordSpan]) -> str:
    """Returns recognised words: wrong and added ones marked, missing words of the text struck through."""
    if not spans:
        return '<span class="soft">(nothing)</span>'
    parts = []
    for span in spans:
        if span.kind == "equal":
            parts.append(escape(span.recognised))
        elif span.kind == "delete":
            parts.append(f"<del>{escape(span.expected)}</del>")
        else:
            title = f"text: {escape(span.expected, quote=True)}" if span.expected else "added"
            parts.append(f'<mark title="{title}">{escape(span.recognised)}</mark>')
    return " ".join(parts)


def chip_row(chips: Sequence[Chip]) -> str:
    """Returns small values in a row; empty without any."""
    cells = "".join(
        f"<span{' class=bad' if chip.bad else ''}{_title(chip.title)}>{escape(chip.text)}</span>"
        for chip in chips
    )
    return f'<div class="chips">{cells}</div>' if cells else ""


def file_name(label: str) -> str:
    """Returns a file name of letters, digits and hyphens, without an ending."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")[:60].rstrip("-") or "clip"


def _grid(label: str, items: Sequence[Version]) -> str:
    return f'<div class="versions">{"".join(_version(label, item) for item in items)}</div>'


def _version(label: str, item: Version) -> str:
    alt = escape(f"Spectrogram of {item.title}", quote=True)
    return (
        f'<div class="version {item.tone}"><h4>{escape(item.title)}</h4>'
        + player(item.sound, item.tone, f"{item.title}: {label}", missing=item.missing)
        + (f'<img alt="{alt}" src="{item.picture}">' if item.picture else "")
        + (f'<p class="transcript">{item.transcript}</p>' if item.transcript else "")
        + f"{chip_row(item.chips)}</div>"
    )


def _outline(sound: Sound) -> str:
    return f'<path d="{sound.outline or "M0 10h90"}"/>'


def _title(text: str) -> str:
    return f' title="{escape(text, quote=True)}"' if text else ""
