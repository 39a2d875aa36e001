"""The lines of each group, by a rule that gives the same ones again."""

import pytest

from csm.data.manifest import Corpus
from csm.evaluation.subjects.voice_lines import CONVERSATION, MAIN, OTHERS, UNSEEN, choose_lines
from tests.evaluation.small_voice import small_corpus_of


@pytest.fixture
def corpus(tmp_path):
    return small_corpus_of(tmp_path)


def test_known_voices_speak_test_lines_and_unseen_ones_are_prompted_with_other_lines(corpus):
    chosen = choose_lines(corpus, ["JOE", "FAYE"], 3)
    assert list(chosen.groups) == [MAIN, OTHERS, UNSEEN]
    for group, name in ((MAIN, "JOE"), (OTHERS, "FAYE"), (UNSEEN, "ANN")):
        lines = chosen.groups[group]
        assert {line.turn.speaker for line in lines} == {name} and {line.group for line in lines} == {group}
    assert [len(lines) for lines in chosen.groups.values()] == [3, 3, 2]
    assert not any(line.turn.conversation == "train" for line in (*chosen.main, *chosen.others))
    prompt = chosen.prompts["ANN"]
    assert all(line.prompt == prompt for line in chosen.unseen) and len(prompt) == 2
    assert not {turn.id for turn in prompt} & {line.turn.id for line in chosen.unseen}
    assert not any(line.prompt for line in (*chosen.main, *chosen.others, *chosen.conversation))
    assert chosen.absent == () and chosen == choose_lines(corpus, ["JOE", "FAYE"], 3)


def test_the_conversation_is_between_known_voices_and_lines_have_numbers_and_ids_of_their_own(corpus):
    chosen = choose_lines(corpus, ["JOE", "FAYE"], 3)
    assert [line.turn.id for line in chosen.conversation] == [f"t0_{place}" for place in range(8)]
    lines = [line for own in chosen.groups.values() for line in own] + list(chosen.conversation)
    assert [line.number for line in lines] == list(range(len(lines)))
    assert len({line.id for line in lines}) == len(lines)
    assert chosen.conversation[0].group == CONVERSATION and chosen.main[0].id.startswith("main.t")


def test_what_a_corpus_does_not_have_is_said(corpus):
    known = choose_lines(corpus, ["JOE", "FAYE", "ANN"], 3)
    assert any("has a voice of every speaker" in reason for reason in known.absent)
    alone = choose_lines(corpus, ["JOE"], 3)
    assert set(alone.groups) == {MAIN, UNSEEN} and alone.conversation == ()
    assert [reason.split(":")[0] for reason in alone.absent] == ["other voices", "conversation"]
    # FAYE has six recordings, ANN four; with one line a group only one of them is spoken.
    few = choose_lines(corpus, ["JOE"], 1)
    assert len(few.unseen) == 1 and any("unseen speakers: none of the lines" in r for r in few.absent)
    stranger = choose_lines(corpus, ["0", "1"], 3)
    assert list(stranger.groups) == [UNSEEN] and "main voice: the talker has no voice" in stranger.absent[0]
    assert all(line.prompt for line in stranger.unseen)
    with pytest.raises(ValueError, match="no test line .* of the main voice BOB"):
        choose_lines(corpus, ["BOB", "JOE"], 3)
    with pytest.raises(ValueError, match="main voice JOE"):
        choose_lines(Corpus(root=corpus.root, conversations=corpus.conversations[:1]), ["JOE"], 3)
    with pytest.raises(ValueError, match="beside a prompt of 1.6 s"):
        choose_lines(Corpus(root=corpus.root, conversations=()), ["JOE"], 3)
