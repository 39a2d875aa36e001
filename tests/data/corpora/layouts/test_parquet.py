"""Parquet with an Audio column, written as `datasets` writes it."""

import pytest

from csm.data.corpora.corpus_writer import CorpusWriter
from csm.data.corpora.layouts.importing import Importer
from csm.data.corpora.layouts.parquet import LAYOUT
from csm.data.corpora.layouts.tree import Tree
from csm.data.corpora.recordings import prepare_recordings
from tests.data.corpora.layouts.small_trees import ledger, prepared, said, sound

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def test_rows_are_turns_of_their_conversation_in_the_order_of_their_numbers(tmp_path) -> None:
    data = sound(tmp_path / "a.wav").read_bytes()
    rows = [
        {
            "conversation_id": 1,
            "turn_id": 1,
            "text": "Hi.",
            "speaker_id": 7,
            "audio": {"bytes": data, "path": "x.wav"},
        },
        {
            "conversation_id": 2,
            "turn_id": 0,
            "text": "So.",
            "speaker_id": 7,
            "audio": {"bytes": data, "path": None},
        },
        {
            "conversation_id": 1,
            "turn_id": 0,
            "text": "Hello.",
            "speaker_id": 3,
            "audio": {"bytes": data, "path": "y"},
        },
        {
            "conversation_id": 2,
            "turn_id": 1,
            "text": None,
            "speaker_id": 3,
            "audio": {"bytes": data, "path": "y"},
        },
        {
            "conversation_id": 2,
            "turn_id": 2,
            "text": "Bad.",
            "speaker_id": 3,
            "audio": {"bytes": b"x", "path": "y"},
        },
    ]
    (tmp_path / "in").mkdir()
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "in/test-00000-of-00001.parquet")
    corpus = prepared(tmp_path)
    assert [entry[:3] for entry in said(corpus)] == [
        ("1", "3", "Hello."),
        ("1", "7", "Hi."),
        ("2", "7", "So."),
    ]
    assert len(corpus.turns("test")) == 3
    assert "text is null" in ledger(corpus) and "is no audio" in ledger(corpus)


def test_what_has_no_audio_column_or_is_no_parquet_is_refused_by_its_columns(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    parquet.write_table(arrow.Table.from_pylist([{"text": "Hi.", "sound": 1}]), tmp_path / "in/a.parquet")
    (tmp_path / "in/b.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="has no turn"):
        prepared(tmp_path)


def test_a_row_that_cannot_be_used_takes_no_other_with_it(tmp_path) -> None:
    data = sound(tmp_path / "a.wav").read_bytes()
    good = {"conversation_id": "c", "turn_id": 0, "text": "Hi.", "speaker": "ann", "split": "train"}
    good |= {"audio": {"bytes": data, "path": "x.wav"}, "overlap": False}
    odd = [{"split": "dev"}, {"conversation_id": None}, {"turn_id": None}, {"speaker": None}, {"text": None}]
    rows = [{**good, "turn_id": number} for number in range(2)]
    for number, change in enumerate(odd):
        rows.insert(draw_place(number, len(rows)), {**good, "turn_id": 10 + number, **change})
    for folder in ("x", "y"):  # files of one name in two folders
        (tmp_path / "in" / folder).mkdir(parents=True)
        own = [{**row, "conversation_id": row["conversation_id"] and folder} for row in rows]
        parquet.write_table(arrow.Table.from_pylist(own), tmp_path / "in" / folder / "data.parquet")
    corpus = prepared(tmp_path)
    assert [entry[:3] for entry in said(corpus)] == [(f, "ann", "Hi.") for f in ("x", "x", "y", "y")]
    assert corpus.info["turns_rejected"] == 2 * len(odd) and "None" not in corpus.speakers()
    for reason in ("split is 'dev'", "conversation is null", "turn_id is null", "speaker is null"):
        assert ledger(corpus).count(reason) == 2
    names = [turn.audio for turn in corpus.turns()]
    assert len(set(names)) == 4 and not any("tmp" in name or "decoded" in name for name in names)


def draw_place(number: int, length: int) -> int:
    return (number * 7 + 3) % (length + 1)


def test_a_source_gives_the_same_bytes_at_another_output(tmp_path) -> None:
    data = sound(tmp_path / "a.wav").read_bytes()
    row = {"text": "Hi.", "speaker": "ann", "audio": {"bytes": data, "path": "x.wav"}}
    (tmp_path / "in").mkdir()
    parquet.write_table(arrow.Table.from_pylist([row]), tmp_path / "in/data.parquet")
    for output in ("one", "other/deeper"):
        prepare_recordings(tmp_path / output, source=tmp_path / "in")
    made = [
        {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "one", tmp_path / "other/deeper")
    ]
    assert made[0] == made[1]


def test_a_row_that_is_no_text_and_a_group_that_is_damaged_take_no_other_with_them(tmp_path) -> None:
    data = sound(tmp_path / "a.wav").read_bytes()
    count = 6
    texts = arrow.array([b"Hi.", b"\xff", *[b"So."] * (count - 2)], arrow.binary()).view(arrow.string())
    columns = {
        "conversation_id": arrow.array([["c"], ["c"], ["d"], ["d"], ["c"], ["c"]]).flatten(),
        "turn_id": arrow.array(range(count)),
        "text": texts,
        "audio": arrow.array([{"bytes": data, "path": "x.wav"}] * count),
    }
    path = tmp_path / "in/data.parquet"
    path.parent.mkdir()
    parquet.write_table(arrow.table(columns), path, row_group_size=2, use_dictionary=False)
    offset = parquet.ParquetFile(path).metadata.row_group(1).column(2).data_page_offset
    damaged = bytearray(path.read_bytes())
    damaged[offset : offset + 16] = bytes(16)
    path.write_bytes(damaged)
    corpus = prepared(tmp_path)
    assert [entry[0] for entry in said(corpus)] == ["c", "c", "c"]
    assert [turn.text for turn in corpus.turns()] == ["Hi.", "So.", "So."]
    assert "row 1" in ledger(corpus) and "rows 2 to 3" in ledger(corpus)


def test_a_conversation_of_another_kind_than_a_name_is_rejected_by_row(tmp_path) -> None:
    data = sound(tmp_path / "a.wav").read_bytes()
    row = {"conversation_id": ["c"], "text": "Hi.", "audio": {"bytes": data, "path": "x.wav"}}
    (tmp_path / "in").mkdir()
    parquet.write_table(arrow.Table.from_pylist([row] * 2), tmp_path / "in/a.parquet")
    good = [{**row, "conversation_id": "d", "turn_id": turn} for turn in (0.0, float("nan"))]
    parquet.write_table(arrow.Table.from_pylist(good), tmp_path / "in/b.parquet")
    corpus = prepared(tmp_path)
    assert [entry[0] for entry in said(corpus)] == ["d"]
    assert ledger(corpus).count("conversation is ['c']") == 2 and "turn_id is nan" in ledger(corpus)


def rows_of(data: bytes, conversation: str, turns: range, **more: object) -> list[dict]:
    audio = {"bytes": data, "path": "x.wav"}
    row = {"conversation_id": conversation, "text": "Hi.", "speaker": "ann", "audio": audio, **more}
    return [{**row, "turn_id": turn} for turn in turns]


def test_a_conversation_over_several_files_of_a_split_is_one(tmp_path) -> None:
    data = sound(tmp_path / "a.wav").read_bytes()
    (tmp_path / "in").mkdir()
    files = {
        "train-00000-of-00003": rows_of(data, "c", range(2)),
        "train-00001-of-00003": rows_of(data, "c", range(2, 4)) + rows_of(data, "d", range(1, 2)),
        "train-00002-of-00003": rows_of(data, "d", range(1)),
        "test-00000-of-00001": rows_of(data, "e", range(1)),
    }
    for name, rows in files.items():
        parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / f"in/{name}.parquet")
    corpus = prepared(tmp_path)
    assert {c.id: (c.split, len(c.turns)) for c in corpus.conversations} == {
        "c": ("train", 4),
        "d": ("train", 2),
        "e": ("test", 1),
    }
    assert ledger(corpus) == ""


def test_two_conversations_of_one_name_are_not_joined_and_the_second_states_its_seconds(tmp_path) -> None:
    data = sound(tmp_path / "a.wav").read_bytes()
    for name in ("in/a", "in/b", "in/other/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        rows = rows_of(data, "c", range(2), speaker=name[-1])
        parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    corpus = prepared(tmp_path)
    assert [entry[:2] for entry in said(corpus)] == [("c", "a"), ("c", "a")]
    left_out = ledger(corpus)
    assert left_out.count("a.parquet has a turn 1 of conversation 'c' too") == 2
    assert left_out.count("another conversation is called 'c'") == 2 and left_out.count('"seconds": 2.0') == 4


def test_files_of_one_name_in_two_folders_lose_no_row_without_a_conversation(tmp_path) -> None:
    row = {"text": "Hi.", "speaker": "ann", "audio": {"bytes": sound(tmp_path / "a.wav").read_bytes()}}
    row["audio"]["path"] = "x.wav"
    for folder in ("de", "en"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        parquet.write_table(arrow.Table.from_pylist([row]), tmp_path / "in" / folder / "train.parquet")
    assert len(prepared(tmp_path).turns()) == 2


def test_audio_of_rejected_rows_does_not_stay_on_the_disk(tmp_path) -> None:
    data = sound(tmp_path / "a.wav").read_bytes()
    (tmp_path / "in").mkdir()
    audio = {"bytes": data, "path": "x.wav"}
    good = {"text": "Hi.", "speaker": "ann", "audio": audio, "conversation_id": "c", "split": "train"}
    bad = [{"words": [{"text": "hi", "start": -1.0, "end": 1.0}]}, {"split": "dev"}, {"id": "\x01"}]
    rows = [{"words": [], "id": None, **good, **change} for change in bad]
    rows += [{"words": [], "id": None, **good, "audio": {"bytes": b"no sound", "path": "x.mp4"}}]
    rows += [{"words": [], "id": None, **good}]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "in/a.parquet")
    again = [{"words": [], "id": None, **good}]  # of the same name in another folder: the importer refuses it
    (tmp_path / "in/b").mkdir()
    parquet.write_table(arrow.Table.from_pylist(again), tmp_path / "in/b/b.parquet")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    writer = CorpusWriter(folder=tmp_path / "out", identity={"name": "made up"})
    writer.start()
    tree = Tree(tmp_path / "in", scratch)
    Importer(writer, tree).add_all(LAYOUT.read(tree))
    assert len(writer.finish().turns()) == 1 and not list(scratch.iterdir())
    known = [(reason, seconds) for _, reason, seconds in tree.turns_rejected if seconds is not None]
    assert len(tree.turns_rejected) == 5 and [seconds for _, seconds in known] == [2.0] * 4
