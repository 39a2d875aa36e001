"""Lines are chosen from the test split, spread over conversations, and the same every time."""

from pathlib import Path

from csm.data.manifest import Conversation, Corpus, Turn
from csm.generation.evaluation_lines import (
    held_out_conversation,
    held_out_dialogues,
    held_out_lines,
    lines_of_many,
    prompt_turns,
)


def conversation(
    name: str, split: str, speakers: str, *, seconds: float = 2.0, text: str = "one two three four"
):
    turns = tuple(
        Turn(
            id=f"{name}_{i}",
            conversation=name,
            index=i,
            speaker=who,
            text=text,
            audio=f"{name}/{i}.wav",
            end=seconds,
        )
        for i, who in enumerate(speakers)
    )
    return Conversation(id=name, split=split, turns=turns)


def corpus(*conversations: Conversation) -> Corpus:
    return Corpus(root=Path("somewhere"), conversations=conversations)


TRAIN = conversation("train", "train", "AAAABBBC")


def test_lines_are_of_the_test_split_and_spread_over_conversations():
    tests = [conversation(f"t{i}", "test", "AABAAA") for i in range(5)]
    lines = held_out_lines(corpus(TRAIN, *tests, conversation("v", "validation", "A")), "A")
    assert len(lines) == len({line.id for line in lines}) == 8
    assert all(line.speaker == "A" for line in lines)
    counts = [sum(line.conversation == test.id for line in lines) for test in tests]
    assert sorted(counts) == [1, 1, 2, 2, 2]
    assert lines == held_out_lines(corpus(TRAIN, *reversed(tests)), "A")[::-1] or len(lines) == 8


def test_lines_too_short_too_long_or_of_few_words_are_passed_over():
    bad = [
        conversation("short", "test", "A", seconds=1.1),
        conversation("long", "test", "A", seconds=6.1),
        conversation("few", "test", "A", text="one two three"),
    ]
    good = conversation("good", "test", "A", seconds=1.2)
    assert [line.conversation for line in held_out_lines(corpus(TRAIN, *bad, good), "A")] == ["good"]


def test_a_dialogue_is_of_two_voices_that_were_trained_on_and_has_six_to_eight_turns():
    found = held_out_dialogues(corpus(TRAIN, conversation("t", "test", "CBDABABABABABDA")), "A")
    assert [len(turns) for turns in found] == [8]
    assert {turn.speaker for turn in found[0]} == {"A", "B"}
    indices = [turn.index for turn in found[0]]
    assert indices == list(range(indices[0], indices[0] + 8))
    unheard = conversation("t", "test", "ADADADAD")
    assert held_out_dialogues(corpus(TRAIN, unheard), "A") == []
    assert held_out_dialogues(corpus(TRAIN, conversation("t", "test", "BCBCBCBC")), "A") == []
    assert held_out_dialogues(corpus(TRAIN, conversation("t", "test", "ABABA")), "A") == []


def test_a_partner_without_a_voice_is_no_partner():
    both = corpus(TRAIN, conversation("b1", "test", "ABABABAB"), conversation("c1", "test", "ACACACAC"))
    (found,) = held_out_dialogues(both, "A", 1, voices={"A", "C"})
    assert {turn.speaker for turn in found} == {"A", "C"}
    assert held_out_dialogues(both, "A", voices={"A"}) == []


def test_dialogues_prefer_other_partners_and_conversations_and_share_no_turn():
    both = corpus(TRAIN, conversation("b1", "test", "ABABABABAB"), conversation("c1", "test", "ACACACAC"))
    assert [{turn.speaker for turn in turns} for turns in held_out_dialogues(both, "A")] == [
        {"A", "B"},
        {"A", "C"},
    ]
    one = held_out_dialogues(corpus(TRAIN, conversation("b1", "test", "AB" * 10)), "A")
    assert len(one) == 2
    assert not {turn.id for turn in one[0]} & {turn.id for turn in one[1]}


def test_lines_of_many_speakers_are_as_even_as_there_are():
    tests = [conversation("t0", "test", "BBBBBBCC"), conversation("t1", "test", "DBBAAA")]
    lines = lines_of_many(corpus(TRAIN, *tests), ["B", "C", "D", "E"], 7)
    names = [line.speaker for line in lines]
    assert (names.count("B"), names.count("C"), names.count("D")) == (4, 2, 1) and len(names) == 7
    assert lines == sorted(lines, key=lambda line: line.id)
    assert len(lines_of_many(corpus(TRAIN, *tests), ["B", "C"], 100)) == 10
    kept = lines_of_many(corpus(TRAIN, *tests), ["B"], 100, split=None, without={"t0_0", "train_4"})
    assert len(kept) == 9 and not {"t0_0", "train_4"} & {line.id for line in kept}
    assert {line.conversation for line in kept} == {"train", "t0", "t1"}


def test_a_prompt_is_of_ten_seconds_at_most_and_leaves_half_to_be_spoken():
    many = corpus(conversation("t", "train", "A" * 20, seconds=3.0))
    prompt = prompt_turns(many, "A")
    assert len(prompt) == len({turn.id for turn in prompt}) == 3 and prompt == prompt_turns(many, "A")
    assert len(prompt_turns(corpus(conversation("t", "test", "AAA")), "A")) == 1
    assert prompt_turns(corpus(conversation("t", "test", "A")), "A") == ()
    assert prompt_turns(corpus(conversation("t", "test", "AAA", seconds=1.5)), "A") == ()
    assert prompt_turns(corpus(conversation("t", "test", "AAAA", text=" ")), "A") == ()


def test_the_conversation_is_the_longest_stretch_of_known_voices_with_the_main_one():
    tests = [
        conversation("first", "test", "ABABXABABABABAB"),
        conversation("alone", "test", "A" * 40),
        conversation("others", "test", "BC" * 20),
        conversation("trained", "train", "AB" * 20),
    ]
    found = held_out_conversation(corpus(TRAIN, *tests), "A", {"A", "B", "C"}, 8)
    assert [turn.id for turn in found] == [f"first_{i}" for i in range(5, 13)]
    assert held_out_conversation(corpus(TRAIN, conversation("t", "test", "ABABB")), "A", {"A", "B"}) == ()
