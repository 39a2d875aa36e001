"""Which layout a folder has."""

import pytest

from csm.data.corpora.layouts.recognition import BY_NAME
from tests.data.corpora.layouts.small_trees import lines, prepared, sound, text


def test_a_folder_that_fits_none_is_refused_with_what_was_sought_and_found(tmp_path) -> None:
    text(tmp_path / "in/notes.md", "x")
    with pytest.raises(ValueError, match="no known layout: found 1 .md; looked for") as caught:
        prepared(tmp_path)
    assert all(f"{name}: " in str(caught.value) for name in BY_NAME) and "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_folder_that_fits_two_asks_for_a_name_and_a_name_must_fit(tmp_path) -> None:
    sound(tmp_path / "in/a.wav")
    text(tmp_path / "in/a.json", {"segments": [{"start": 0, "end": 1, "text": "Hi."}]})
    lines(tmp_path / "in/m.jsonl", {"audio_filepath": "a.wav", "text": "Ho.", "duration": 2.0})
    with pytest.raises(
        ValueError, match=r"fits several layouts: whisper \(1 .json.*nemo \(m.jsonl\); name one"
    ):
        prepared(tmp_path)
    with pytest.raises(
        ValueError, match="--layout is kaldi: expected wav.scp.*found 1 .json, 1 .wav, 1 .jsonl"
    ):
        prepared(tmp_path, layout="kaldi")
    with pytest.raises(ValueError, match="--layout is 'x': expected one of"):
        prepared(tmp_path, layout="x")
    assert [turn.text for turn in prepared(tmp_path, layout="nemo").turns()] == ["Ho."]


def test_what_was_recognised_stands_in_the_corpus(tmp_path, caplog) -> None:
    sound(tmp_path / "in/a.wav")
    text(tmp_path / "in/a.txt", "Hi.")
    caplog.set_level("INFO", "csm")
    assert prepared(tmp_path).info["recognised"] == "sidecars: 1 recordings, 1 .txt or .json"
    assert "layout sidecars: 1 recordings" in caplog.text
