"""A source folder's files: lines, tables and JSON, of which one bad entry spoils no other."""

import csv
import io
import json
import random
from pathlib import Path

import pytest

from csm.data.corpora.layouts import candor, dailytalk, kaldi, rttm, switchboard
from csm.data.corpora.layouts.tree import Tree

PARTS = ["so", "well, now", 'she said "no"', "two\nlines", "caf\u00e9\u2028", ""]


def tree_of(tmp_path: Path, name: str, content: str) -> tuple[Tree, Path]:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    return Tree(tmp_path, tmp_path / "scratch"), tmp_path / name


def written(rows: list[list[str]]) -> list[str]:
    """The rows as csv writes them, one string each."""
    texts = []
    for row in rows:
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerow(row)
        texts.append(file.getvalue())
    return texts


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize(
    "damage", [None, 'x,"never closed\n', 'x,"closed" early,y\n', f'x,"{"y" * 140_000}\n']
)
def test_a_table_is_read_whole_but_for_the_line_that_is_damaged(tmp_path, seed: int, damage) -> None:
    draw = random.Random(seed)
    rows = [[f"r{number}", *draw.choices(PARTS, k=2)] for number in range(draw.randint(1, 8))]
    texts = written(rows)
    place = draw.randint(0, len(rows))
    if damage is not None:
        texts.insert(place, damage)
    tree, path = tree_of(tmp_path, "t.csv", "a,b,c\n" + "".join(texts))
    found = [row for _, row in tree.table(path)]
    assert found == [dict(zip("abc", row, strict=True)) for row in rows]
    line = 2 + "".join(texts[:place]).count("\n")
    assert [what for what, *_ in tree.turns_rejected] == ([] if damage is None else [f"t.csv, line {line}"])


def test_a_row_of_more_fields_than_names_is_rejected_and_of_fewer_has_none(tmp_path) -> None:
    tree, path = tree_of(tmp_path, "t.csv", "a,b\n1,2,\n3\n\n4,5, and more\n")
    assert list(tree.table(path)) == [
        ("t.csv, line 2", {"a": "1", "b": "2"}),
        ("t.csv, line 3", {"a": "3", "b": None}),
    ]
    assert "has 3 fields: expected 2" in tree.turns_rejected[0][1]


@pytest.mark.parametrize("value", [5, None, [1], "x", True])
def test_lines_that_are_no_object_are_rejected_by_their_number(tmp_path, value: object) -> None:
    good = {"text": "one\u2028two\x85"}
    content = f"{json.dumps(good, ensure_ascii=False)}\r\n\n{json.dumps(value)}\n{{\n" + "9" * 5000 + "\n{}"
    tree, path = tree_of(tmp_path, "t.jsonl", content)
    assert list(tree.json_lines(path)) == [("t.jsonl, line 1", good), ("t.jsonl, line 6", {})]
    assert [what for what, *_ in tree.turns_rejected] == [f"t.jsonl, line {number}" for number in (3, 4, 5)]


def test_a_file_that_is_no_text_is_rejected_and_ends_nothing(tmp_path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xff\xfa")
    (tmp_path / "t.gz").write_bytes(b"no gzip")
    tree = Tree(tmp_path, tmp_path / "scratch")
    for path in tree.files:
        assert [*tree.lines(path), *tree.table(path), *tree.json_lines(path)] == []
        assert not tree.keys(path) and "is no text in UTF-8" in tree.files_rejected[path]


def test_keys_are_those_of_the_whole_file_or_of_the_first_object_in_its_lines(tmp_path) -> None:
    tree, path = tree_of(tmp_path, "a.json", json.dumps({"text": "x" * 10**6, "segments": []}, indent=1))
    assert tree.keys(path) == {"text", "segments"}
    tree, path = tree_of(tmp_path, "b.json", 'no\n5\n{"a": 1}\n{"b": 2}\n')
    assert tree.keys(path) == {"a"}
    tree, path = tree_of(tmp_path, "c.json", '[{"a": 1}]')
    assert not tree.keys(path)


def test_a_file_whose_reading_fails_is_rejected_from_there_on(tmp_path) -> None:
    tree, path = tree_of(tmp_path, "a.json", "{}")

    def entries():
        yield 1
        raise KeyError("start")

    assert list(tree.guarded(path, entries())) == [1]
    assert tree.files_rejected[path] == "is of an unknown form (KeyError: 'start'): export it again"


def test_names_that_no_file_can_have_are_missing_files(tmp_path) -> None:
    tree, _ = tree_of(tmp_path, "a.wav", "")
    for name in ("x" * 5000, "a\0b", ""):
        with pytest.raises(ValueError, match="expected a file of that name"):
            tree.find(name)


class Counted(list):
    """A list that counts how often it is gone through."""

    count = 0

    def __iter__(self):
        Counted.count += 1
        return super().__iter__()

    def __contains__(self, item: object) -> bool:
        Counted.count += 1
        return super().__contains__(item)


def test_the_recordings_of_many_transcripts_are_found_in_one_pass(tmp_path) -> None:
    for number in range(20):
        for suffix in ("wav", "srt"):
            (tmp_path / f"{number}.{suffix}").touch()
    (tmp_path / "Caf\u00e9.WAV").touch()
    tree = Tree(tmp_path, tmp_path / "scratch")
    tree.files = Counted(tree.files)
    Counted.count = 0
    for path in [tmp_path / f"{number}.srt" for number in range(20)]:
        assert tree.audio_beside(path) == path.with_suffix(".wav") and tree.has(path)
    for _ in range(5):
        with pytest.raises(ValueError, match=r"called 'Caf\u00e9\.WAV', another name by case"):
            tree.audio_beside(tmp_path / "cafe\u0301.srt")
        with pytest.raises(ValueError, match="recording 'gone' is missing"):
            tree.audio_beside(tmp_path / "gone.srt")
    assert Counted.count <= 2 and not tree.has(tmp_path / "gone.srt")


class Unsearched(list):
    """A list that is not searched."""

    def __contains__(self, item: object) -> bool:
        raise AssertionError(f"{item} is sought in the list of all files")


@pytest.mark.parametrize(
    ("layout", "files"),
    [
        (candor.LAYOUT, {"c/transcription/transcript_backbiter.csv": "", "c/processed/c.wav": ""}),
        (dailytalk.LAYOUT, {"data/1/0_0_d1.wav": "", "data/1/0_0_d1.txt": "Hi."}),
        (kaldi.LAYOUT, {"wav.scp": "a a.wav", "text": "a hi", "utt2spk": "a ann", "a.wav": ""}),
        (rttm.LAYOUT, {"a.rttm": "SPEAKER a 1 0 1 <NA> <NA> ann", "a.txt": "Hi.", "a.wav": ""}),
        (switchboard.LAYOUT, {"sw2001A-ms98-a-trans.text": "a 0 1 hi", "sw02001.wav": ""}),
    ],
)
def test_no_layout_searches_the_list_of_all_files(tmp_path, layout, files) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    tree = Tree(tmp_path, tmp_path / "scratch")
    tree.files = Unsearched(tree.files)
    assert layout.recognise(tree)
    list(layout.read(tree))
