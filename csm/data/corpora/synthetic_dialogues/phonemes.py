"""English text to the phoneme letters of Kokoro's vocabulary, by espeak-ng.

The mapping from espeak's IPA is that of misaki's fallback (hexgrad/misaki, Apache-2.0): diphthongs and
affricates become single letters, as in the teacher's training texts. espeak drops punctuation, so the text is
phonemized clause by clause and the marks, which carry pauses and intonation, are put back.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache

#: IPA of espeak-ng --tie=^ -> Kokoro's letters, both accents; longest first.
BOTH = (
    ("ʔˌn\u0329", "tᵊn"), ("ʔn\u0329", "tᵊn"), ("a^ɪ", "I"), ("a^ʊ", "W"), ("d^ʒ", "ʤ"), ("e^ɪ", "A"),
    ("t^ʃ", "ʧ"), ("ɔ^ɪ", "Y"), ("ə^l", "ᵊl"), ("ʔn", "tᵊn"), ("ʲo", "jo"), ("ʲə", "jə"), ("ʔ", "t"),
    ("ʲ", ""), ("ɚ", "əɹ"), ("r", "ɹ"), ("x", "k"), ("ç", "k"), ("ɐ", "ə"), ("ɬ", "l"), ("\u0303", ""),
)  # fmt: skip
AMERICAN = (("o^ʊ", "O"), ("ɜːɹ", "ɜɹ"), ("ɜː", "ɜɹ"), ("ɪə", "iə"), ("e", "A"), ("ː", ""))
BRITISH = (("e^ə", "ɛː"), ("i^ə", "ɪə"), ("ʊ^ə", "ʊə"), ("iə", "ɪə"), ("ə^ʊ", "Q"), ("e", "A"))
MARKS = ";:,.!?—…"


def phonemize(texts: Sequence[str], *, british: bool = False) -> list[str]:
    """Returns each text as Kokoro's phoneme letters, with its punctuation marks.

    Args:
        texts: English sentences.
        british: British instead of American English.

    Raises:
        ValueError: espeak-ng is not installed or fails.
    """
    parts = [re.split(f"([{MARKS}]+)", text.replace("--", "—").replace("...", "…")) for text in texts]
    clauses = [part.strip() for pieces in parts for part in pieces[::2] if re.search(r"\w", part)]
    spoken = iter(_letters(clause, british) for clause in _espeak(clauses, british))
    return [_joined(pieces, spoken) for pieces in parts]


def _joined(pieces: list[str], spoken: Iterator[str]) -> str:
    words = [next(spoken) if re.search(r"\w", part) else "" for part in pieces[::2]]
    marks = [mark[0] for mark in pieces[1::2]] + [""]
    text = " ".join(word + mark for word, mark in zip(words, marks, strict=True) if word)
    return re.sub(r"\s+", " ", text).strip()


def _espeak(clauses: Sequence[str], british: bool) -> list[str]:
    """IPA of every clause: one process, one line a clause."""
    if not clauses:
        return []
    # A clause of its own for espeak is a paragraph: an empty line after each.
    command = [_program(), "-q", "--ipa", "--tie=^", "-v", "en-gb" if british else "en-us"]
    answers = []
    for clause in clauses:
        done = subprocess.run(command, input=clause, capture_output=True, text=True, check=False)
        if done.returncode or not done.stdout.strip():
            raise ValueError(f"espeak-ng cannot pronounce {clause!r}: {done.stderr.strip() or 'no phonemes'}")
        answers.append(" ".join(done.stdout.split()))
    return answers


@cache
def _program() -> str:
    found = shutil.which("espeak-ng")
    if found is None:
        raise ValueError("espeak-ng is not installed: apt install espeak-ng")
    return found


def _letters(ipa: str, british: bool) -> str:
    ipa = re.sub(r"\([a-z-]+\)", "", ipa)  # espeak marks words it takes for another language: (fr)
    for old, new in (*(BRITISH[:3] if british else ()), *BOTH, *(BRITISH[3:] if british else AMERICAN)):
        ipa = ipa.replace(old, new)
    ipa = re.sub(r"(\S)\u0329", r"ᵊ\1", ipa).replace("\u0329", "")
    return ipa.replace("^", "").strip()
