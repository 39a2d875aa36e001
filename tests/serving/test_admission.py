"""As many may speak as are made together in time, by a measurement; one more is refused with the reason."""

from dataclasses import replace

import pytest

from csm.generation.talker import Talker
from csm.serving import admission
from csm.serving.admission import FILLED, Admission, Full, filling, measured_places
from csm.serving.metrics import Metrics


@pytest.mark.parametrize(
    ("measured", "places"),
    [
        ({1: 3.0}, 1),
        ({1: 0.2, 4: 1.0}, 3),
        ({1: 0.1, 4: 0.25, 16: 1.25}, 10),
        ({1: 0.1, 4: 0.1, 16: 0.2, 64: 0.3}, 64),
        ({1: 0.1, 4: FILLED}, 4),
    ],
)
def test_the_speakers_that_fill_a_lane_lie_between_two_measurements(measured, places) -> None:
    assert filling(measured) == places


def test_more_and_more_speakers_are_measured_until_they_fill_a_lane(talker, monkeypatch) -> None:
    asked: list[int] = []

    def factor(talker: Talker, count: int) -> float:
        asked.append(count)
        return 0.05 * count

    monkeypatch.setattr(admission, "real_time_factor", factor)
    monkeypatch.setattr(admission, "available_cores", lambda: 4)
    places, reason = measured_places(talker)
    assert asked == [1, 1, 4, 16] and places == 2 * 15
    assert reason == (
        "real-time factor 0.05 of 1 at once, 0.20 of 4 at once, 0.80 of 16 at once; "
        "2 x 0.75 of a core or GPU to speak"
    )


def test_speakers_at_once_cost_more_than_one_and_less_than_each_alone(talker) -> None:
    talker = replace(talker, sampling=replace(talker.sampling, max_seconds=0.8))
    admission.real_time_factor(talker, 1)
    one, four = (min(admission.real_time_factor(talker, count) for _ in range(3)) for count in (1, 4))
    assert one < four < 4 * one


def test_a_place_is_held_and_the_next_speaker_reads_why() -> None:
    metrics = Metrics()
    places = Admission(1, "measured", metrics)
    with places.place():
        with pytest.raises(Full, match=r"all 1 places are taken \(measured\)"), places.place():
            pass
        assert "csm_sessions 1" in metrics.text()
    assert places.taken == 0 and "csm_refused_total 1" in metrics.text()
