"""What is written in another layout and read again is the same on the fields that both have."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile

from csm.audio.files import read_audio
from csm.cli import main
from csm.data.corpora.corpus_writer import CorpusWriter
from csm.data.corpora.recordings import prepare_recordings
from csm.data.corpora.segmentation import to_turns
from csm.data.exports import parquet as parquet_export
from csm.data.manifest import Corpus, Recording, Segment, Turn
from csm.data.word_times import Word, read_words
from csm.system.digests import record_digests

WORDS = "well you know I never said so caf\u00e9 \u201cquite\u201d, none. No? it's 5 o'clock".split()


def spoken(draw: random.Random) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, 4)))


def noise(draw: random.Random, path: Path, seconds: float, channels: int, rate: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(draw.randrange(9**9)).integers(
        -9000, 9000, (round(seconds * rate), channels), dtype=np.int16
    )
    # No part has an offset, which importing would subtract.
    samples[1::2] = -samples[: len(samples) // 2 * 2 : 2]
    soundfile.write(path, samples, rate, subtype="PCM_16")


def made_up(folder: Path, seed: int, *, channels: int = 2, words: bool = True, files: bool = False) -> Corpus:
    """A corpus of random turns: on the channels of one file a conversation, or each in its own file."""
    draw = random.Random(seed)
    writer = CorpusWriter(folder=folder, identity={"name": f"made up {seed}"})
    writer.start()
    for name in ("a", "b"):
        rate = draw.choice([8_000, 16_000, 44_100])
        if files:
            for number in range(draw.randint(3, 5)):
                audio = f"audio/{name}-{number}.flac"
                noise(draw, writer.partial / audio, draw.uniform(0.2, 0.6), 1, rate)
                end = soundfile.info(writer.partial / audio).duration
                emotion = draw.choice([None, "glad"])
                writer.add(
                    Turn(
                        id=f"{name}-{number}",
                        conversation=name,
                        index=0,
                        speaker=draw.choice(["Ann", "Ben"]),
                        text=spoken(draw),
                        audio=audio,
                        end=round(end, 6),
                        emotion=emotion,
                    )
                )
            continue
        noise(draw, writer.partial / f"audio/{name}.flac", 12.0, channels, rate)
        recording = Recording(
            id=name, audio=f"audio/{name}.flac", sample_rate=rate, channels=channels, duration=12.0
        )
        segments, times = [], {}
        for channel, speaker in enumerate(["Ann", "Ben"]):
            position = draw.uniform(0, 1)
            while position < 11:
                text, start = spoken(draw), round(position, 3)
                inside = []
                for word in text.split():
                    inside.append(Word(word, round(position, 3), round(position + 0.1, 3)))
                    position += 0.15
                end = inside[-1].end
                track = channel if channels == 2 else 0
                segments.append(Segment(speaker=speaker, start=start, end=end, text=text, channel=track))
                times[speaker, start] = tuple(inside)
                position += draw.uniform(2.1, 4)  # longer than a pause inside a turn
        for turn in to_turns(recording, segments, join=False):
            writer.add(turn, words=times[turn.speaker, turn.start] if words else ())
    return writer.finish()


def exported_and_read(tmp_path: Path, corpus: Corpus, layout: str) -> Corpus:
    arguments = ["export", "corpus", "--corpus", str(corpus.root), "--format", layout]
    assert main([*arguments, "--output", str(tmp_path / "exported")]) == 0
    return prepare_recordings(tmp_path / "again", source=tmp_path / "exported")


def fields(corpus: Corpus, *names: str) -> list[tuple]:
    return sorted(tuple(getattr(turn, name) for name in names) for turn in corpus.turns())


def sounds(corpus: Corpus) -> list[bytes]:
    """The samples of every turn."""
    return [
        read_audio(
            corpus.root / t.audio,
            sample_rate=soundfile.info(corpus.root / t.audio).samplerate,
            start=t.start,
            end=t.end,
            channel=t.channel,
        )
        .numpy()
        .tobytes()
        for t in sorted(corpus.turns(), key=lambda t: (t.conversation, t.speaker, t.start, t.id))
    ]


SHARED = ("id", "conversation", "speaker", "text", "start", "end", "channel", "overlap", "backchannel")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("channels", [1, 2])
def test_lhotse_keeps_turns_words_and_audio(tmp_path, seed: int, channels: int) -> None:
    corpus = made_up(tmp_path / "corpus", seed, channels=channels)
    again = exported_and_read(tmp_path, corpus, "lhotse")
    assert fields(again, *SHARED) == fields(corpus, *SHARED)
    assert read_words(again.root) == read_words(corpus.root) and sounds(again) == sounds(corpus)
    assert {c.id: c.split for c in again.conversations} == {c.id: c.split for c in corpus.conversations}
    assert again.info["turns_rejected"] == 0


def test_lhotse_itself_validates_the_export(tmp_path) -> None:
    lhotse = pytest.importorskip("lhotse")
    for files in (False, True):
        corpus = made_up(tmp_path / f"corpus{files}", 7, files=files)
        output = tmp_path / f"exported{files}"
        arguments = ["export", "corpus", "--corpus", str(corpus.root), "--format", "lhotse"]
        assert main([*arguments, "--output", str(output)]) == 0
        cuts = lhotse.CutSet.from_jsonl(output / "cuts.jsonl")
        recordings = lhotse.RecordingSet.from_jsonl(output / "recordings.jsonl")
        supervisions = lhotse.SupervisionSet.from_jsonl(output / "supervisions.jsonl")
        lhotse.validate(cuts, read_data=True)
        lhotse.validate_recordings_and_supervisions(recordings, supervisions, read_data=True)
        assert len(list(supervisions)) == len(corpus.turns())
        by_id = {turn.id: turn for turn in corpus.turns()}
        for cut in cuts:
            for supervision in cut.supervisions:
                assert supervision.text == by_id[supervision.id].text


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("words", [True, False])
def test_moshi_finetune_keeps_turns_of_two_channels_and_words(tmp_path, seed: int, words: bool) -> None:
    corpus = made_up(tmp_path / "corpus", seed, words=words)
    again = exported_and_read(tmp_path, corpus, "moshi")
    assert fields(again, *SHARED) == fields(corpus, *SHARED) and sounds(again) == sounds(corpus)
    assert read_words(again.root) == read_words(corpus.root)
    assert {c.id: c.split for c in again.conversations} == {c.id: c.split for c in corpus.conversations}


@pytest.mark.parametrize("seed", range(4))
def test_moshi_finetune_keeps_the_words_of_the_turns_that_have_them_and_counts_the_others(
    tmp_path, capsys, seed: int
) -> None:
    corpus = made_up(tmp_path / "corpus", seed)
    path, draw = corpus.root / "words.jsonl", random.Random(seed)
    every = path.read_text(encoding="utf-8").splitlines()
    some = draw.sample(every, draw.randint(1, len(every) - 1))
    # Aligners spell words otherwise than the transcript.
    respelled = json.loads(some[0])
    respelled["words"][0][0] = respelled["words"][0][0].upper()
    path.write_text("".join(f"{line}\n" for line in [json.dumps(respelled), *some[1:]]), encoding="utf-8")
    record_digests(corpus.root, [path])
    again = exported_and_read(tmp_path, corpus, "moshi")
    assert fields(again, *SHARED, "emotion") == fields(corpus, *SHARED, "emotion")
    assert read_words(again.root) == read_words(corpus.root)
    assert f"{len(every) - len(some)} of {len(every)} turns have no times of words" in capsys.readouterr().err


def test_moshi_finetune_reads_no_turns_that_do_not_fit_its_alignments(tmp_path) -> None:
    corpus = made_up(tmp_path / "corpus", 1)
    arguments = ["export", "corpus", "--corpus", str(corpus.root), "--format", "moshi"]
    assert main([*arguments, "--output", str(tmp_path / "exported")]) == 0
    path = tmp_path / "exported/data_stereo/a.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["alignments"].pop()
    path.write_text(json.dumps(content), encoding="utf-8")
    again = prepare_recordings(tmp_path / "again", source=tmp_path / "exported")
    assert [c.id for c in again.conversations] == ["b"]
    assert "csm_turns must hold each alignment once" in (again.root / "rejects.jsonl").read_text()


def test_moshi_finetune_puts_speakers_of_one_channel_on_two_and_leaves_a_third_out(tmp_path, capsys) -> None:
    corpus = made_up(tmp_path / "corpus", 1, files=True)
    again = exported_and_read(tmp_path, corpus, "moshi")
    assert fields(again, "speaker", "text") == fields(corpus, "speaker", "text")
    for turn in again.turns():
        other = 1 - turn.channel
        silent = read_audio(
            again.root / turn.audio, sample_rate=8_000, start=turn.start, end=turn.end, channel=other
        )
        assert float(silent.abs().max()) < 1e-3
    path = corpus.root / "manifest.jsonl"
    conversations = [json.loads(line) for line in path.read_text().splitlines()]
    many = next(c for c in conversations if len(c["turns"]) >= 3)
    for number, turn in enumerate(many["turns"]):
        turn["speaker"] = f"person {number}"
    path.write_text("".join(json.dumps(c) + "\n" for c in conversations))
    record_digests(corpus.root, [path])
    arguments = ["export", "corpus", "--corpus", str(corpus.root), "--format", "moshi"]
    assert main([*arguments, "--output", str(tmp_path / "third")]) == 0
    assert f"left out: {many['id']} has" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("files", [True, False])
def test_parquet_keeps_a_row_a_turn_with_its_samples(tmp_path, seed: int, files: bool) -> None:
    pytest.importorskip("pyarrow")
    corpus = made_up(tmp_path / "corpus", seed, files=files)
    again = exported_and_read(tmp_path, corpus, "parquet")
    kept = ("id", "conversation", "index", "speaker", "text", "synthetic", "overlap", "backchannel")
    assert fields(again, *kept) == fields(corpus, *kept) and sounds(again) == sounds(corpus)
    assert [t.emotion for t in again.turns()] == [t.emotion for t in corpus.turns()]
    assert {c.id: c.split for c in again.conversations} == {c.id: c.split for c in corpus.conversations}
    starts = {turn.id: turn.start for turn in corpus.turns()}
    words, expected = read_words(again.root), read_words(corpus.root)
    assert set(words) == set(expected)
    for turn, spoken_words in words.items():  # a row's audio begins where its turn does
        assert [word.text for word in spoken_words] == [word.text for word in expected[turn]]
        for word, before in zip(spoken_words, expected[turn], strict=True):
            assert [word.start, word.end] == pytest.approx([t - starts[turn] for t in before[1:]], abs=2e-6)


@pytest.mark.parametrize("rows", [1, 3, 4, 5])
def test_parquet_in_small_files_comes_back_whole(tmp_path, monkeypatch, rows: int) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(parquet_export, "ROWS_PER_FILE", rows)
    corpus = made_up(tmp_path / "corpus", 0, files=True)
    again = exported_and_read(tmp_path, corpus, "parquet")
    kept = ("id", "conversation", "index", "speaker", "text")
    assert fields(again, *kept) == fields(corpus, *kept)
    assert (again.root / "rejects.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("sizes", "starts"),
    [([], [0]), ([2, 2, 1], [0, 4, 5]), ([3, 2, 2], [0, 3, 7]), ([1, 9, 1], [0, 1, 5, 9, 11]), ([4], [0, 4])],
)
def test_parquet_files_end_with_a_conversation_that_fits(monkeypatch, sizes, starts) -> None:
    monkeypatch.setattr(parquet_export, "ROWS_PER_FILE", 4)
    assert parquet_export._starts(sizes) == starts


def test_a_turn_without_a_text_comes_back_from_no_layout_and_is_named(tmp_path) -> None:
    pytest.importorskip("pyarrow")
    corpus = made_up(tmp_path / "corpus", 2, words=False)
    path = corpus.root / "manifest.jsonl"
    conversations = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    conversations[0]["turns"][1]["text"] = ""
    path.write_text("".join(json.dumps(c) + "\n" for c in conversations), encoding="utf-8")
    record_digests(corpus.root, [path])
    for layout, named in (("lhotse", True), ("parquet", True), ("moshi", False)):
        (tmp_path / layout).mkdir()
        again = exported_and_read(tmp_path / layout, corpus, layout)
        assert len(again.turns()) == len(corpus.turns()) - 1
        assert ("text is empty" in (again.root / "rejects.jsonl").read_text()) == named


def test_an_existing_folder_is_not_written_into(tmp_path, capsys) -> None:
    corpus = made_up(tmp_path / "corpus", 1)
    (tmp_path / "mine").mkdir()
    arguments = ["export", "corpus", "--corpus", str(corpus.root), "--format", "moshi"]
    assert main([*arguments, "--output", str(tmp_path / "mine")]) == 2
    assert "expected a new folder" in capsys.readouterr().err and not list((tmp_path / "mine").iterdir())
