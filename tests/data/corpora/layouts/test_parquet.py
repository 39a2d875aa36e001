"""Parquet with an Audio column, written as `datasets` writes it."""

import pytest

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
