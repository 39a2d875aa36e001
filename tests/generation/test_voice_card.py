"""The card of an exported voice says what it is made of, and asks for a watermark or not."""

import json

import pytest

from csm.audio.files import read_audio, write_audio
from csm.generation.voice_card import CARD_FILE, is_marked, mark_file, write_card


@pytest.mark.parametrize("mark", [False, True])
def test_a_card_states_corpus_consent_and_watermark(tmp_path, mark: bool) -> None:
    write_card(tmp_path, corpus={"name": "own", "hours": 1}, consent={"ANNA": "signed"}, mark=mark)
    card = json.loads((tmp_path / CARD_FILE).read_text())
    assert card == {
        "corpus": "own",
        "licence": "",
        "consent": {"ANNA": "signed"},
        "watermark": "Perth (resemble-perth 1.0.1)" if mark else "none",
    }
    assert is_marked(tmp_path) is mark


def test_a_voice_without_a_card_asks_for_none_and_a_damaged_card_is_named(tmp_path) -> None:
    assert not is_marked(None) and not is_marked(tmp_path)
    (tmp_path / CARD_FILE).write_text('{"watermark"')
    with pytest.raises(ValueError, match=r"card.json is damaged"):
        is_marked(tmp_path)


def test_a_file_is_marked_in_place(tmp_path, excerpt) -> None:
    pytest.importorskip("perth")
    from csm.audio.watermark import MARKED, Watermark

    turn = next(t for t in excerpt.turns("train") if 2 < t.duration < 4)
    speech = read_audio(excerpt.root / turn.audio, sample_rate=11_025)
    write_audio(tmp_path / "a.wav", speech, 11_025)
    mark_file(tmp_path / "a.wav")
    marked = read_audio(tmp_path / "a.wav", sample_rate=11_025)
    assert marked.shape == speech.shape and Watermark().confidence(marked[0], 11_025) > MARKED
