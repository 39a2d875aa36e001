"""Speakers' consent to voices made of their recordings: entered in corpus.json, copied into voices."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from csm.data.manifest import CORPUS_NAME, Corpus
from csm.system.files import write_atomically

CONSENT_KEY = "consent"  # in corpus.json: {speaker: statement}
LICENCE_KEY = "licence"


def parsed_consents(texts: Sequence[str], speakers: Sequence[str]) -> dict[str, str]:
    """Returns statements by speaker of texts "SPEAKER=STATEMENT".

    Args:
        texts: Of the command line.
        speakers: Of the corpus.

    Raises:
        ValueError: A text has another form, or names no speaker of the corpus.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, statement = (part.strip() for part in text.partition("="))
        if not (name and equals and statement):
            raise ValueError(
                f"--consent is {text!r}: expected SPEAKER=STATEMENT, such as 'ANNA=signed 2026-11-01'"
            )
        if name not in speakers:
            raise ValueError(f"--consent names {name!r}: expected one of {', '.join(speakers)}")
        found[name] = statement
    return found


def record_consents(corpus: Corpus, statements: Mapping[str, str]) -> None:
    """Enters statements in corpus.json, beside those that are there."""
    path = corpus.root / CORPUS_NAME
    info = json.loads(path.read_text(encoding="utf-8"))
    info[CONSENT_KEY] = {**_of_info(info), **statements}
    write_atomically(path, json.dumps(info, indent=2, ensure_ascii=False) + "\n")


def consents(corpus: Corpus) -> dict[str, str]:
    """Returns the statements on record by speaker, of all corpora that were joined.

    Raises:
        ValueError: A corpus.json holds something else under its key.
    """
    found: dict[str, str] = {}
    for folder in corpus.parts or (corpus.root,):
        path = Path(folder) / CORPUS_NAME
        if path.is_file():
            found |= _of_info(json.loads(path.read_text(encoding="utf-8")))
    return found


def without_consent(corpus: Corpus) -> list[str]:
    """Returns the speakers without consent: no statement, in a corpus that names no licence."""
    if corpus.parts or LICENCE_KEY in corpus.info:
        return []
    on_record = consents(corpus)
    return [name for name in corpus.speakers() if name not in on_record]


def _of_info(info: Mapping[str, object]) -> dict[str, str]:
    found = info.get(CONSENT_KEY, {})
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ValueError(f"{CORPUS_NAME}: {CONSENT_KEY} is {found!r}: expected a text for each speaker")
    return dict(found)
