"""The manifest: a round trip changes nothing, splits are fixed, bad input is refused with a reason."""

import dataclasses
import json
import os
import pickle
import random
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from csm.data import id_index
from csm.data.manifest import (
    SPLITS,
    Conversation,
    Corpus,
    Segment,
    Turn,
    file_safe,
    join_corpora,
    read_corpus,
    read_manifest,
    split_of,
    write_manifest,
)
from tests.full_disk import largest_file


def turn(index: int = 0, **changes: object) -> Turn:
    values: dict = dict(id=f"t{index}", conversation="c", index=index, speaker="Ana", audio="audio/a.flac")
    return Turn(**{**values, "text": "Hé, \u2028 \U0001f600?", "end": 1.25, **changes})


def test_a_written_manifest_is_read_back_unchanged(tmp_path) -> None:
    marks = dict(channel=1, overlap=True, backchannel=True, emotion="glad", synthetic=True)
    turns = (turn(0), turn(1, start=0.1, **marks))
    written = [Conversation(id="c", split="test", turns=turns)]
    write_manifest(tmp_path / "manifest.jsonl", written)
    assert list(read_manifest(tmp_path / "manifest.jsonl")) == written
    assert b"\r" not in (tmp_path / "manifest.jsonl").read_bytes()


def test_a_full_disk_is_named(tmp_path) -> None:
    written = [Conversation(id="c", split="test", turns=(turn(0),))]
    with largest_file(50), pytest.raises(OSError, match=r"\d+ bytes are free there.*manifest.jsonl"):
        write_manifest(tmp_path / "manifest.jsonl", written)


def test_splits_never_change() -> None:
    assert [split_of(name) for name in ("FAYE2", "BOB2", "SPARKY3", "DESC002", "AND1")] == [
        "test",
        "test",
        "train",
        "validation",
        "train",
    ]


def test_splits_have_the_documented_shares() -> None:
    shares = Counter(split_of(str(number)) for number in range(20_000))
    assert abs(shares["train"] / 20_000 - 0.84) < 0.01
    assert abs(shares["validation"] / 20_000 - 0.06) < 0.01
    assert abs(shares["test"] / 20_000 - 0.10) < 0.01


@pytest.mark.parametrize("name", ["a/b", "con", "CON.txt", "", ".x", "x.", "\udcff.wav", "ä" * 300, "a\\b"])
def test_every_name_becomes_file_safe_and_stays_unique(name: str) -> None:
    safe = file_safe(name)
    turn(0, id=safe)
    assert safe != file_safe(name + "_") and file_safe(safe) == safe


def test_file_safe_keeps_good_names() -> None:
    assert file_safe("020006J1") == "020006J1" and file_safe("C70D_243.b-1") == "C70D_243.b-1"


@pytest.mark.parametrize(
    "changes",
    [
        {"audio": "/etc/passwd"},
        {"audio": "../a.flac"},
        {"audio": "audio\\a.flac"},
        {"audio": "C:/a.flac"},
        {"audio": ""},
        {"end": 0.0},
        {"end": float("nan")},
        {"end": float("inf")},
        {"start": -0.1},
        {"speaker": ""},
        {"channel": -1},
        {"id": "a/b"},
    ],
)
def test_a_bad_turn_is_refused(changes: dict) -> None:
    with pytest.raises(ValueError, match=r"Turn"):
        turn(0, **changes)


def test_a_conversation_refuses_wrong_numbering_and_foreign_turns() -> None:
    with pytest.raises(ValueError, match="number the turns"):
        Conversation(id="c", split="train", turns=(turn(1),))
    with pytest.raises(ValueError, match="number the turns"):
        Conversation(id="d", split="train", turns=(turn(0),))
    with pytest.raises(ValueError, match="train, validation, test"):
        Conversation(id="c", split="dev", turns=(turn(0),))


def test_records_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        turn().text = "other"  # type: ignore[misc]
    assert Segment(speaker="a", start=1.0, end=3.5).duration == 2.5


def test_a_broken_line_is_named(tmp_path) -> None:
    write_manifest(tmp_path / "m.jsonl", [Conversation(id="c", split="train", turns=(turn(0),))])
    good = (tmp_path / "m.jsonl").read_text(encoding="utf-8")
    extra = json.loads(good)
    extra["turns"][0]["volume"] = 3
    bad = {good: "twice", "{": "", "{}": "turns", json.dumps(extra): "volume", "[]": ""}
    for line, reason in bad.items():
        (tmp_path / "m.jsonl").write_text(good + line + "\n", encoding="utf-8")
        with pytest.raises(ValueError, match=f"line 2.*{reason}"):
            read_manifest(tmp_path / "m.jsonl")


def test_a_missing_corpus_names_the_command_that_prepares_one(tmp_path) -> None:
    with pytest.raises(ValueError, match="csm prepare"):
        read_corpus(tmp_path / "nowhere")


def test_held_out_speakers_come_from_corpus_json_and_are_none_without_it(tmp_path) -> None:
    assert Corpus(root=tmp_path, conversations=()).held_out_speakers() == ()
    info = {"held_out_speakers": ["Ben", "Cid"]}
    assert Corpus(root=tmp_path, conversations=(), info=info).held_out_speakers() == ("Ben", "Cid")


def test_several_corpora_are_read_as_one_and_common_ids_are_refused(tmp_path) -> None:
    for name, held_out in (("one", ["ANN"]), ("two", [])):
        folder = tmp_path / "deep" / name
        said = turn(id=f"{name}-0", conversation=name, audio="audio/0.wav")
        folder.mkdir(parents=True)
        write_manifest(folder / "manifest.jsonl", [Conversation(id=name, split="train", turns=(said,))])
        (folder / "corpus.json").write_text(json.dumps({"name": name, "held_out_speakers": held_out}))
    one, two = tmp_path / "deep" / "one", tmp_path / "deep" / "two"
    joined = read_corpus(f"{one},{two}")
    paths = [joined.root / found.audio for found in joined.turns()]
    assert paths == [one / "audio/0.wav", two / "audio/0.wav"]
    assert joined.held_out_speakers() == ("ANN",) and joined.info["name"] == "one+two"
    with pytest.raises(ValueError, match="conversation 'one' is in two of"):
        read_corpus(f"{one},{one}")


def drawn_corpus(root: Path, prefix: str, count: int, seed: int = 0) -> Corpus:
    """A corpus in memory whose conversations have 0 to 5 turns, written to its folder as well."""
    draw, conversations = random.Random(f"{prefix} {seed}"), []
    for number in range(count):
        name = f"{prefix}{number}"
        speakers = [draw.choice("ABC") for _ in range(draw.randrange(6))]
        turns = (
            turn(
                i,
                id=f"{name}_{i}",
                conversation=name,
                speaker=who,
                text=draw.choice(["", "H\u00e9 \u2028", "x"]),
            )
            for i, who in enumerate(speakers)
        )
        conversations.append(Conversation(id=name, split=draw.choice(SPLITS), turns=tuple(turns)))
    root.mkdir(parents=True)
    write_manifest(root / "manifest.jsonl", conversations)
    (root / "corpus.json").write_text("{}")
    return Corpus(root=root, conversations=tuple(conversations))


def same(lazy: Corpus, held: Corpus) -> bool:
    """Whether two corpora give the same conversations, turns and speakers in every way to ask for them."""
    assert lazy.conversations == held.conversations and lazy.speakers() == held.speakers()
    for split in (None, *SPLITS):
        expected = [t for c in held.conversations if split in (None, c.split) for t in c.turns]
        for corpus in (lazy, held):
            turns = corpus.turns(split)
            assert len(turns) == len(expected) and list(turns) == expected and turns[:] == tuple(expected)
            assert [turns[place] for place in range(-1, len(expected))] == [expected[-1], *expected]
            assert turns[3:9:2] == tuple(expected[3:9:2])
    return True


@pytest.mark.parametrize("seed", range(5))
def test_a_conversation_that_is_read_lazily_is_the_one_that_was_written(tmp_path, seed) -> None:
    held = drawn_corpus(tmp_path / "c", "c", 40, seed)
    lazy = read_corpus(tmp_path / "c")
    assert same(lazy, held) and same(pickle.loads(pickle.dumps(lazy)), held)
    places = random.Random(seed).sample(range(40), 40)
    assert [lazy.conversations[n] for n in places] == [held.conversations[n] for n in places]
    with pytest.raises(ValueError, match="split is 'dev': expected one of train, validation, test"):
        lazy.turns("dev")


def test_joined_corpora_are_the_same_lazily_and_in_memory(tmp_path) -> None:
    held = [drawn_corpus(tmp_path / name, name, 20) for name in ("a", "b", "c")]
    expected = [
        dataclasses.replace(
            conversation,
            turns=tuple(dataclasses.replace(t, audio=f"{c.root.name}/{t.audio}") for t in conversation.turns),
        )
        for c in held
        for conversation in c.conversations
    ]
    joined = Corpus(root=tmp_path, conversations=tuple(expected))
    assert same(join_corpora(held), joined)
    assert same(read_corpus(",".join(str(corpus.root) for corpus in held)), joined)


def test_a_turn_of_two_corpora_is_refused(tmp_path) -> None:
    drawn_corpus(tmp_path / "a", "a", 20)
    twice = turn(0, id="a9_0", conversation="other")
    (tmp_path / "b").mkdir()
    write_manifest(
        tmp_path / "b" / "manifest.jsonl", [Conversation(id="other", split="test", turns=(twice,))]
    )
    (tmp_path / "b" / "corpus.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"turn 'a9_0' is in two of .*a, .*b: expected corpora without common"
    ):
        read_corpus(f"{tmp_path / 'a'},{tmp_path / 'b'}")


def test_equal_hashes_of_other_ids_are_no_duplicates(tmp_path, monkeypatch) -> None:
    held = drawn_corpus(tmp_path / "c", "c", 30)
    monkeypatch.setattr("csm.data.manifest.id_hash", lambda name: bytes(8))
    monkeypatch.setattr(id_index, "id_hash", lambda name: bytes(8))
    assert read_corpus(tmp_path / "c").conversations == held.conversations
    first = next(c for c in held.conversations if c.turns)
    again = dataclasses.replace(first, split="test")
    write_manifest(tmp_path / "c" / "manifest.jsonl", [*held.conversations, again])
    with pytest.raises(ValueError, match=f"line 31: turn id '{first.turns[0].id}' appears twice"):
        read_corpus(tmp_path / "c")


def test_a_manifest_that_is_written_again_while_it_is_open_is_refused(tmp_path) -> None:
    held = drawn_corpus(tmp_path / "c", "c", 10)
    corpus = read_corpus(tmp_path / "c")
    write_manifest(tmp_path / "c" / "manifest.jsonl", held.conversations[::-1])
    os.utime(tmp_path / "c" / "manifest.jsonl", ns=(1, 1))
    with pytest.raises(ValueError, match="manifest.jsonl has changed since this process opened it"):
        list(corpus.turns())


def test_an_open_manifest_holds_no_turn(tmp_path) -> None:
    """Of 5,000 conversations and 100,000 turns, whose objects take some 100 MB."""
    turns = 20
    write_manifest(
        tmp_path / "manifest.jsonl",
        (
            Conversation(
                id=f"c{n}",
                split="train",
                turns=tuple(turn(i, id=f"c{n}_{i}", conversation=f"c{n}") for i in range(turns)),
            )
            for n in range(5000)
        ),
    )
    tracemalloc.start()
    found = read_manifest(tmp_path / "manifest.jsonl")
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 5000 and held < 16 * 5000 + 50_000 and peak < 12 * turns * 5000 + 500_000
