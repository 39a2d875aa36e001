"""A step of several static speeches: two launches and one wait for their codes, whatever their number."""

import importlib
from dataclasses import replace
from pathlib import Path

import pytest

from csm.generation.captured import Captured
from csm.generation.shared_speech import SharedSteps


@pytest.fixture
def host_work(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks/gpu"))
    return importlib.import_module("host_work")


@pytest.fixture
def together(talker):
    """Its speeches do not end before their limit of 0.56 s."""
    sampling = replace(talker.sampling, max_seconds=0.56, shortest=99.0)
    return replace(talker, sampling=sampling, shared=SharedSteps(talker.tokenizer, expected=3, thread=False))


def begun(talker, count: int) -> list:
    """Begins static speeches, each with a seed and a text of its own, and takes their first audio."""
    streams = []
    for number in range(count):
        session = talker.session(number)
        session.static = True
        streams.append(talker.generate(f"Line {number}.", session=session, stream=True))
        next(streams[-1])
    return streams


def test_static_speeches_share_two_launches_and_their_places_are_free_after_them(
    together, monkeypatch
) -> None:
    streams, launches = begun(together, 3), []
    call = Captured.__call__
    monkeypatch.setattr(Captured, "__call__", lambda self: launches.append(self) or call(self))
    while together.shared.step() < 3:
        for stream in streams:
            next(stream)
        launches.clear()
    assert len(launches) == len(set(launches)) == 2
    static = together.shared._step._static
    assert len(static._places) == 3 and static._lane.count == 4
    for stream in streams:
        stream.close()
    assert static._held is None and not static._places


@pytest.mark.parametrize("count", [1, 3])
def test_a_step_of_any_number_of_static_speeches_waits_once_for_their_codes(
    together, count, host_work
) -> None:
    streams, steps = begun(together, count), 0
    while steps < count:
        for stream in streams:
            next(stream)
        with host_work.counted() as found:
            steps = together.shared.step()
    of_model = {where: number for where, number in found.waits.items() if "tokenizer/" not in where}
    assert sum(of_model.values()) == 1, found.waits
    # The decoder's do not depend on the number of speeches.
    assert sum(found.waits.values()) <= 3, found.waits
    for stream in streams:
        stream.close()
