"""Utterances for the tokenizer: a batch is a pure function of its place, and an epoch repeats nothing."""

import dataclasses
import hashlib
from collections import Counter

import numpy as np
import pytest
import torch

from csm.audio.files import write_audio
from csm.data.manifest import Conversation, Corpus, Turn
from csm.data.utterances import UtteranceConfig, UtteranceDataset
from csm.spelling import spell

RATE, FRAME = 8000, 640
SIZES = {"sample_rate": RATE, "samples_per_frame": FRAME, "seed": 3, "micro_batches": 2}


def clip(index: int, seconds: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(index)
    return 0.1 * torch.randn(1, int(seconds * RATE), generator=generator)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    """22 clips of 0.2 to 1.25 s of three speakers, and one two-channel recording that holds four turns."""
    root = tmp_path_factory.mktemp("corpus")
    turns = []
    for index in range(22):
        seconds = 0.2 + 0.05 * index
        write_audio(root / f"audio/{index}.wav", clip(index, seconds), RATE)
        turns.append((f"audio/{index}.wav", 0.0, seconds, 0))
    both = torch.cat([clip(100, 2.0), 0.5 * clip(101, 2.0)])
    write_audio(root / "audio/both.wav", both, RATE)
    turns += [("audio/both.wav", start, start + 0.5, channel) for channel in (0, 1) for start in (0.0, 1.0)]
    made = [
        Turn(
            id=f"t{index}",
            conversation="c",
            index=index,
            speaker="ABC"[index % 3],
            text=f"It's line {'abcdefghijklmnopqrstuvwxyz'[index]}!",
            audio=audio,
            start=start,
            end=end,
            channel=channel,
        )
        for index, (audio, start, end, channel) in enumerate(turns)
    ]
    return Corpus(root=root, conversations=(Conversation(id="c", split="train", turns=tuple(made)),))


@pytest.fixture(scope="module")
def dataset(corpus) -> UtteranceDataset:
    return UtteranceDataset(corpus, "train", config=UtteranceConfig(items=4, slice_frames=3), **SIZES)


def same(one, two) -> bool:
    pairs = ((getattr(one, f.name), getattr(two, f.name)) for f in dataclasses.fields(one))
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def test_a_batch_is_a_pure_function_of_step_and_shard(corpus, dataset):
    wanted = [(7, 1), (1, 0), (30, 1), (1, 0)]
    torch.manual_seed(1)
    np.random.seed(1)
    forwards = [dataset.batch(*place) for place in wanted]
    torch.manual_seed(2)
    np.random.seed(2)
    again = UtteranceDataset(corpus, "train", config=dataset.config, **SIZES)
    backwards = [again.batch(*place) for place in reversed(wanted)][::-1]
    assert all(same(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert same(forwards[1], forwards[3]) and not same(forwards[0], forwards[1])


def test_drawing_a_batch_leaves_the_global_generators_alone(dataset):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    dataset.batch(3, 0)
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == np.random.get_state()[1].tolist()


def test_every_span_of_epochs_visits_each_turn_as_often_and_each_span_differs(dataset):
    per_span = len(dataset) * dataset.epochs // 4
    assert (dataset.epochs, per_span) == (2, 13)
    spans = []
    for span in range(4):
        places = [divmod(span * per_span + place, 2) for place in range(per_span)]
        ids = [name for step, micro_batch in places for name in dataset.batch(step, micro_batch).ids]
        assert len(set(ids[:24])) == 24 and set(Counter(ids).values()) == {2}
        spans.append(ids)
    assert len({tuple(ids) for ids in spans}) == 4


def test_synthetic_turns_are_drawn_as_often_as_asked_and_validation_once(corpus):
    turns = tuple(dataclasses.replace(turn, synthetic=turn.speaker == "A") for turn in corpus.turns())
    marked = dataclasses.replace(
        corpus, conversations=(dataclasses.replace(corpus.conversations[0], turns=turns),)
    )
    config = UtteranceConfig(items=4, slice_frames=3, synthetic_times=3)
    dataset = UtteranceDataset(marked, "train", config=config, **SIZES)
    drawn = sum(3 if turn.synthetic else 1 for turn in turns)
    batches = drawn * dataset.epochs // 4
    counts = Counter(
        name
        for index in range(2 * batches, 3 * batches)
        for name in dataset.batch(*divmod(index, SIZES["micro_batches"])).ids
    )
    assert counts == {turn.id: dataset.epochs * (3 if turn.synthetic else 1) for turn in turns}
    assert sorted(dataset.in_order(0, len(turns)).ids) == sorted(turn.id for turn in turns)
    with pytest.raises(ValueError, match="synthetic_times"):
        UtteranceConfig(synthetic_times=0)


def test_the_order_does_not_depend_on_how_many_shards_a_step_has(corpus, dataset):
    four = UtteranceDataset(corpus, "train", config=dataset.config, **{**SIZES, "micro_batches": 4})
    for index in range(12):
        assert same(dataset.batch(*divmod(index, 2)), four.batch(*divmod(index, 4)))


def test_the_batch_contract(dataset):
    for step in range(6):
        batch = dataset.batch(step, 0)
        assert batch.audio.shape[:2] == (4, 1) and batch.audio.shape[2] % FRAME == 0
        assert batch.audio.abs().max() <= 1 and batch.lengths.max() <= batch.audio.shape[2]
        assert (
            batch.statistics.shape == (4, 6)
            and batch.levels.shape == (4, 3)
            and batch.condition.shape == (4,)
        )
        for row, name in enumerate(batch.ids):
            turn = next(t for t in dataset.turns if t.id == name)
            length = int(batch.lengths[row])
            assert not batch.audio[row, 0, length:].any() and batch.audio[row, 0, :length].any()
            assert dataset.speakers[batch.speaker[row]] == turn.speaker
            assert batch.text[row, : batch.text_lengths[row]].tolist() == spell(turn.text)
            assert not batch.text[row, batch.text_lengths[row] :].any()
            frames = -(-length // FRAME)
            assert 0 <= batch.slice_start[row] <= max(0, frames - 3)


def test_a_turn_is_its_stretch_of_its_channel_and_nothing_else_of_the_file(dataset):
    for row, (channel, start) in enumerate([(0, 0.0), (0, 1.0), (1, 0.0), (1, 1.0)]):
        wave = dataset.sounds[22 + row].samples.float() / 32767
        source = clip(100, 2.0) if channel == 0 else 0.5 * clip(101, 2.0)
        expected = source[0, int(start * RATE) : int((start + 0.5) * RATE)]
        torch.testing.assert_close(wave, expected, atol=1e-4, rtol=0)


def test_the_gain_stays_in_its_range(corpus):
    config = UtteranceConfig(items=4, slice_frames=3, gain_db=6.0)
    dataset = UtteranceDataset(corpus, "train", config=config, **SIZES)
    gains = []
    for step in range(8):
        batch = dataset.batch(step, 1)
        for row, name in enumerate(batch.ids):
            source = dataset.sounds[int(name[1:])].samples.float() / 32767
            gains.append(float(batch.audio[row].norm() / source.norm()))
    assert 0.5 <= min(gains) < 0.8 and 1.25 < max(gains) <= 2.0


def test_a_clip_over_the_limit_is_cut_to_a_stretch_and_loses_its_text(corpus):
    config = UtteranceConfig(items=4, slice_frames=3, max_seconds=0.4)
    dataset = UtteranceDataset(corpus, "train", config=config, **SIZES)
    for step in range(6):
        batch = dataset.batch(step, 0)
        for row, name in enumerate(batch.ids):
            cut = len(dataset.sounds[int(name[1:])].samples) > 5 * FRAME
            assert int(batch.lengths[row]) <= 5 * FRAME
            assert (int(batch.text_lengths[row]) == 0) == cut


def test_samples_beyond_full_scale_are_limited_and_do_not_wrap_around(corpus, monkeypatch):
    loud = torch.full((1, 1600), 1.2)
    monkeypatch.setattr("csm.data.turn_sounds.read_turn", lambda *_: loud)
    dataset = UtteranceDataset(corpus, "train", config=UtteranceConfig(items=4), **SIZES)
    assert all(int(dataset.sounds[n].samples.min()) == 32767 for n in range(len(dataset)))


def test_validation_comes_in_one_order_at_every_call(dataset):
    assert same(dataset.in_order(0, 8), dataset.in_order(0, 8))
    ids = dataset.in_order(0, 8).ids + dataset.in_order(8, 100).ids
    assert sorted(ids) == sorted(turn.id for turn in dataset.turns)


def test_excluded_speakers_are_never_drawn_and_keep_their_index(corpus):
    config = UtteranceConfig(items=4, exclude_speakers=("A",))
    dataset = UtteranceDataset(corpus, "train", config=config, **SIZES)
    assert {turn.speaker for turn in dataset.turns} == {"B", "C"} and dataset.speakers == ["A", "B", "C"]


def test_statistics_are_standardised_over_the_dataset(dataset):
    torch.testing.assert_close(
        dataset.statistics(range(len(dataset))).mean(0), torch.zeros(6), atol=1e-4, rtol=0
    )


def test_too_few_turns_and_impossible_sizes_are_refused(corpus):
    with pytest.raises(ValueError, match="expected at least items=40"):
        UtteranceDataset(corpus, "train", config=UtteranceConfig(items=40), **SIZES)
    with pytest.raises(ValueError, match="0 usable turns in split 'test'"):
        UtteranceDataset(corpus, "test", config=UtteranceConfig(), **SIZES)
    with pytest.raises(ValueError, match="at least one frame"):
        UtteranceDataset(corpus, "train", config=UtteranceConfig(items=4, max_seconds=0.05), **SIZES)
    for change in ({"items": 0}, {"slice_frames": 1}, {"max_seconds": 0.0}):
        with pytest.raises(ValueError, match="expected at least"):
            UtteranceConfig(**change)


def test_what_fills_no_micro_batch_is_carried_over_and_nothing_is_dropped(corpus, dataset):
    five = UtteranceDataset(corpus, "train", config=dataclasses.replace(dataset.config, items=5), **SIZES)
    assert five.epochs == 5
    per_span = len(five) * five.epochs // 5
    drawn = [name for place in range(per_span) for name in five.batch(*divmod(place, 2)).ids]
    assert set(Counter(drawn).values()) == {five.epochs}
    for end in range(5, per_span, 5):  # after any number of turns none is two epochs ahead of another
        counts = Counter(drawn[: end * 5])
        assert max(counts.values()) - min(counts.get(turn.id, 0) for turn in five.turns) <= 2


@pytest.mark.parametrize(
    ("changes", "first", "late", "validated", "level", "digest"),
    [
        ({}, "t13 t14 t15 t16", "t4 t5 t6 t23", "t2 t10 t13 t12 t9", 0.8349, "01883bd62041129b"),
        (
            {"items": 3, "synthetic_times": 3, "exclude_speakers": ("B",)},
            *("t11 t12 t12", "t9 t9 t11", "t24 t0 t6 t14 t2", 0.6749, "1313a91820bf4143"),
        ),
        (
            {"items": 5},
            *("t17 t18 t19 t20 t21", "t11 t12 t14 t15 t16", "t2 t10 t13 t12 t9", 0.5673, "6b5752b62737488a"),
        ),
    ],
)
def test_what_a_seed_draws_stays_what_it_was(corpus, changes, first, late, validated, level, digest):
    """A training that is resumed goes on in the order in which it began."""
    turns = tuple(dataclasses.replace(turn, synthetic=turn.speaker == "A") for turn in corpus.turns())
    marked = dataclasses.replace(
        corpus, conversations=(dataclasses.replace(corpus.conversations[0], turns=turns),)
    )
    config = UtteranceConfig(**{"items": 4, "slice_frames": 3, **changes})
    dataset = UtteranceDataset(marked, "train", config=config, **SIZES)
    assert dataset.batch(0, 0).ids == first.split() and dataset.batch(10**6, 1).ids == late.split()
    assert dataset.in_order(2, 5).ids == validated.split()
    assert float(dataset.batch(9, 0).levels[0, 0]) == pytest.approx(level, abs=1e-4)
    drawn = (name for step in range(60) for part in (0, 1) for name in dataset.batch(step, part).ids)
    assert hashlib.sha256(" ".join(drawn).encode()).hexdigest()[:16] == digest
    batch = dataset.batch(3, 1)
    assert [dataset.turns[place].id for place in batch.places] == batch.ids
    assert [dataset.turns[place].text for place in batch.places] == batch.texts
