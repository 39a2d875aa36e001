"""Local numbers: one for each speaker of a conversation, others at every visit, never those of names."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from csm.data.dataset import ConversationDataset, DatasetConfig
from csm.data.local_speakers import with_local_speakers
from csm.data.step_plan import PlannedChunk, PlannedTurn
from csm.network.model_config import CSMConfig
from csm.sequences.turns import TurnFrames

LOCAL = (127, 126, 125, 124)


def chunk(speakers, past=()):
    def turn(place, speaker):
        return TurnFrames(f"t{place}", "a", speaker, torch.zeros(2, 3, dtype=torch.int64))

    turns = [PlannedTurn(turn(n, s), n % 2 == 0, 3, n != 1) for n, s in enumerate(speakers)]
    return PlannedChunk([turn(90 + n, s) for n, s in enumerate(past)], turns)


def speakers_of(found):
    return [turn.speaker for turn in found.past], [planned.turn.speaker for planned in found.turns]


def test_who_spoke_before_keeps_the_number_and_nothing_else_changes() -> None:
    before = chunk([5, 9, 5, 2], past=[9, 2])
    found = with_local_speakers(before, LOCAL, np.random.default_rng(0))
    past, turns = speakers_of(found)
    names = dict(zip([9, 2, 5, 9, 5, 2], [*past, *turns], strict=True))
    assert [names[s] for s in (9, 2)] == past and [names[s] for s in (5, 9, 5, 2)] == turns
    assert len(set(names.values())) == 3 and set(names.values()) <= set(LOCAL)
    for old, new in zip(before.turns, found.turns, strict=True):
        assert new._replace(turn=old.turn) == old and new.turn.codes is old.turn.codes


def test_every_number_comes_and_more_speakers_than_numbers_keep_their_names() -> None:
    rng = np.random.default_rng(1)
    first = [speakers_of(with_local_speakers(chunk([3, 4]), LOCAL, rng))[1][0] for _ in range(60)]
    assert set(first) == set(LOCAL)
    many = chunk([1, 2, 3, 4, 5])
    assert with_local_speakers(many, LOCAL, rng) is many


def test_a_share_without_local_numbers_and_local_numbers_without_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="local_speakers=4"):
        ConversationDataset(
            None, codec=None, num_codebooks=1, end_code=1, config=DatasetConfig(local_speaker_share=0.5),
            micro_batches=1, seed=0,
        )  # fmt: skip
    with pytest.raises(ValueError, match="local_speaker_share is 1.5"):
        DatasetConfig(local_speaker_share=1.5)
    config = CSMConfig(local_speakers=2, max_speakers=10)
    assert config.local_numbers == (9, 8) and CSMConfig().local_numbers == ()
    with pytest.raises(ValueError, match="local_speakers is 2"):
        replace(config, text="tokenizer.json")


def test_a_share_of_chunks_is_local_and_the_rest_of_the_plan_is_the_same(tiny_model, made_task) -> None:
    data = made_task(tiny_model(max_speakers=12)).train
    share = replace(data.config, local_speaker_share=0.5)
    kept = {"codec": data.codec, "num_codebooks": 5, "end_code": 24, "micro_batches": 2, "seed": 0}
    named = ConversationDataset(data.table, config=data.config, **kept)
    mixed = ConversationDataset(data.table, config=share, local_numbers=(11, 10), **kept)
    local = total = 0
    for step in range(1, 21):
        for plan, other in zip(named.plan(step).micro_batches, mixed.plan(step).micro_batches, strict=True):
            assert plan.counts == other.counts and torch.equal(plan.depth_frames, other.depth_frames)
            for one, two in zip(plan.chunks, other.chunks, strict=True):
                assert [t.turn.id for t in one.turns] == [t.turn.id for t in two.turns]
                local += two.turns[0].turn.speaker in (11, 10)
                total += 1
        batch = mixed.batch(step, 0)
        assert set(batch.text[batch.text >= 0].tolist()) <= set(range(data.codec.vocab_size))
    assert 0.3 < local / total < 0.7
