"""Diarisation of made-up windows: clusters are found, and every moment of speech is attributed."""

import numpy as np
import pytest

from csm.data.corpora.transcription.diarisation import diarise
from csm.data.corpora.transcription.speaker_windows import FRAME_STEP, HOP, WINDOW, Windows
from csm.data.manifest import Segment


def made_up(pattern: list[tuple[int, float]], seed: int, *, pause: float = 0.3) -> tuple[list, Windows, list]:
    """Regions of (speaker, seconds) with windows of voices alike by a cosine of 0.7."""
    rng = np.random.default_rng(seed)
    common, own = rng.standard_normal(256), rng.standard_normal((8, 256))
    regions, embeddings, spans, owners, position = [], [], [], [], 0.5
    for index, (speaker, seconds) in enumerate(pattern):
        regions.append(Segment(speaker="?", start=position, end=position + seconds))
        voice = 1.5 * common + own[speaker]
        for start in np.arange(0, max(seconds - WINDOW * FRAME_STEP, 0) + 1e-9, HOP * FRAME_STEP):
            vector = voice + 0.5 * rng.standard_normal(256)
            embeddings.append(vector / np.linalg.norm(vector))
            spans.append((position + start, position + min(start + WINDOW * FRAME_STEP, seconds)))
            owners.append(index)
        position += seconds + pause
    return regions, Windows(np.array(embeddings), np.array(spans), np.array(owners)), pattern


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("people", [1, 2, 3])
def test_speakers_are_counted_and_separated_and_every_moment_is_attributed(seed: int, people: int) -> None:
    rng = np.random.default_rng(seed)
    order = [*range(people), *(int(rng.integers(people)) for _ in range(20))]
    regions, windows, pattern = made_up([(who, float(rng.uniform(0.5, 5))) for who in order], seed)
    for count in (people, None):
        found = diarise(regions, windows, count)
        assert [a.speaker for a in found] == [who for who, _ in pattern]
        assert [(a.start, a.end) for a in found] == [(r.start, r.end) for r in regions]


def test_a_change_without_a_pause_is_found() -> None:
    regions, windows, _ = made_up([(0, 4.0), (1, 4.0), (0, 4.0), (1, 4.0)], 3, pause=0.0)
    joined = [Segment(speaker="?", start=regions[0].start, end=regions[1].end), *regions[2:]]
    moved = windows._replace(regions=np.maximum(windows.regions - 1, 0))
    found = diarise(joined, moved, 2)
    assert [a.speaker for a in found if a.end - a.start > 1] == [0, 1, 0, 1]
    change = next(a.end for a in found if a.speaker == 0)
    assert abs(change - regions[0].end) <= 0.5
    assert abs(sum(a.end - a.start for a in found) - sum(r.duration for r in joined)) < 1e-6


def test_an_overlap_is_an_interval_of_its_own_and_nothing_is_lost() -> None:
    regions, windows, _ = made_up([(0, 4.0), (1, 4.0), (0, 4.0)], 3)
    middle = regions[1].start
    found = diarise(regions, windows, 2, [(0.0, 0.1), (middle + 0.6, middle + 1.4)])
    (both,) = [a for a in found if a.overlap]
    assert abs(both.start - middle - 0.6) <= 0.1 and abs(both.end - middle - 1.4) <= 0.1
    assert both.speaker == 1
    assert abs(sum(a.end - a.start for a in found) - sum(r.duration for r in regions)) < 1e-6


def test_speech_too_short_for_a_window_goes_to_who_spoke_before() -> None:
    regions, windows, _ = made_up([(0, 4.0), (1, 4.0), (0, 0.5)], 1)
    kept = windows.regions < 2
    short = Windows(windows.embeddings[kept], windows.spans[kept], windows.regions[kept])
    assert [a.speaker for a in diarise(regions, short, 2)] == [0, 1, 1]
    nothing = Windows(np.zeros((0, 256)), np.zeros((0, 2)), np.zeros(0, int))
    assert [a.speaker for a in diarise(regions, nothing)] == [0, 0, 0]


def test_a_voice_that_differs_from_stretch_to_stretch_is_one_speaker() -> None:
    regions, windows, _ = made_up([(0, 4.0)] * 12, 2)
    rng = np.random.default_rng(2)
    moods = 0.04 * rng.standard_normal((12, 256))[windows.regions]
    found = diarise(regions, windows._replace(embeddings=windows.embeddings + moods))
    assert {a.speaker for a in found} == {0}


def test_people_who_never_pause_are_counted_too() -> None:
    regions, windows, pattern = made_up([(i % 2, 10.0) for i in range(8)], 4, pause=0.0)
    whole = [Segment(speaker="?", start=regions[0].start, end=regions[-1].end)]
    found = diarise(whole, windows._replace(regions=np.zeros_like(windows.regions)))
    assert [a.speaker for a in found if a.end - a.start > 2] == [who for who, _ in pattern]


def test_answers_repeat_and_do_not_depend_on_the_axes_of_the_embeddings() -> None:
    rng = np.random.default_rng(6)
    order = [0, 1, 2, *rng.integers(3, size=15).tolist()]
    regions, windows, _ = made_up([(who, 3.0) for who in order], 6)
    found = diarise(regions, windows)
    assert found == diarise(regions, windows)
    turned = np.linalg.qr(rng.standard_normal((256, 256)))[0]
    assert found == diarise(regions, windows._replace(embeddings=windows.embeddings @ turned))
