"""Folders of recordings: every form of transcript, every kind of bad file, totals that add up."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from csm.audio.files import read_audio
from csm.data.corpora import folder, folder_transcripts
from csm.data.corpora.folder import prepare_folder
from csm.data.manifest import Segment


def tone(seconds: float = 2.0, rate: int = 16_000, hertz: float = 200.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def put(
    path: Path, samples: np.ndarray | None = None, rate: int = 16_000, beside: object = None, **options
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone() if samples is None else samples, rate, **options)
    if isinstance(beside, str):
        path.with_suffix(".txt").write_text(beside, encoding="utf-8")
    elif beside is not None:
        path.with_suffix(".json").write_text(json.dumps(beside), encoding="utf-8")


def ledger(corpus) -> dict[str, str]:
    text = (corpus.root / "rejects.jsonl").read_text(encoding="utf-8")
    return {line["source"]: line["reason"] for line in map(json.loads, text.splitlines())}


def require_totals(corpus, source: Path) -> None:
    info = corpus.info
    assert info["turns_in"] == info["turns_used"] + info["turns_rejected"]
    assert info["files_in"] == info["files_used"] + info["files_rejected"]
    assert info["files_in"] == sum(path.is_file() for path in source.rglob("*"))
    lines = (corpus.root / "rejects.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == info["turns_rejected"] + info["files_rejected"]


STEREO = np.stack([tone(), tone(hertz=300)], 1)
TURNS = {
    "turns": [
        {"speaker": "Ann", "start": 0.0, "end": 0.9, "text": "Well,  hello.", "channel": 0},
        {"speaker": "Ben", "start": 0.8, "end": 1.2, "text": "Mhm.", "channel": 1, "emotion": "glad"},
        {"speaker": "Ann", "start": 1.3, "end": 2.0, "text": "So.", "channel": 0},
    ]
}


def test_a_text_beside_a_mono_file_is_one_turn_whose_speaker_is_the_folder(tmp_path) -> None:
    put(tmp_path / "in/maria/one.wav", beside="\ufeffGuten  Tag,\nhier ist Maria.")
    put(tmp_path / "in/maria/two.flac", beside={"speaker": "Jo", "text": "Hi."})
    corpus = prepare_folder(tmp_path / "out", source=tmp_path / "in")
    assert [(t.speaker, t.text, t.duration) for t in corpus.turns()] == [
        ("maria", "Guten Tag, hier ist Maria.", 2.0),
        ("Jo", "Hi.", 2.0),
    ]
    require_totals(corpus, tmp_path / "in")


@pytest.mark.parametrize("rate", [8_000, 44_100, 96_000])
def test_two_channels_stay_two_and_overlap_and_backchannel_are_marked(tmp_path, rate: int) -> None:
    stereo = np.stack([tone(2, rate), tone(2, rate, 300)], 1)
    put(tmp_path / "in/talk.wav", stereo, rate, beside=TURNS)
    corpus = prepare_folder(tmp_path / "out", source=tmp_path / "in")
    ann, ben, _ = corpus.turns()
    assert [t.channel for t in corpus.turns()] == [0, 1, 0] and ann.text == "Well, hello."
    assert (ann.overlap, ben.overlap, ben.backchannel, ben.emotion) == (True, True, True, "glad")
    info = soundfile.info(corpus.root / ann.audio)
    assert (info.samplerate, info.channels) == (rate, 2)
    second = read_audio(corpus.root / ben.audio, sample_rate=rate, start=ben.start, end=ben.end, channel=1)
    assert abs(int(np.abs(np.fft.rfft(second[0])).argmax()) / ben.duration - 300) < 5


def test_a_list_of_turns_is_enough_and_mono_may_hold_several_speakers(tmp_path) -> None:
    entries = [{key: value for key, value in turn.items() if key != "channel"} for turn in TURNS["turns"]]
    put(tmp_path / "in/talk.wav", beside=entries)
    corpus = prepare_folder(tmp_path / "out", source=tmp_path / "in")
    assert corpus.speakers() == ["Ann", "Ben"] and len(corpus.conversations) == 1


def test_bad_turns_are_rejected_and_good_ones_kept(tmp_path) -> None:
    good = TURNS["turns"][0]
    bad = [
        {**good, "end": 99},
        {**good, "start": "x"},
        {**good, "text": " "},
        {**good, "channel": 2},
        {**good, "start": float("nan")},
        {**good, "speaker": ""},
        {"speaker": "Ann"},
        {**good, "text": None},
        {**good, "text": 5},
        {**good, "speaker": None},
        "not a turn",
        None,
    ]
    put(tmp_path / "in/talk.wav", STEREO, beside={"turns": [*bad, good]})
    corpus = prepare_folder(tmp_path / "out", source=tmp_path / "in")
    assert len(corpus.turns()) == 1 and corpus.info["turns_rejected"] == len(bad)
    require_totals(corpus, tmp_path / "in")


@pytest.mark.parametrize(
    ("samples", "beside", "reason"),
    [
        (tone(), None, "add NAME.txt or NAME.json"),
        (tone(), " ", "text beside it is empty"),
        (tone(), {"text": None}, "text beside it is null"),
        (tone(), {"segments": []}, "turns or text or speakers is missing"),
        (STEREO, {"alignments": []}, "turns or text or speakers is missing"),
        (tone(), {"Text": "Hi."}, "the entry has 'Text'; rename it"),
        (tone(), {"turns": []}, "at least one turn"),
        (tone(), {"turns": 5}, "no list of turns: expected a list"),
        (tone(), 5, "no object"),
        (tone(), {"turns": [{"speaker": "A", "text": "b"}]}, "need two channels"),
        (STEREO, "one text", "not one text"),
        (STEREO, {"speakers": ["A"]}, "two different names"),
        (STEREO, {"speakers": ["A", "A"]}, "two different names"),
        (STEREO, {"turns": [{"speaker": "A", "channel": 0, "text": "b"}]}, "channel 1 needs turns"),
        (STEREO, {"turns": [{"speaker": "A"}, 7]}, "needs turns"),
        (np.stack([tone()] * 6, 1), TURNS, "6 channels"),
        (np.zeros(16_000), "hello", "silent"),
        (np.full(16_000, 0.5), "hello", "DC only"),
        (np.where(np.arange(16_000) == 9, np.nan, 0.1), "hello", "NaN"),
    ],
)
def test_an_unusable_recording_is_rejected_with_its_reason_and_the_rest_is_used(
    tmp_path, samples, beside, reason
) -> None:
    put(tmp_path / "in/good.wav", beside="Fine.")
    put(tmp_path / "in/bad.wav", samples, beside=beside, subtype="FLOAT")
    corpus = prepare_folder(tmp_path / "out", source=tmp_path / "in")
    assert [turn.text for turn in corpus.turns()] == ["Fine."]
    assert reason in ledger(corpus)["bad.wav"]
    require_totals(corpus, tmp_path / "in")


def test_odd_files_are_rejected_each_with_its_reason(tmp_path) -> None:
    source = tmp_path / "in"
    put(source / "a/good.wav", beside="Fine.")
    put(source / "a/good.flac")  # the same name again
    put(source / "mp3.mp3", beside="An MP3.", format="MP3")
    (source / "mp3.mp3").rename(source / "mp3.wav")
    put(source / "cut.wav", beside="Cut.")
    (source / "cut.wav").write_bytes((source / "cut.wav").read_bytes()[:-999])
    (source / "empty.wav").write_bytes(b"")
    (source / "alone.txt").write_text("no recording")
    (source / "photo.jpg").write_bytes(b"\xff\xd8")
    put(source / "latin.wav")
    (source / "latin.txt").write_bytes(b"caf\xe9")
    put(source / "deep.wav")
    (source / "deep.json").write_text("[" * 100_000)
    (source / ".hidden").write_text("x")
    if sys.platform == "linux":
        put(source / "x.wav")
        (source / "x.wav").rename(source / os.fsdecode(b"caf\xe9.wav"))
        (source / os.fsdecode(b"caf\xe9.txt")).write_text("Bytes.")
        os.symlink(source / "gone", source / "link.wav")
        os.symlink(source, source / "loop")
        os.mkfifo(source / "pipe.wav")
    corpus = prepare_folder(tmp_path / "out", source=source)
    texts = {turn.text for turn in corpus.turns()}
    assert {"Fine.", "An MP3."} <= texts <= {"Fine.", "An MP3.", "Bytes."}
    reasons = ledger(corpus)
    expected = {
        "a/good.wav": "same name",
        "cut.wav": "truncated",
        "cut.txt": "no usable recording",
        "empty.wav": "0 bytes",
        "alone.txt": "no usable recording",
        "photo.jpg": "neither audio",
        ".hidden": "neither audio",
        "latin.wav": "cannot be read",
        "deep.wav": "cannot be read",
    }
    if sys.platform == "linux":
        expected |= dict.fromkeys(("link.wav", "loop", "pipe.wav"), "no plain readable file")
        assert "Bytes." in texts
    for name, reason in expected.items():
        assert reason in reasons[name], name
    info = corpus.info
    assert info["files_in"] == info["files_used"] + info["files_rejected"] == len(folder.find_files(source))


def test_a_transcript_of_another_case_is_not_overlooked_and_one_file_a_turn_is_refused(tmp_path) -> None:
    put(tmp_path / "in/Talk.wav", STEREO)
    (tmp_path / "in/talk.json").write_text(json.dumps(TURNS))
    put(tmp_path / "in/good.wav", beside="Fine.")
    corpus = prepare_folder(tmp_path / "out", source=tmp_path / "in")
    assert [turn.text for turn in corpus.turns()] == ["Fine."]
    assert "another name by case or Unicode form" in ledger(corpus)["Talk.wav"]
    put(tmp_path / "turns/data/0/0_1_d0.wav", beside="Hi.")
    with pytest.raises(ValueError, match=r"layout dailytalk \(1 turns.*use --corpus recordings"):
        prepare_folder(tmp_path / "other", source=tmp_path / "turns")


def test_speech_is_detected_on_two_channels_without_times(excerpt, tmp_path) -> None:
    pytest.importorskip("silero_vad")
    clips = [t for t in excerpt.turns("train") if t.conversation == "SPARKY3" and 1.5 < t.duration < 4][:6]
    stereo, position = np.zeros((11_025 * 30, 2), np.float32), 0
    for number, turn in enumerate(clips):
        samples = read_audio(excerpt.root / turn.audio, sample_rate=11_025)[0].numpy()
        position += 11_025
        stereo[position : position + len(samples), number % 2] = samples
        position += len(samples)
    put(tmp_path / "in/named.wav", stereo, 11_025, beside={"speakers": ["JOE", "SPARKY"]})
    put(tmp_path / "in/nameless.wav", stereo, 11_025)
    corpus = prepare_folder(tmp_path / "out", source=tmp_path / "in")
    assert corpus.speakers() == ["JOE", "SPARKY", "nameless-0", "nameless-1"]
    named = [t for t in corpus.turns() if t.conversation == "named" and not t.backchannel]
    assert [t.speaker for t in named] == ["JOE", "SPARKY"] * 3
    assert all(turn.text == "" for turn in corpus.turns())


def test_texts_without_times_are_used_only_if_they_are_as_many_as_the_intervals_of_speech(
    tmp_path, monkeypatch
) -> None:
    found = [
        Segment(speaker="A", start=0.1, end=0.9, channel=0),
        Segment(speaker="B", start=1.0, end=1.4, channel=1),
        Segment(speaker="A", start=1.5, end=1.9, channel=0),
    ]
    monkeypatch.setattr(folder_transcripts, "detect_segments", lambda path, info, names: found)
    said = [("A", 0, "One."), ("B", 1, "Two."), ("A", 0, "Three.")]
    turns = [{"speaker": s, "channel": c, "text": t} for s, c, t in said]
    put(tmp_path / "in/fits.wav", STEREO, beside={"turns": turns})
    put(tmp_path / "in/more.wav", STEREO, beside={"turns": [*turns, turns[0]]})
    corpus = prepare_folder(tmp_path / "out", source=tmp_path / "in")
    assert [(t.speaker, t.text, t.start) for t in corpus.turns()] == [
        ("A", "One.", 0.1),
        ("B", "Two.", 1.0),
        ("A", "Three.", 1.5),
    ]
    assert "2 intervals of speech and 3 texts" in ledger(corpus)["more.wav"]


def test_it_is_reproducible_and_refuses_a_folder_of_other_files(tmp_path) -> None:
    put(tmp_path / "in/talk.wav", STEREO, beside=TURNS)
    first = prepare_folder(tmp_path / "a", source=tmp_path / "in")
    second = prepare_folder(tmp_path / "b", source=tmp_path / "in")
    for path in sorted(p for p in first.root.rglob("*") if p.is_file()):
        assert path.read_bytes() == (second.root / path.relative_to(first.root)).read_bytes()
    assert prepare_folder(tmp_path / "a", source=tmp_path / "in").turns() == first.turns()
    put(tmp_path / "in/new.wav", beside="More.")
    with pytest.raises(ValueError, match="another corpus"):
        prepare_folder(tmp_path / "a", source=tmp_path / "in")


def test_the_source_is_only_read(tmp_path) -> None:
    put(tmp_path / "in/one.wav", beside="Hi.")
    with pytest.raises(ValueError, match="outside --source"):
        prepare_folder(tmp_path / "in/out", source=tmp_path / "in")
    with pytest.raises(ValueError, match="expected an existing folder"):
        prepare_folder(tmp_path / "out", source=tmp_path / "nothing")
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match="has no turn"):
        prepare_folder(tmp_path / "out", source=tmp_path / "bare")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bare", "in"]
