"""Rows of several turns in one call: each as alone, guided ones among them."""

import pytest
import torch

from csm.generation.run_rows import run_together
from csm.generation.sampling import SamplingConfig
from csm.generation.session import Session
from csm.generation.spoken_turn import guided_rows


def begun(model, random_turn, guidance) -> list:
    """A turn of three frames for each guidance, the rows of none of them run; every second has a past."""
    turns = []
    for number, value in enumerate(guidance):
        session = Session(model, SamplingConfig(seed=number, guidance=value))
        if number % 2:
            session.listen(random_turn(f"past{number}", "what was said", 7 + number))
        turn = session.begin_turn(session.plan_turn(f"text {number}", 0, 5 + number))
        turn.said += random_turn(f"said{number}", frames=3).codes.unbind(dim=1)
        turns.append(turn)
    return turns


@pytest.mark.parametrize("guidance", [(0.0, 0.0, 0.0), (0.0, 0.7, 0.0, 1.2), (0.5, 0.5)])
@torch.no_grad()
def test_rows_beside_others_come_out_as_alone(tiny_model, random_turn, guidance) -> None:
    model = tiny_model()
    batch, single = (begun(model, random_turn, guidance) for _ in range(2))
    for _ in range(4):
        together = run_together(batch)
        alone = torch.cat([run_together([turn]) for turn in single])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert [turn.rows_left for turn in batch] == [0] * len(batch)
    for turn in batch:
        assert turn.unread is None or turn.unread.length == turn.cache.length


@torch.no_grad()
def test_guided_turns_differ_from_plain_ones_by_their_second_row(tiny_model, random_turn) -> None:
    model = tiny_model()
    (plain,), (guided,) = begun(model, random_turn, [0.0]), begun(model, random_turn, [0.8])
    rows = [run_together([turn])[0] for turn in (plain, guided)]
    assert not torch.allclose(*rows, atol=1e-3)
    torch.testing.assert_close(rows[0].norm(), rows[1].norm())


def test_guidance_of_zero_leaves_rows_as_they_are() -> None:
    read, unread = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0)).unbind()
    assert torch.equal(guided_rows(read, unread, 0.0), read)
    mixed = guided_rows(read, unread, torch.tensor([[0.0], [0.5], [2.0]]))
    assert torch.equal(mixed[0], read[0])
    expected = guided_rows(read[1:2], unread[1:2], 0.5)
    torch.testing.assert_close(mixed[1:2], expected, atol=0, rtol=1e-6)
    assert guided_rows(read.bfloat16(), unread.bfloat16(), 0.5).dtype == torch.bfloat16
