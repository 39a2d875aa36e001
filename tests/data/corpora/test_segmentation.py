"""IPUs, turns, overlaps and backchannels by the evaluation's definitions; voice activity of two channels."""

import random

import numpy as np
import pytest
import soundfile

from csm.audio.files import check_audio, read_audio
from csm.data.corpora.segmentation import (
    Activity,
    SegmentationConfig,
    detect_segments,
    join_turns,
    merge_units,
    to_turns,
)
from csm.data.manifest import Recording, Segment

CONFIG = SegmentationConfig()
RECORDING = Recording(id="r", audio="audio/r.flac", sample_rate=16_000, channels=2, duration=1000.0)


def seg(speaker: str, start: float, end: float, text: str = "", channel: int | None = None) -> Segment:
    where = {"A": 0, "B": 1}[speaker] if channel is None else channel
    return Segment(speaker=speaker, start=start, end=end, text=text, channel=where)


def spans(segments) -> list[tuple]:
    return [(s.speaker, round(s.start, 3), round(s.end, 3)) for s in segments]


def some_segments(seed: int) -> list[Segment]:
    generator = random.Random(seed)
    segments = []
    for speaker in "AB":
        position = generator.random()
        for number in range(30):
            length = generator.choice([0.15, 0.4, 0.9, 1.5, 5.0])
            segments.append(seg(speaker, position, position + length, f"{speaker}{number}"))
            position += length + generator.choice([0.05, 0.19, 0.21, 0.9, 1.1, 3.0])
    generator.shuffle(segments)
    return segments


def test_gaps_under_200_ms_are_inside_a_unit_and_longer_ones_are_not() -> None:
    units = merge_units(
        [seg("A", 0, 1, "so"), seg("A", 1.19, 2, "then"), seg("A", 2.21, 3)], CONFIG.merge_gap
    )
    assert spans(units) == [("A", 0, 2), ("A", 2.21, 3)] and units[0].text == "so then"


def test_units_are_merged_across_another_speakers_activity() -> None:
    assert spans(merge_units([seg("A", 0, 1), seg("B", 1.05, 1.1), seg("A", 1.15, 2)], 0.2)) == [
        ("A", 0, 2),
        ("B", 1.05, 1.1),
    ]


@pytest.mark.parametrize("seed", range(20))
def test_merging_keeps_all_speech_and_words_in_order(seed: int) -> None:
    segments = some_segments(seed)
    units = merge_units(segments, 0.2)
    turns = join_turns(units, CONFIG)
    for result in (units, turns):
        for speaker in "AB":
            words = [s.text for s in sorted(segments, key=lambda s: s.start) if s.speaker == speaker]
            own = sorted((s for s in result if s.speaker == speaker), key=lambda s: s.start)
            if result is units:
                assert " ".join(s.text for s in own).split() == words
            assert sorted(" ".join(s.text for s in own).split()) == sorted(words)
        for s in segments:
            assert any(r.speaker == s.speaker and r.start <= s.start and s.end <= r.end for r in result)
    assert merge_units(units, 0.2) == units
    for speaker in "AB":
        own = [u for u in units if u.speaker == speaker]
        assert all(b.start - a.end >= 0.2 for a, b in zip(own, own[1:], strict=False))


def test_a_turn_spans_pauses_and_ends_where_another_speaker_starts() -> None:
    units = [seg("A", 0, 2), seg("A", 2.5, 4), seg("B", 4.2, 7), seg("A", 7.5, 9), seg("A", 12, 14)]
    assert spans(join_turns(units, CONFIG)) == [("A", 0, 4), ("B", 4.2, 7), ("A", 7.5, 9), ("A", 12, 14)]


def test_a_backchannel_does_not_end_a_turn() -> None:
    units = [seg("A", 0, 3), seg("B", 3.1, 3.5, "mhm"), seg("A", 3.6, 6), seg("B", 8, 11)]
    turns = to_turns(RECORDING, units)
    assert [(t.speaker, t.start, t.end, t.backchannel) for t in turns] == [
        ("A", 0, 6, False),
        ("B", 3.1, 3.5, True),
        ("B", 8, 11, False),
    ]


@pytest.mark.parametrize(
    ("before", "length", "after", "expected"),
    [
        (1.0, 1.0, 1.0, True),
        (1.5, 0.3, 1.2, True),
        (0.9, 0.5, 1.5, False),
        (1.5, 0.5, 0.9, False),
        (2.0, 1.1, 2.0, False),
        (None, 0.5, 1.0, True),
        (1.0, 0.5, None, True),
    ],
)
def test_a_backchannel_is_short_and_surrounded_by_silence_of_its_speaker(
    before, length, after, expected
) -> None:
    units = [seg("A", 0, 60), seg("B", 30, 30 + length)]
    units += [seg("B", 20, 30 - before)] if before is not None else []
    units += [seg("B", 30 + length + after, 50)] if after is not None else []
    assert Activity(units).is_backchannel(units[1], CONFIG) is expected


def test_overlap_is_symmetric_and_adjacent_turns_have_none() -> None:
    turns = to_turns(RECORDING, [seg("A", 0, 3), seg("B", 2.9, 6), seg("A", 6, 9)])
    assert [t.overlap for t in turns] == [True, True, False]


@pytest.mark.parametrize("seed", range(10))
def test_a_turn_is_marked_as_overlap_exactly_if_another_speaker_is_active(seed: int) -> None:
    segments = some_segments(seed)
    for turn in to_turns(RECORDING, segments, join=False):
        others = merge_units([s for s in segments if s.speaker != turn.speaker], CONFIG.merge_gap)
        assert turn.overlap == any(o.start < turn.end and turn.start < o.end for o in others)


def test_annotated_turns_are_kept_unchanged() -> None:
    segments = some_segments(3)
    turns = to_turns(RECORDING, segments, join=False)
    assert len(turns) == len(segments) and {t.text for t in turns} == {s.text for s in segments}
    assert [t.index for t in turns] == list(range(len(turns)))
    assert len({t.id for t in turns}) == len(turns)


def test_the_order_of_the_input_does_not_matter() -> None:
    segments = some_segments(5)
    assert to_turns(RECORDING, segments) == to_turns(RECORDING, segments[::-1])


def test_no_joined_turn_exceeds_the_longest_turn() -> None:
    units = [seg("A", 10 * k, 10 * k + 9) for k in range(10)]
    assert all(turn.duration <= 30 for turn in join_turns(units, CONFIG))


@pytest.mark.parametrize("bad", [seg("A", 0, 1001), seg("A", 0, 1, channel=2)])
def test_a_segment_outside_the_recording_is_refused(bad: Segment) -> None:
    with pytest.raises(ValueError, match="outside the recording"):
        to_turns(RECORDING, [bad])


@pytest.mark.parametrize(
    "options", [{"merge_gap": -1}, {"longest_turn": float("nan")}, {"longest_pause": 0.1}]
)
def test_bad_numbers_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="SegmentationConfig"):
        SegmentationConfig(**options)


@pytest.mark.parametrize("leak", [0.0, 0.1])
def test_voice_activity_has_the_channel_and_the_times_of_the_speech(excerpt, tmp_path, leak) -> None:
    pytest.importorskip("silero_vad")
    rate, position = 11_025, 0
    clips = [t for t in excerpt.turns("train") if t.conversation == "SPARKY3" and t.duration > 1.5][:10]
    stereo = np.random.default_rng(0).normal(0, 1e-4, (rate * 60, 2)).astype(np.float32)
    placed: list[tuple[int, float, float]] = []
    for number, turn in enumerate(clips):
        samples = read_audio(excerpt.root / turn.audio, sample_rate=rate)[0].numpy()
        position += rate
        stereo[position : position + len(samples), number % 2] += samples
        placed.append((number % 2, position / rate, (position + len(samples)) / rate))
        position += len(samples)
    stereo = stereo + leak * stereo[:, ::-1]  # -20 dB on the other channel
    soundfile.write(tmp_path / "two.wav", stereo, rate)
    found = detect_segments(tmp_path / "two.wav", check_audio(tmp_path / "two.wav"), ["A", "B"])
    assert all(s.end <= 60 for s in found)
    for segment in found:
        assert any(
            c == segment.channel and a - 0.3 < segment.start and segment.end < b + 0.3 for c, a, b in placed
        )
    for channel, start, end in placed:
        covered = sum(s.duration for s in found if s.channel == channel and start - 0.3 < s.start < end)
        assert covered > 0.5 * (end - start)
    turns = to_turns(
        Recording(id="two", audio="audio/two.flac", sample_rate=rate, channels=2, duration=60.0), found
    )
    assert [t.channel for t in turns if not t.backchannel] == [n % 2 for n in range(len(clips))]


def test_every_channel_needs_a_speaker(tmp_path) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 8000)
    with pytest.raises(ValueError, match="speakers are 2: expected one for each of 1 channels"):
        detect_segments(tmp_path / "a.wav", check_audio(tmp_path / "a.wav"), ["A", "B"])


def test_without_silero_the_error_names_the_extra(tmp_path, monkeypatch) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 8000)
    monkeypatch.setitem(__import__("sys").modules, "silero_vad", None)
    with pytest.raises(ValueError, match=r"csm-speech\[eval\]"):
        detect_segments(tmp_path / "a.wav", check_audio(tmp_path / "a.wav"), ["A"])
