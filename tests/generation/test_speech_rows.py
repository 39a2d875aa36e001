"""A folder keeps speech of one origin, and its rows are read as they were written."""

import pytest

from csm.generation.speech_rows import read_rows, require_same_origin, write_rows

ORIGIN = {"model": "small", "sampling": {"seed": 3, "speeds": (1, 2)}}


def test_a_new_folder_takes_the_origin_and_the_same_origin_is_accepted_again(tmp_path):
    require_same_origin(tmp_path / "speech", ORIGIN)
    require_same_origin(tmp_path / "speech", ORIGIN)
    assert [path.name for path in (tmp_path / "speech").iterdir()] == ["origin.json"]


def test_another_origin_is_refused_with_the_differing_fields_only(tmp_path):
    require_same_origin(tmp_path, ORIGIN)
    with pytest.raises(
        ValueError, match=r"holds other speech: lines \(None there, 8 here\), model \(small"
    ) as error:
        require_same_origin(tmp_path, ORIGIN | {"model": "large", "lines": 8})
    assert "sampling" not in str(error.value)


def test_speech_without_an_origin_is_refused(tmp_path):
    (tmp_path / "speech.jsonl").write_text("")
    with pytest.raises(ValueError, match="has speech.jsonl but no origin.json"):
        require_same_origin(tmp_path, ORIGIN)
    assert not (tmp_path / "origin.json").exists()


def test_rows_are_read_as_they_were_written_one_a_line(tmp_path):
    rows = [{"id": "a", "text": "Grüße\n"}, {"id": "b", "timing": {"audio_s": 1.5}}]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows
    assert len((tmp_path / "rows.jsonl").read_bytes().splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
