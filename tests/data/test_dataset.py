"""The batch contract: batches are a function of seed, step and micro-batch, and count what they hold."""

from collections import Counter
from itertools import pairwise

import pytest
import torch

from csm.data.code_shards import EncodedTurn
from csm.data.dataset import ConversationDataset, DatasetConfig
from csm.data.forced_alignment import symbols
from csm.data.manifest import Conversation, Corpus, Turn
from csm.data.speakers import speaker_numbers
from csm.data.turn_table_file import table_of
from csm.sequences.packed_batch import IGNORE
from csm.text import ByteCodec

CONFIG = DatasetConfig(rows_per_micro_batch=300, max_rows=120, transcribe_share=0.3, depth_share=0.5)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    def turn(name: str, index: int) -> Turn:
        text = "" if (name, index) == ("c3", 1) else f"line {index} of {name}"
        who = "Ana" if index % 2 else "Ben"
        return Turn(
            id=f"{name}_{index}",
            conversation=name,
            index=index,
            speaker=who,
            text=text,
            audio="a.flac",
            end=1.0,
        )

    splits = {f"c{i}": "train" for i in range(12)} | {"v0": "validation", "v1": "validation"}
    found = [
        Conversation(id=n, split=s, turns=tuple(turn(n, i) for i in range(8))) for n, s in splits.items()
    ]
    return Corpus(root=tmp_path_factory.mktemp("corpus"), conversations=tuple(found), info={})


@pytest.fixture(scope="module")
def encoded(corpus) -> dict[str, EncodedTurn]:
    g = torch.Generator().manual_seed(0)
    frames = {t.id: int(torch.randint(3, 25, (), generator=g)) for t in corpus.turns()}
    frames |= {"c4_2": 0, "c5_3": 300}
    found = {
        name: EncodedTurn(
            name,
            torch.randint(0, 24, (6, n), generator=g).short(),
            torch.rand(n, 3, generator=g).half(),
            torch.zeros(2),
        )
        for name, n in frames.items()
    }
    del found["c6_0"]
    return found


def dataset(
    corpus, encoded, split="train", *, micro_batches=2, seed=0, end_code=24, ends=None, **changes
) -> ConversationDataset:
    config = DatasetConfig(**{**{k: getattr(CONFIG, k) for k in CONFIG.__dataclass_fields__}, **changes})
    numbers = speaker_numbers(corpus.speakers())
    return ConversationDataset(
        table_of(corpus, encoded, split, ByteCodec(), numbers=numbers, ends=ends),
        codec=ByteCodec(),
        num_codebooks=5,
        end_code=end_code,
        config=config,
        micro_batches=micro_batches,
        seed=seed,
    )


def ends_of(corpus) -> dict[str, torch.Tensor]:
    """Frames at which the symbols of each text end: 0.375 each, whatever the sound's length."""
    codec = ByteCodec()
    return {
        turn.id: 0.375 * torch.arange(1, len(symbols(codec, turn.text)) + 1)
        for turn in corpus.turns()
        if turn.text
    }


def same(a, b) -> bool:
    plain = all(
        torch.equal(x.nan_to_num(-9), vars(b)[n].nan_to_num(-9)) if isinstance(x, torch.Tensor) else True
        for n, x in vars(a).items()
    )
    past = all(torch.equal(x, vars(b.past)[n]) for n, x in vars(a.past).items())
    counts = ("voice_count", "frame_count", "text_count", "turn_count", "ids", "voice_spans", "text_spans")
    return plain and past and all(getattr(a, n) == getattr(b, n) for n in counts)


def test_a_batch_depends_on_seed_step_and_micro_batch_alone(corpus, encoded) -> None:
    first, second = dataset(corpus, encoded), dataset(corpus, encoded)
    # A rank that runs all micro-batches, and one that runs only the second of every step, in another order.
    both = {
        (step, micro_batch): first.batch(step, micro_batch) for step in (1, 2, 3, 7) for micro_batch in (0, 1)
    }
    assert all(same(second.batch(step, 1), both[step, 1]) for step in (7, 3, 1, 2))
    assert not same(both[1, 0], both[1, 1]) and not same(
        both[1, 0], dataset(corpus, encoded, seed=1).batch(1, 0)
    )


def test_every_turn_comes_at_most_once_an_epoch(corpus, encoded) -> None:
    data = dataset(corpus, encoded)
    ends = [0, len(data.sampler.epoch(0)), len(data.sampler.epoch(0)) + len(data.sampler.epoch(1))]
    for first, end in pairwise(ends):
        places = (divmod(place, 2) for place in range(first, end))
        ids = Counter(i for step, number in places for i in data.batch(step + 1, number).ids)
        assert max(ids.values()) == 1
        assert not set(ids) & {"c3_1", "c4_2", "c5_3", "c6_0"} and not any(i.startswith("v") for i in ids)


def test_what_is_left_out_is_counted(corpus, encoded) -> None:
    data = dataset(corpus, encoded, micro_batches=1)
    assert data.table.facts.left_out == 3  # no text, no frames, no codes
    (name,) = data.too_long.ids
    (frames,) = {turn.codes.shape[1] for turn in encoded.values() if turn.id == name}
    assert data.too_long == (1, frames, (name,))
    drawn = sum(len(data.batch(n + 1, 0).ids) for n in range(len(data.sampler.epoch(0))))
    assert drawn + data.table.facts.left_out + data.too_long.turns == len(corpus.turns("train"))


def test_the_counts_of_a_step_are_those_of_its_batches(corpus, encoded) -> None:
    for changes in (
        {},
        {"exclude_speakers": ("Ana",)},
        {"transcribe_share": 1.0},
        {"depth_share": 0.1},
        {"end_code": 0},
        {"ends": ends_of(corpus)},
    ):
        data = dataset(corpus, encoded, **changes)
        for step in (1, 3):
            batches = [data.batch(step, micro_batch) for micro_batch in (0, 1)]

            def real(count, batches=batches) -> float:
                return sum(float(count(b)) for b in batches) / 2

            assert batches[0].voice_count == real(lambda b: (b.code_target[:, 0] != IGNORE).sum())
            assert batches[0].frame_count == real(lambda b: (b.code_target[:, 1] != IGNORE).sum())
            assert batches[0].text_count == real(lambda b: (b.text_target != IGNORE).sum())
            assert batches[0].turn_count == real(lambda b: (~b.duration_target.isnan()).sum())
            assert batches[0].pace_count == real(lambda b: (~b.pace_target.isnan()).sum())


def test_excluded_speakers_are_heard_and_never_trained_on(corpus, encoded) -> None:
    plain, quiet = dataset(corpus, encoded), dataset(corpus, encoded, exclude_speakers=("Ana",))
    assert quiet.untrained == {0} and plain.untrained == set()
    a, b = plain.batch(1, 0), quiet.batch(1, 0)
    assert torch.equal(a.text, b.text) and torch.equal(a.codes, b.codes)
    speaker = ByteCodec().speaker_id(0)  # Ana; a row belongs to the last speaker id before it
    owner = torch.where(a.text >= 260, a.text, -1).tolist()
    for row in range(1, len(owner)):
        owner[row] = owner[row - 1] if owner[row] == -1 else owner[row]
    hers = torch.tensor(owner) == speaker
    assert (b.code_target[hers] == IGNORE).all() and (b.text_target[hers] == IGNORE).all()
    assert torch.equal(b.code_target[~hers], a.code_target[~hers])
    assert torch.equal(b.text_target[~hers], a.text_target[~hers])
    assert (a.code_target[hers] != IGNORE).any()


def test_the_depth_decoder_gets_its_share_of_the_real_frames(corpus, encoded) -> None:
    for share in (0.25, 1.0):
        batch = dataset(corpus, encoded, depth_share=share).batch(1, 0)
        frames = (batch.code_target[:, 1] != IGNORE).nonzero()[:, 0]
        assert len(batch.depth_rows) == round(len(frames) * share)
        assert set(batch.depth_rows.tolist()) <= set(frames.tolist())
        assert len(batch.depth_rows.unique()) == len(batch.depth_rows)


def test_the_past_is_what_came_before_the_chunk(corpus, encoded) -> None:
    data = dataset(corpus, encoded, past_turns=3)
    for chunk, count in zip(data.sampler.step(2)[0], data.batch(2, 0).past.counts.tolist(), strict=True):
        assert count == min(3, chunk.first)


def test_validation_is_the_same_every_time_and_about_as_long_as_asked(corpus, encoded) -> None:
    data = dataset(corpus, encoded, "validation", micro_batches=1)
    a, b = data.in_order(200), data.in_order(200)
    assert same(a, b) and 200 <= len(a.text) <= 200 + CONFIG.max_rows
    assert all(i.startswith("v") for i in a.ids)
    assert len(data.in_order(10**6).ids) == 16


def test_speakers_have_one_index_in_all_splits(corpus, encoded) -> None:
    for split in ("train", "validation"):
        table = dataset(corpus, encoded, split, micro_batches=1).table
        for turns in (table.turns_of(c, 0, len(table.rows_of(c))) for c in range(table.conversations)):
            assert all(t.speaker == (0 if int(t.id.split("_")[1]) % 2 else 1) for t in turns)


def test_what_cannot_be_drawn_is_refused(corpus, encoded) -> None:
    with pytest.raises(ValueError, match="no usable turns in split 'test'"):
        dataset(corpus, encoded, "test")
    with pytest.raises(ValueError, match="more than max_rows = 4"):
        dataset(corpus, encoded, max_rows=4)
    for field, value in [
        ("depth_share", 0.0),
        ("depth_share", 1.5),
        ("transcribe_share", -0.1),
        ("max_rows", 301),
        ("max_rows", 0),
        ("past_turns", -1),
        ("time_shifts", 0),
    ]:
        with pytest.raises(ValueError, match=field):
            DatasetConfig(**{"rows_per_micro_batch": 300, "max_rows": 120, field: value})


def test_training_draws_among_a_turns_time_shifts_and_validation_takes_the_first(corpus, encoded) -> None:
    two_each = {name: turn._replace(shifted=(turn.codes * 0 + 23,)) for name, turn in encoded.items()}
    both = dataset(corpus, two_each, time_shifts=2)
    single = dataset(corpus, encoded)
    changed = heard = 0
    for step in range(1, 30):
        a, b = both.batch(step, 0), single.batch(step, 0)
        assert torch.equal(a.text, b.text) and torch.equal(a.depth_rows, b.depth_rows)
        frames = b.codes[:, 0] >= 0
        assert torch.equal(a.codes[:, 0] >= 0, frames)
        changed += int((a.codes != b.codes).any(1).sum())
        heard += int(frames.sum())
        assert torch.equal(a.codes, both.batch(step, 0).codes)
    assert 0.35 < changed / heard < 0.65
    shifted = dataset(corpus, two_each, "validation", time_shifts=2)
    one, two = (data.in_order(200) for data in (shifted, dataset(corpus, encoded, "validation")))
    assert torch.equal(one.codes, two.codes)


def test_ends_are_counted_in_frames_and_move_with_the_time_shift(corpus, encoded) -> None:
    two_each = {name: turn._replace(shifted=(turn.codes,)) for name, turn in encoded.items()}
    data = dataset(corpus, two_each, time_shifts=2, ends=ends_of(corpus))
    seen = set()
    for step in range(1, 12):
        batch = data.batch(step, 0)
        for span in batch.voice_spans:
            # No jitter where letters have their times: the text lasts as long as its voice.
            assert span.ends is not None and span.length == span.num_queries - 1 == float(span.ends[-1])
            assert float(span.ends[0]) == 0 and bool((span.ends.diff() >= 0).all())
            if span.length > 6:
                # The second encoding begins half a frame early.
                seen.add(round(float(span.ends[1]) - 0.375, 3))
                torch.testing.assert_close(span.ends[1:12].diff(), torch.full((10,), 0.375))
    assert seen == {0.0, 0.5}
    plain = dataset(corpus, encoded)
    assert all(span.ends is None for span in plain.batch(1, 0).voice_spans)


def test_a_step_is_drawn_once_and_built_from_its_plan(corpus, encoded, monkeypatch) -> None:
    data, drawn = dataset(corpus, encoded), []
    plan_of = data._plan_of
    monkeypatch.setattr(data, "_plan_of", lambda *draws: (drawn.append(1), plan_of(*draws))[1])
    batches = [data.batch(4, micro_batch) for micro_batch in (0, 1, 0)]
    assert len(drawn) == 2 and same(batches[0], batches[2])
    plan = data.plan(4)
    for planned, batch in zip(plan.micro_batches, batches[:2], strict=True):
        turns = [turn for chunk in planned.chunks for turn in chunk.turns]
        assert [turn.turn.id for turn in turns] == batch.ids
        assert [span.length for span in batch.voice_spans] == [
            turn.length for turn in turns if not turn.transcribed
        ]


def test_pieces_hold_the_rows_of_their_batch_with_its_counts_and_weights(corpus, encoded) -> None:
    data = dataset(corpus, encoded)
    for step, micro_batch in ((1, 0), (2, 1)):
        whole = data.batch(step, micro_batch)
        most = data.most_pieces(step, micro_batch)
        assert most > 1
        for count in range(1, most + 2):
            pieces = data.pieces(step, micro_batch, count)
            assert len(pieces) == min(count, most)
            assert [name for piece in pieces for name in piece.ids] == whole.ids
            for name in ("text", "codes", "positions", "code_target", "text_target"):
                assert torch.equal(torch.cat([getattr(p, name) for p in pieces]), getattr(whole, name))
            starts = torch.tensor([0, *(len(piece.text) for piece in pieces)]).cumsum(0)
            depth = [p.depth_rows + start for p, start in zip(pieces, starts[:-1], strict=True)]
            assert torch.equal(torch.cat(depth), whole.depth_rows)
            frames = int((whole.code_target[:, 1] != IGNORE).sum())
            for piece in pieces:
                assert piece.depth_weight == frames / len(whole.depth_rows)
                assert piece.voice_count == whole.voice_count and piece.text_count == whole.text_count
