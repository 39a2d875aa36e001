"""The corpus folder: conversations in order until the hours are full, the same for any number of workers.

The teacher is a tone as long as its phonemes. The real one is a download of 100 MB and takes most of a minute
for a minute of speech.
"""

import json
import multiprocessing

import numpy as np
import pytest
import soundfile

from csm.data.corpora.synthetic_dialogues import corpus as module
from csm.data.corpora.synthetic_dialogues.corpus import SYNTHESIS_NAME, prepare_synthetic_dialogues
from csm.data.corpora.synthetic_dialogues.kokoro import Kokoro
from csm.data.corpora.synthetic_dialogues.script import Script, Utterance
from csm.data.corpora.synthetic_dialogues.voices import speakers
from csm.data.manifest import read_corpus

pytestmark = pytest.mark.skipif(
    multiprocessing.get_start_method() != "fork", reason="workers must inherit the test's teacher"
)
HEART, PUCK = speakers()["af_heart"], speakers()["am_puck"]
SCRIPTS = [
    Script(
        f"chat-{number}",
        "chat",
        ("train", "validation", "test")[number % 3],
        (Utterance("a" * 20, HEART, 1.0), Utterance("b" * 10, PUCK, 1.1)),
    )
    for number in range(20)
]


class Tone:
    def speak(self, phonemes, speaker, speed):
        return np.sin(np.arange(len(phonemes) * 2400) / 10).astype(np.float32) * 0.5


@pytest.fixture(autouse=True)
def teacher(monkeypatch):
    monkeypatch.setattr(Kokoro, "fetch", lambda self: None)
    monkeypatch.setattr(module, "scripts", lambda cache, is_word: iter(SCRIPTS))
    monkeypatch.setattr(module, "phonemize", lambda texts, british: list(texts))
    monkeypatch.setattr(module, "_teacher", lambda folder: Tone())


def made(folder, *, seconds: float, workers: int = 2):
    return prepare_synthetic_dialogues(
        folder / "corpus", hours=seconds / 3600, cache=folder / "cache", workers=workers
    )


def test_conversations_come_in_order_until_the_hours_are_full(tmp_path):
    corpus = made(tmp_path, seconds=8)
    # About 3.2 s each: the third one exceeds 8 s.
    assert [c.id for c in corpus.conversations] == ["chat-0", "chat-1", "chat-2"]
    assert [c.split for c in corpus.conversations] == ["train", "validation", "test"]


def test_every_row_is_marked_synthetic_and_held_out_speakers_are_named(tmp_path):
    corpus = made(tmp_path, seconds=5)
    assert all(turn.synthetic for turn in corpus.turns())
    assert "af_aoede" in corpus.held_out_speakers() and corpus.info["synthetic"] is True


def test_the_number_of_workers_changes_nothing(tmp_path):
    content = []
    for workers in (1, 3):
        folder = tmp_path / str(workers)
        made(folder, seconds=12, workers=workers)
        files = sorted(path for path in (folder / "corpus").rglob("*") if path.is_file())
        content.append([(path.relative_to(folder).as_posix(), path.read_bytes()) for path in files])
    assert content[0] == content[1]


def test_what_is_spoken_already_is_not_spoken_again(tmp_path, monkeypatch):
    made(tmp_path, seconds=5)
    spoken = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.flac")}

    class Silent:
        def speak(self, *_):
            raise AssertionError("it was spoken already")

    monkeypatch.setattr(module, "_teacher", lambda folder: Silent())
    again = prepare_synthetic_dialogues(
        tmp_path / "again", hours=5 / 3600, cache=tmp_path / "cache", workers=1
    )
    assert len(again.conversations) == 2
    assert spoken == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.flac")}


def test_each_turn_has_its_audio_and_its_synthesis(tmp_path):
    corpus = made(tmp_path, seconds=5)
    rows = [json.loads(line) for line in (corpus.root / SYNTHESIS_NAME).read_text().splitlines()]
    assert [row["turn"] for row in rows] == [turn.id for turn in corpus.turns()]
    assert rows[0]["voice"] == {"af_heart": 1.0} and rows[1]["speed"] == 1.1
    for turn in corpus.turns():
        info = soundfile.info(corpus.root / turn.audio)
        assert info.samplerate == 24_000 and info.duration == pytest.approx(turn.end, abs=1e-5)


def test_a_finished_corpus_is_returned_and_another_one_refused(tmp_path):
    first = made(tmp_path, seconds=5)
    assert read_corpus(first.root).turns() == made(tmp_path, seconds=5).turns()
    with pytest.raises(ValueError, match="hours_wanted"):
        made(tmp_path, seconds=50)


def test_no_hours_are_refused(tmp_path):
    with pytest.raises(ValueError, match="hours is 0"):
        made(tmp_path, seconds=0)
