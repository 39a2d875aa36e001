"""The voice's context holds the frames that were heard, neither more nor less."""

from dataclasses import replace
from itertools import islice

import pytest
import torch

from csm.conversation.repliers import ScriptReplier
from csm.conversation.speaker import Chunk, Speaker, UserTurn
from csm.conversation.worker import Task
from csm.generation.shared_speech import SharedSteps


class NeverAsked:
    name = "never asked"

    def __call__(self, samples: torch.Tensor) -> str:
        raise AssertionError("a typed turn has its words")


def run(task: Task) -> list:
    return list(task)


@pytest.fixture
def speaker(talker) -> Speaker:
    """Returns one that has answered a typed turn with one clause of eight words."""
    one = Speaker(talker, ScriptReplier(("one two three four five six seven eight",)), NeverAsked(), seed=1)
    run(one.reply(UserTurn(None, None, "hello")))
    return one


@pytest.mark.parametrize(("heard", "skipped"), [(9, 0), (9, 2), (100, 0), (100, 3)])
def test_skipped_silence_and_what_was_not_played_are_not_in_the_context(speaker, heard, skipped) -> None:
    size = speaker.talker.tokenizer.config.samples_per_frame
    (before,) = [context.turn for context in speaker.session.turns]
    frames = min(heard, before.codes.shape[1])
    (spoken,) = run(speaker.settle([frames * size], skipped * size))
    (after,) = [context.turn for context in speaker.session.turns]
    assert torch.equal(after.codes, before.codes[:, skipped:frames])
    assert after.text == spoken.text and before.text.startswith(after.text)
    # The context is what listening to this turn would have made of a new session.
    other = speaker.talker.session(1)
    other.listen(after)
    assert other.rows == speaker.session.rows
    texts = [turn.text for turn in speaker.turns]
    assert texts == ["hello", spoken.text]


def test_a_whole_reply_without_silence_stays_as_it_was_spoken(speaker) -> None:
    (before,) = speaker.session.turns
    run(speaker.settle([10**6]))
    assert speaker.session.turns[0] is before


def test_nothing_heard_leaves_nothing(speaker) -> None:
    (spoken,) = run(speaker.settle([0], 0))
    assert spoken.text == "" and not speaker.session.turns


def test_a_reply_is_made_of_chunks_of_its_clauses(talker) -> None:
    one = Speaker(talker, ScriptReplier(("One two three. Four five six.",)), NeverAsked(), seed=1)
    chunks = [part for part in run(one.reply(UserTurn(None, None, "hello"))) if isinstance(part, Chunk)]
    assert {chunk.clause for chunk in chunks} == {0, 1}
    size = talker.tokenizer.config.samples_per_frame
    frames = [context.turn.codes.shape[1] for context in one.session.turns]
    run(one.settle([frames[0] * size, 2 * size], size))
    kept = [context.turn.codes.shape[1] for context in one.session.turns]
    assert kept == [frames[0] - 1, 2], "the skipped frame is the first clause's alone"


@pytest.mark.parametrize("chunks", [1, 4])
def test_an_interrupted_reply_leaves_the_same_context_where_steps_are_shared(talker, chunks) -> None:
    heard = []
    for voice in (talker, replace(talker, shared=SharedSteps(talker.tokenizer, thread=False))):
        one = Speaker(voice, ScriptReplier(("One two three. Four five six.",)), NeverAsked(), seed=1)
        reply = one.reply(UserTurn(None, None, "hello"))
        parts = (part.samples for part in reply if isinstance(part, Chunk))
        samples = torch.cat(list(islice(parts, chunks)))
        reply.close()
        (spoken,) = run(one.settle([len(samples)]))
        again = [p.samples for p in one.reply(UserTurn(None, None, "and")) if isinstance(p, Chunk)]
        turns = [context.turn.codes for context in one.session.turns]
        heard.append((spoken.text, [samples, *again, *turns]))
    assert heard[0][0] == heard[1][0]
    assert all(torch.equal(a, b) for a, b in zip(heard[0][1], heard[1][1], strict=True))


@pytest.mark.parametrize("chunks", [1, 3, 6])
def test_a_reply_does_not_depend_on_how_far_a_withdrawn_one_was_synthesised(talker, chunks) -> None:
    def speaker() -> Speaker:
        return Speaker(talker, ScriptReplier(("One two three. Four five six.",)), NeverAsked(), seed=1)

    def answered(one: Speaker) -> list[torch.Tensor]:
        run(one.reply(UserTurn(None, None, "hello there")))
        return [context.turn.codes for context in one.session.turns]

    expected, one = answered(speaker()), speaker()
    withdrawn = one.reply(UserTurn(None, None, "hello"))
    for _ in islice((part for part in withdrawn if isinstance(part, Chunk)), chunks):
        pass
    withdrawn.close()
    run(one.settle([], keep_user=False))
    for codes, others in zip(answered(one), expected, strict=True):
        assert torch.equal(codes, others)
    # The next reply of the conversation has other random numbers.
    run(one.settle([10**6, 10**6]))
    assert not all(map(torch.equal, answered(one)[-2:], expected))
