"""The card of an exported voice, card.json: what it was made of, who agreed to it, and its watermark."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from csm.audio import watermark
from csm.audio.files import read_audio, sample_rate_of, write_audio
from csm.system.digests import record_digests, require_intact
from csm.system.files import write_atomically

CARD_FILE = "card.json"
NO_MARK = "none"


def write_card(folder: Path, *, corpus: Mapping[str, object], consent: Mapping[str, str], mark: bool) -> None:
    """Writes the card of a voice.

    Args:
        folder: Of the voice.
        corpus: Fields of its corpus' corpus.json.
        consent: Statements by speaker.
        mark: Whether speech of this voice gets a watermark.
    """
    card = {
        "corpus": corpus.get("name", ""),
        "licence": corpus.get("licence", ""),
        "consent": dict(consent),
        "watermark": watermark.NAME if mark else NO_MARK,
    }
    write_atomically(folder / CARD_FILE, json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    record_digests(folder, [CARD_FILE])


def is_marked(folder: Path | None) -> bool:
    """Whether the card of a voice asks for a watermark; None, and a voice without a card, do not.

    Raises:
        ValueError: The card is damaged.
    """
    path = Path(folder or ".") / CARD_FILE
    if folder is None or not path.is_file():
        return False
    require_intact(path, "export the voice again")
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["watermark"]) != NO_MARK
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error!r}): export the voice again") from error


def mark_file(path: Path) -> None:
    """Writes the watermark into a recording of one channel."""
    rate = sample_rate_of(path)
    speech = read_audio(path, sample_rate=rate)[0]
    write_audio(path, watermark.Watermark().mark(speech, rate).clamp(-1, 1)[None], rate)
