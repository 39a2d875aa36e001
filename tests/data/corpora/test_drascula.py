"""Drascula from a small Debian package: conversations, roles, sound, ledger, reproducibility."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from csm.data.corpora import drascula
from csm.data.corpora.drascula import PACKAGE, prepare_drascula, speaker_of
from csm.data.manifest import split_of
from tests.data.small_drascula import SEQUENCES, TEXTS, make_dat, make_dialogue, raw
from tests.data.small_game import make_package

FOLDER = "usr/share/scummvm/drascula/en/"
SILENT, SOUND, WITHOUT_TEXT = "I6", "S1", "99"


@pytest.fixture
def downloads(tmp_path, monkeypatch) -> Path:
    """A folder with a small package; its checksum replaces that of the real one."""
    spoken = {f"{FOLDER}{clip}.ALS": raw(0.2 + index / 50) for index, clip in enumerate(TEXTS)}
    extra = {f"{FOLDER}{clip}.ALS": raw(0.1) for clip in (SOUND, WITHOUT_TEXT)}
    files = {
        **spoken,
        **extra,
        f"{FOLDER}{SILENT}.ALS": bytes([128]) * 2000,
        f"{FOLDER}drascula.dat": make_dat({**TEXTS, SILENT: "DAMN IT!"}, SEQUENCES),
        f"{FOLDER}OP_6.CAL": make_dialogue(["WHO ARE YOU?", "A", "B", "C"], [7, 8, 9, 10], [2, 3, 4]),
        f"{FOLDER}PACKET.001": b"pictures",
        "usr/share/doc/drascula/copyright": b"Drascula-License",
    }
    folder = tmp_path / "downloads"
    folder.mkdir()
    make_package(folder / PACKAGE.file_name, files)
    digest = hashlib.sha256((folder / PACKAGE.file_name).read_bytes()).hexdigest()
    monkeypatch.setattr(drascula, "PACKAGE", dataclasses.replace(PACKAGE, sha256=digest))
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_scenes_are_conversations_and_remarks_are_marked_synthetic(downloads, tmp_path) -> None:
    corpus = prepare_drascula(tmp_path / "out", downloads=downloads)
    conversations = {c.id: [turn.id for turn in c.turns] for c in corpus.conversations}
    assert conversations == {
        "drascula_BILLIE_JEAN": ["drascula_1", "drascula_VB1"],
        "drascula_BLIND_MAN": ["drascula_D56", "drascula_D68"],
        "drascula_IGOR": [f"drascula_{clip}" for clip in ("7", "I16", "2", "8", "9", "10")],
        "drascula_JOHN_HACKER_00": ["drascula_3"],
    }
    for conversation in corpus.conversations:
        assert conversation.split == split_of(conversation.id)
        assert {turn.synthetic for turn in conversation.turns} == {"HACKER" in conversation.id}
    texts = {turn.id: (turn.speaker, turn.text) for turn in corpus.turns()}
    assert texts["drascula_D56"] == ("JOHN HACKER", "Hi blind man.")
    assert texts["drascula_D68"] == ("BLIND MAN", "Hi there foreigner.")
    assert texts["drascula_2"] == ("JOHN HACKER", "No. I won't, Drascula!")


def test_the_samples_are_those_of_the_game_at_its_rate(downloads, tmp_path) -> None:
    corpus = prepare_drascula(tmp_path / "out", downloads=downloads)
    for turn in corpus.turns():
        samples, rate = soundfile.read(corpus.root / turn.audio, dtype="int16")
        assert rate == 11_025 and len(samples) == round(turn.end * rate)
        clip = turn.id.removeprefix("drascula_")
        source = np.frombuffer(raw(0.2 + list(TEXTS).index(clip) / 50), np.uint8)
        assert np.array_equal(samples, (source.astype(np.int16) - 128) * 256)


def test_what_is_left_out_is_in_the_ledger_with_its_reason(downloads, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(drascula.OTHER_WORDS, "VB1", "the recording says something else")
    corpus = prepare_drascula(tmp_path / "out", downloads=downloads)
    ledger = [json.loads(line) for line in (corpus.root / "rejects.jsonl").read_text().splitlines()]
    reasons = {entry["source"]: entry["reason"] for entry in ledger}
    assert set(reasons) == {SILENT, SOUND, WITHOUT_TEXT, "VB1"}
    assert reasons[SILENT] == "silent" and "a sound" in reasons[SOUND]
    assert "no text" in reasons[WITHOUT_TEXT] and "something else" in reasons["VB1"]
    assert corpus.info["turns_in"] == len(TEXTS) + 3 and corpus.info["turns_rejected"] == 4


def test_what_an_actor_says_takes_the_place_of_the_text(downloads, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(drascula.SPOKEN, "1", "THAT'S JUST A DOOR")
    corpus = prepare_drascula(tmp_path / "out", downloads=downloads)
    assert "That's just a door." in {turn.text for turn in corpus.turns()}


def test_the_corpus_is_reproducible_and_a_finished_one_needs_no_package(downloads, tmp_path) -> None:
    first = prepare_drascula(tmp_path / "a", downloads=downloads)
    second = prepare_drascula(tmp_path / "b", downloads=downloads)
    assert tree(first.root) == tree(second.root)
    assert (first.root / "LICENSE.txt").read_bytes() == b"Drascula-License"
    assert first.info["licence"] == "Drascula-License" and "Modified version" in first.info["modified"]
    assert prepare_drascula(tmp_path / "a", downloads=tmp_path / "none").turns() == first.turns()


def test_a_package_without_texts_is_refused_and_leaves_no_folder(downloads, tmp_path, monkeypatch) -> None:
    make_package(downloads / PACKAGE.file_name, {f"{FOLDER}1.ALS": raw(0.1)})
    digest = hashlib.sha256((downloads / PACKAGE.file_name).read_bytes()).hexdigest()
    monkeypatch.setattr(drascula, "PACKAGE", dataclasses.replace(PACKAGE, sha256=digest))
    with pytest.raises(ValueError, match=r"lacks drascula\.dat"):
        prepare_drascula(tmp_path / "out", downloads=downloads)
    assert [path.name for path in tmp_path.iterdir()] == ["downloads"]


@pytest.mark.parametrize(
    ("clip", "role"),
    [
        *(("12", "JOHN HACKER"), ("D12", "DRASCULA"), ("D56", "JOHN HACKER"), ("D67", "JOHN HACKER")),
        *(("D68", "BLIND MAN"), ("D78", "BLIND MAN"), ("D82", "BARTENDER"), ("D83", "TRUNK")),
        *(("B2", "DRUNKARD"), ("BJ2", "BILLIE JEAN"), ("VB2", "VON BRAUN"), ("S1", None), ("F2", None)),
    ],
)
def test_a_clips_name_says_its_role(clip: str, role: str | None) -> None:
    assert speaker_of(clip) == role
