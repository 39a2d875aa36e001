"""Made-up source folders and what a corpus of them holds."""

import json
from pathlib import Path

import numpy as np
import soundfile

from csm.data.corpora.recordings import prepare_recordings
from csm.data.manifest import Corpus

RATE = 16_000


def tone(seconds: float = 2.0, hertz: float = 200.0, rate: int = RATE) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def sound(path: Path, seconds: float = 2.0, channels: int = 1, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.stack([tone(seconds, 200 + 100 * channel, rate) for channel in range(channels)], 1)
    soundfile.write(path, samples, rate)
    return path


def text(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def lines(path: Path, *entries: object) -> Path:
    return text(path, "".join(json.dumps(entry) + "\n" for entry in entries))


def prepared(tmp_path: Path, **options: object) -> Corpus:
    """Prepares tmp_path/in and checks that its totals add up."""
    corpus = prepare_recordings(tmp_path / "out", source=tmp_path / "in", **options)
    info = corpus.info
    assert info["turns_in"] == info["turns_used"] + info["turns_rejected"]
    assert info["files_in"] == info["files_used"] + info["files_rejected"]
    assert abs(info["minutes_in"] - info["minutes_used"] - info["minutes_rejected"]) < 0.002
    assert info["files_in"] == sum(path.is_file() for path in (tmp_path / "in").rglob("*"))
    assert all(turn.text.strip() and turn.text != "None" for turn in corpus.turns())
    assert not list(tmp_path.glob(".out*")), "nothing is left beside the corpus"
    return corpus


def ledger(corpus: Corpus) -> str:
    return (corpus.root / "rejects.jsonl").read_text(encoding="utf-8")


def said(corpus: Corpus) -> list[tuple]:
    return [(t.conversation, t.speaker, t.text, t.channel, t.start, t.end) for t in corpus.turns()]
