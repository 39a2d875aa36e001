"""Counts how many texts of tests/text_cases.jsonl each text front end pronounces as their spoken words.

    python benchmarks/text_normalisers.py

A front end passes a case where the written text and its spoken words give it the same result.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from csm.pronunciation import pronounced

CASES = Path(__file__).resolve().parents[1] / "tests" / "text_cases.jsonl"


def gruut_phones(text: str) -> str:
    from gruut import sentences

    words = [word for sentence in sentences(text, lang="en-us") for word in sentence]
    return "".join(phone for word in words for phone in word.phonemes or ())


def espeak_phones(text: str) -> str:
    """Returns the phonemes of the program espeak-ng, without stress marks, which depend on the spelling."""
    done = subprocess.run(
        ["espeak-ng", "-v", "en-us", "-q", "-x", "--stdin"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    return "".join(c for c in done.stdout if c not in "',_:| \n")


def front_ends() -> dict[str, Callable[[str], object]]:
    found: dict[str, Callable[[str], object]] = {"csm": pronounced, "gruut alone": gruut_phones}
    if shutil.which("espeak-ng"):
        found["espeak-ng"] = espeak_phones
    try:
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError:
        print("left out: whisper-normalizer (pip install whisper-normalizer)")
    else:
        found["whisper-normalizer"] = EnglishTextNormalizer()
    return found


def main() -> None:
    cases = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    for name, result in front_ends().items():
        passed = raised = 0
        for case in cases:
            try:
                passed += result(case["written"]) == result(case["spoken"])
            except UnicodeEncodeError:  # of a lone surrogate
                raised += 1
        print(f"{name:20} {passed:4} of {len(cases)}, {raised} raised an error", flush=True)


if __name__ == "__main__":
    main()
