"""NeMo manifests."""

from tests.data.corpora.layouts.small_trees import ledger, lines, prepared, said, sound


def test_lines_with_offsets_are_turns_of_one_recording(tmp_path) -> None:
    sound(tmp_path / "in/ann/a.wav")
    sound(tmp_path / "in/ann/b.wav")
    lines(
        tmp_path / "in/manifest.json",
        {"audio_filepath": "ann/a.wav", "offset": 1.0, "duration": 0.5, "text": "hi", "speaker": "ben"},
        {"audio_filepath": "ann/a.wav", "offset": 0.1, "duration": 0.8, "text": "hello"},
        {"audio_filepath": "ann/b.wav", "duration": 2.0, "text": "whole"},
        {"audio_filepath": "ann/b.wav", "duration": 2.0, "text": "-" * 0},
        {"audio_filepath": "ann/b.wav", "duraton": 2.0, "text": "odd", "offset": 0.5},
    )
    corpus = prepared(tmp_path)
    assert [entry[1:] for entry in said(corpus)] == [
        ("ann", "hello", 0, 0.1, 0.9),
        ("ben", "hi", 0, 1.0, 1.5),
        ("ann", "whole", 0, 0.0, 2.0),
    ]
    assert "text is empty" in ledger(corpus) and "'duraton' is spelled like duration" in ledger(corpus)
