"""Turns as rows: what every row predicts, what reads what, and what is refused."""

import math

import pytest
import torch

from csm.sequences.packed_batch import IGNORE
from csm.sequences.row_builder import RowBuilder
from csm.sequences.turns import TurnFrames
from csm.spelling import spell
from csm.text import ByteCodec

CODEC = ByteCodec()
END = 24


def rows() -> RowBuilder:
    return RowBuilder(CODEC, 5, END)


def test_a_spoken_turn_predicts_every_frame_once_and_then_the_end(random_turn) -> None:
    turn = random_turn("a", "hi", frames=6)
    builder = rows()
    builder.add_spoken(turn)
    batch = builder.build()
    text = CODEC.encode_turn("hi", 0)
    n = len(text)
    assert batch.text.tolist() == text + [-1] * 7
    assert torch.equal(batch.codes[n : n + 6], turn.codes.T) and (batch.codes[n + 6] == END).all()
    # The row before a frame predicts it.
    assert torch.equal(batch.code_target[n - 1 : n + 5], turn.codes.T)
    assert batch.code_target[n + 5].tolist() == [END, *[IGNORE] * 4]
    assert (batch.code_target[: n - 1] == IGNORE).all() and (batch.code_target[n + 6] == IGNORE).all()
    assert (batch.text_target == IGNORE).all()
    assert torch.equal(batch.prosody_target[n - 1 : n + 5], turn.prosody)
    assert batch.prosody_known.tolist() == [False] * (n - 1) + [True] * 6 + [False] * 2
    known = ~batch.duration_target.isnan()
    assert known.nonzero().tolist() == [[n - 1]]
    assert float(batch.duration_target[n - 1]) == pytest.approx(math.log(6))


def test_where_zeros_end_a_turn_every_codebook_learns_its_zero_and_codes_have_a_bound(random_turn) -> None:
    """As in csm-1b: the depth decoder is trained on the end row too."""
    turn = random_turn("a", "hi", frames=6)
    builder = RowBuilder(CODEC, 5, 0, 24)
    builder.add_spoken(turn)
    batch = builder.build()
    assert not batch.codes[-1].any() and batch.code_target[-2].tolist() == [0] * 5
    assert int((batch.code_target[:, 1] != IGNORE).sum()) == 7
    with pytest.raises(ValueError, match=r"codes range over .*, expected 0\.\.23"):
        builder.add_spoken(turn._replace(codes=turn.codes + 24))
    RowBuilder(CODEC, 5, 0).add_spoken(turn._replace(codes=turn.codes + 24))


def test_a_transcribed_turn_predicts_its_text_from_the_end_row_on(random_turn) -> None:
    turn = random_turn("a", "hi", frames=4, speaker=3)
    builder = rows()
    builder.add_transcribed(turn)
    batch = builder.build()
    text = CODEC.encode_text("hi")
    assert batch.text.tolist() == CODEC.listen_prefix(3) + [-1] * 5 + text
    end = 2 + 4
    assert batch.text_target[end : end + len(text)].tolist() == text
    assert (batch.text_target[:end] == IGNORE).all() and int(batch.text_target[-1]) == IGNORE
    assert (batch.code_target == IGNORE).all() and batch.duration_target.isnan().all()
    letters = tuple(spell("hi"))
    assert not batch.voice_spans and batch.text_spans == [(end, 1 + len(text), 2, 4, letters)]


def test_the_text_of_a_spoken_turn_is_read_by_all_its_voice_rows(random_turn) -> None:
    builder = rows()
    builder.add_spoken(random_turn("a", "hi", frames=6), length=9)
    builder.add_spoken(random_turn("b", "you", frames=3), finished=False)
    first, second = builder.build().voice_spans
    n = len(CODEC.encode_turn("hi", 0))
    assert first[:5] == (n, 7, 0, n, 9)
    assert second[:5] == (n + 7 + 6, 3, n + 7, 6, 3)


def test_untrained_turns_keep_their_rows_and_lose_their_targets(random_turn) -> None:
    plain, quiet = rows(), rows()
    for builder, train in ((plain, True), (quiet, False)):
        builder.add_spoken(random_turn("a"), train=train)
        builder.add_transcribed(random_turn("b"), train=train)
    a, b = plain.build(), quiet.build()
    assert torch.equal(a.text, b.text) and torch.equal(a.codes, b.codes) and a.voice_spans == b.voice_spans
    assert [span._replace(letters=()) for span in a.text_spans] == b.text_spans and a.text_spans[0].letters
    assert (b.code_target == IGNORE).all() and (b.text_target == IGNORE).all()
    assert b.duration_target.isnan().all() and not b.prosody_known.any()
    assert (a.code_target != IGNORE).any() and (a.text_target != IGNORE).any()


def test_sequences_lie_end_to_end_and_count_their_rows_from_0(random_turn) -> None:
    builder = rows()
    for name, past in (("a", []), ("b", [random_turn("p"), random_turn("q")]), ("c", [])):
        builder.begin_sequence(past)
        builder.add_spoken(random_turn(name))
    batch = builder.build()
    starts = batch.cu_seqlens.tolist()
    assert len(starts) == 4 and starts[-1] == len(batch.text)
    for a, b in zip(starts, starts[1:], strict=False):
        assert batch.positions[a:b].tolist() == list(range(b - a))
    assert batch.longest == int(batch.positions.max()) + 1
    assert batch.past.counts.tolist() == [0, 2, 0]
    assert batch.past.sequence.tolist() == [1, 1] and batch.past.age.tolist() == [1, 0]


def test_what_does_not_fit_is_refused(random_turn) -> None:
    builder, good = rows(), random_turn("bad")
    for codes in (good.codes[:4], good.codes[0]):
        with pytest.raises(ValueError, match=r"turn bad: codes have shape .* expected \[K, T\] with K >= 5"):
            builder.add_spoken(good._replace(codes=codes))
    for value, shown in ((24, "24"), (-1, "-1")):
        codes = good.codes.clone()
        codes[2, 3] = value
        for add in (builder.add_spoken, builder.add_transcribed):
            with pytest.raises(ValueError, match=rf"turn bad: codes range over .*{shown}.*, expected 0..23"):
                add(good._replace(codes=codes))
    empty = TurnFrames("bad", "hi", 0, torch.zeros(5, 0, dtype=torch.int64))
    with pytest.raises(ValueError, match="bad has no voice frames"):
        builder.add_transcribed(empty)
    with pytest.raises(ValueError, match="text is empty"):
        builder.add_spoken(good._replace(text=" "))
    with pytest.raises(ValueError, match="no turn was added"):
        builder.build()


def test_aligned_text_is_spread_by_its_ends_and_teaches_the_pace(random_turn) -> None:
    turn = random_turn("a", "hi", frames=6, speaker=2)
    ends = torch.tensor([0.0, 1.0, 1.04, 4.0, 6.0])  # begin, speaker, h, i, end
    builder = rows()
    builder.add_spoken(turn._replace(ends=ends), length=9)
    builder.add_spoken(turn._replace(ends=ends), train=False)
    batch = builder.build()
    first, second = batch.voice_spans
    torch.testing.assert_close(first.ends, 1.5 * ends)
    assert torch.equal(second.ends, ends) and first.speaker == CODEC.speaker_id(2)
    known = ~batch.pace_target.isnan()
    assert known.nonzero()[:, 0].tolist() == [1, 2, 3, 4]
    # A letter that hardly lasts is not taught to last no time at all.
    torch.testing.assert_close(batch.pace_target[known].exp(), torch.tensor([1.0, 0.1, 2.96, 2.0]))
    with pytest.raises(ValueError, match="expected one for each"):
        rows().add_spoken(turn._replace(ends=ends[1:]))
