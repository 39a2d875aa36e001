"""Asterisk's prompts from two small Debian packages: texts, decoding, groups, ledger."""

import dataclasses
import gzip
import hashlib
import io
import json
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from csm.data.corpora import asterisk_prompts
from csm.data.corpora.asterisk_prompts import (
    SOUNDS,
    TEXTS,
    clean_text,
    decode_g722,
    prepare_asterisk_prompts,
    read_texts,
)
from tests.data.small_game import make_package

FOLDER = "usr/share/asterisk/sounds/en_US_f_Allison/"
DOCUMENTS = "usr/share/doc/asterisk-core-sounds-en/"
LINES = """; Core Asterisk Sounds in English
agent-loginok: Agent logged in.
agent-pass: Please enter your password followed by the pound key.
beep: [this is a simple beep tone]
confbridge-join: <beep ascending>
digits/1: one
digits/2: two
letters/at: at [@]
goodbye: Goodbye!
silence/1: (1 second of silence)
dir-multi2: ... for ...
vm-gone: gone
vm-mute: mute
"""
SPOKEN = ("agent-loginok", "agent-pass", "digits/1", "digits/2", "letters/at", "goodbye", "dir-multi2")


def tone(seconds: float, hertz: float) -> np.ndarray:
    return 0.4 * np.sin(2 * np.pi * hertz * np.arange(int(16_000 * seconds)) / 16_000)


def g722(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="g722") as container:
        stream = container.add_stream("g722", rate=16_000, layout="mono")
        for first in range(0, len(samples) - 319, 320):
            block = np.rint(samples[first : first + 320] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(block[None], format="s16", layout="mono")
            frame.sample_rate = 16_000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


@pytest.fixture
def downloads(tmp_path, monkeypatch) -> Path:
    """A folder with small packages; their checksums replace those of the real ones."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    sounds = {name: g722(tone(0.3, 200 + 20 * index)) for index, name in enumerate(SPOKEN)}
    sounds |= {"beep": g722(tone(0.2, 800)), "silence/1": b"\xfa" * 800, "confbridge-join": b"\xfa" * 80}
    sounds |= {"vm-mute": g722(np.zeros(3200)), "unlisted": g722(tone(0.2, 300))}
    make_package(
        folder / SOUNDS.file_name, {f"{FOLDER}{name}.g722": content for name, content in sounds.items()}
    )
    documents = {"core-sounds-en.txt.gz": gzip.compress(LINES.encode(), mtime=0), "copyright": b"CC-BY-SA"}
    make_package(
        folder / TEXTS.file_name, {f"{DOCUMENTS}{name}": content for name, content in documents.items()}
    )
    for name, package in (("SOUNDS", SOUNDS), ("TEXTS", TEXTS)):
        digest = hashlib.sha256((folder / package.file_name).read_bytes()).hexdigest()
        monkeypatch.setattr(asterisk_prompts, name, dataclasses.replace(package, sha256=digest))
    return folder


def test_prompts_of_one_kind_are_grouped_and_marked_synthetic(downloads, tmp_path) -> None:
    corpus = prepare_asterisk_prompts(tmp_path / "out", downloads=downloads)
    assert {c.id: [turn.id for turn in c.turns] for c in corpus.conversations} == {
        "asterisk_agent_00": ["asterisk_agent-loginok", "asterisk_agent-pass"],
        "asterisk_digits_00": ["asterisk_digits_1", "asterisk_digits_2"],
        "asterisk_words_00": ["asterisk_dir-multi2", "asterisk_goodbye", "asterisk_letters_at"],
    }
    assert all(turn.synthetic and turn.speaker == "ALLISON" for turn in corpus.turns())
    texts = {turn.id: turn.text for turn in corpus.turns()}
    assert texts["asterisk_letters_at"] == "At" and texts["asterisk_dir-multi2"] == "For"
    assert corpus.info["licence"] == "CC-BY-SA-3.0" and "Allison Smith" in corpus.info["attribution"]
    assert (corpus.root / "LICENSE.txt").read_bytes() == b"CC-BY-SA"


def test_tones_silence_and_what_lacks_text_or_sound_are_in_the_ledger(downloads, tmp_path) -> None:
    corpus = prepare_asterisk_prompts(tmp_path / "out", downloads=downloads)
    ledger = [json.loads(line) for line in (corpus.root / "rejects.jsonl").read_text().splitlines()]
    assert {entry["source"]: entry["reason"] for entry in ledger} == {
        "beep": "nothing is spoken",
        "confbridge-join": "nothing is spoken",
        "silence/1": "nothing is spoken",
        "unlisted": "core-sounds-en.txt has no text for it",
        "vm-gone": "the package holds no such prompt",
        "vm-mute": "silent",
    }
    assert corpus.info["turns_in"] == len(SPOKEN) + 6 and corpus.info["turns_used"] == len(SPOKEN)


def test_the_sound_is_16_khz_and_close_to_what_was_coded(downloads, tmp_path) -> None:
    corpus = prepare_asterisk_prompts(tmp_path / "out", downloads=downloads)
    for turn in corpus.turns():
        samples, rate = soundfile.read(corpus.root / turn.audio)
        assert rate == 16_000 and turn.end == pytest.approx(0.3, abs=0.01)
        name = turn.id.removeprefix("asterisk_")
        hertz = 200 + 20 * [spoken.replace("/", "_") for spoken in SPOKEN].index(name)
        assert np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples) == pytest.approx(hertz, abs=4)


def test_a_byte_is_two_samples_and_an_empty_stream_is_refused() -> None:
    assert len(decode_g722(av, g722(tone(0.5, 300)))) == 8000
    with pytest.raises(ValueError, match="no audio|cannot be decoded"):
        decode_g722(av, b"")


def test_a_finished_corpus_needs_no_package(downloads, tmp_path) -> None:
    corpus = prepare_asterisk_prompts(tmp_path / "out", downloads=downloads)
    again = prepare_asterisk_prompts(tmp_path / "out", downloads=tmp_path / "none")
    assert again.turns() == corpus.turns()


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("  Press ...", "Press"),
        ("... callers waiting to speak.", "Callers waiting to speak."),
        ("i'm afraid i don't know", "I'm afraid I don't know"),
        ('IAX (note: does not say "2")', "IAX"),
        ("dash [-]", "Dash"),
        ("[descending tones]", ""),
        (
            "All of our represenatives are busy, dial 500",
            "All of our representatives are busy, dial five zero zero",
        ),
        ("Please try  again.", "Please try again."),
    ],
)
def test_what_is_not_spoken_is_removed_from_a_text(written: str, spoken: str) -> None:
    assert clean_text(written) == spoken
    assert clean_text(spoken) == spoken


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no text"),
        (b"plain", "cannot be read"),
        (gzip.compress(b"\xff\xfe", mtime=0), "cannot be read"),
        (gzip.compress(b"; only a comment\n", mtime=0), "holds no text"),
        (gzip.compress(b"vm-and and\n", mtime=0), "line 1 is 'vm-and and': expected NAME: text"),
    ],
)
def test_a_broken_list_of_texts_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_texts(content)
