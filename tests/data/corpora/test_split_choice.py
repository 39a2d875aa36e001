"""What is held out: shares by the hash of ids, lists, and a word where nothing is left to watch."""

import logging

import pytest
import torch

from csm.audio.files import write_audio
from csm.cli import main
from csm.data.corpora.split_choice import SplitChoice, held_out
from csm.data.manifest import read_corpus, split_of

IDS = [f"c{number}" for number in range(2000)]


def test_without_a_choice_the_source_decides_then_the_id():
    assert all(SplitChoice().of(name, None) == split_of(name) for name in IDS)
    assert SplitChoice().of("c1", "test") == "test" and SplitChoice().identity() == {}


def test_shares_are_those_of_the_conversations_and_grow_without_moving_others():
    few, many = SplitChoice(validation=0.1, test=0.2), SplitChoice(validation=0.3, test=0.2)
    found = [few.of(name, "train") for name in IDS]
    assert abs(found.count("test") / len(IDS) - 0.2) < 0.03
    assert abs(found.count("validation") / len(IDS) - 0.1) < 0.03
    assert all(many.of(n, None) == split for n, split in zip(IDS, found, strict=True) if split != "train")
    none = SplitChoice(validation=0.0, test=0.0)
    assert {none.of(name, None) for name in IDS} == {"train"}


def test_lists_hold_out_what_they_name(tmp_path):
    (tmp_path / "v.txt").write_text("c1\n\n c7 \n")
    listed = held_out("validation", str(tmp_path / "v.txt"))
    choice = SplitChoice(validation=listed, test=held_out("test", "0"))
    assert [name for name in IDS if choice.of(name, None) != "train"] == ["c1", "c7"]
    assert choice.identity() == {"validation": ["c1", "c7"], "test": 0.0}
    with pytest.raises(ValueError, match="--validation lists c7: expected ids of conversations, such as c1"):
        choice.require_known(["c1", "c2"])
    with pytest.raises(ValueError, match="both list c1, c7"):
        SplitChoice(validation=listed, test=listed)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"validation": "1.5"}, "--validation is 1.5: expected a share from 0 to below 1"),
        ({"test": "nowhere.txt"}, "--test is nowhere.txt: expected a share such as 0.1, or a file"),
        ({"validation": "0.6", "test": "0.6"}, "expected shares below 1 in total"),
    ],
)
def test_what_cannot_be_held_out_is_refused(choice, message):
    with pytest.raises(ValueError, match=message):
        SplitChoice(**{name: held_out(name, given) for name, given in choice.items()})


def test_the_command_holds_out_and_says_where_nothing_is_left(tmp_path, caplog, monkeypatch):
    source = tmp_path / "source"
    for number in range(3):
        noise = torch.randn(1, 8000, generator=torch.Generator().manual_seed(number)) * 0.1
        write_audio(source / f"r{number}.wav", noise, 16_000)
        (source / f"r{number}.txt").write_text("hello there")
    (tmp_path / "ids.txt").write_text("r1\n")
    words = ["prepare", "--corpus", "folder", "--source", str(source), "--test", "0"]
    some = [*words, "--validation", str(tmp_path / "ids.txt"), "--output", str(tmp_path / "some")]
    assert main(some) == 0
    found = {c.id: c.split for c in read_corpus(tmp_path / "some").conversations}
    assert found == {"r0": "train", "r1": "validation", "r2": "train"}
    monkeypatch.setattr("csm.cli.process.configure_log", lambda: None)
    monkeypatch.setattr(logging.getLogger("csm"), "propagate", True)
    assert main([*words, "--validation", "0", "--output", str(tmp_path / "none")]) == 0
    assert "none of 3 conversations is in the validation split" in caplog.text
    (tmp_path / "ids.txt").write_text("r1\nr9\n")
    assert main([*some[:-1], str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()
