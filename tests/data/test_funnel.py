"""The funnel's totals add up, whatever the corpus: nothing is lost between two rows."""

import json
import random

import numpy as np
import pytest
import soundfile
import torch

from csm.data.code_shards import EncodedTurn, read_code_shards, write_code_shards
from csm.data.corpora.corpus_writer import CorpusWriter
from csm.data.corpora.recordings import prepare_recordings
from csm.data.dataset import ConversationDataset, DatasetConfig
from csm.data.funnel import Training, funnel_lines, read_rejects, stages
from csm.data.manifest import SPLITS, Turn
from csm.data.turn_table_file import table_of
from csm.text import ByteCodec

NUMBERS = {"A": 0, "B": 1}
TRAINING = Training(codec=ByteCodec(), max_rows=60, exclude_speakers=("B",))


def made(folder, seed: int):
    """A corpus of random turns with rejects, and codes of most of them."""
    draw = random.Random(seed)
    writer = CorpusWriter(folder=folder / "corpus", identity={"name": "made"})
    writer.start()
    encoded = []
    for number in range(draw.randrange(5, 60)):
        conversation = f"c{number // 4}"
        turn = Turn(
            id=f"t{number}",
            conversation=conversation,
            index=0,
            speaker=draw.choice("AB"),
            text=draw.choice(("", "hi", "a longer text", "word " * 12)),
            audio="audio/a.flac",
            end=draw.uniform(0.2, 6.0),
        )
        split = ("train", "train", "validation", "test")[number // 4 % 4]
        writer.add(turn, split=split)
        if draw.random() < 0.9:
            frames = draw.choice((0, 5, 20, 70))
            codes = torch.zeros(3, frames, dtype=torch.int16)
            encoded.append(EncodedTurn(turn.id, codes, torch.zeros(frames, 3), torch.zeros(1)))
    for number in range(draw.randrange(4)):
        reason, unit = draw.choice(("is silent", "is empty")), draw.choice(("turn", "file"))
        writer.reject(f"bad {number}", reason, unit=unit, seconds=draw.choice((None, draw.uniform(0, 90))))
    writer.use_file()
    corpus = writer.finish()
    write_code_shards(folder / "codes", encoded, {})
    return corpus, read_code_shards(folder / "codes")


@pytest.mark.parametrize("seed", range(12))
def test_the_totals_add_up_from_the_corpus_to_trained_frames(tmp_path, seed):
    corpus, encoded = made(tmp_path, seed)
    info = corpus.info
    assert info["turns_in"] == info["turns_used"] + info["turns_rejected"]
    rejects = read_rejects(corpus.root / "rejects.jsonl")
    for unit, minutes in (("turn", "minutes_rejected"), ("file", "minutes_of_rejected_files")):
        lengths = [entry["seconds"] for entry in rejects if entry["unit"] == unit]
        assert info[minutes] == pytest.approx(sum(s for s in lengths if s is not None) / 60, abs=0.001)
        assert info["rejects_without_length"][unit] == lengths.count(None)
    assert info["minutes_in"] == pytest.approx(info["minutes_used"] + info["minutes_rejected"], abs=0.002)
    turns, minutes = 0, 0.0
    for split in SPLITS:
        for materials in ((), (encoded,), (encoded, TRAINING, NUMBERS)):
            first, *others, last = stages(corpus.turns(split), *materials)
            assert all(row.left_out for row in others) and not last.left_out
            assert first.turns == sum(row.turns for row in others) + last.turns
            assert first.minutes == pytest.approx(sum(row.minutes for row in others) + last.minutes)
        turns, minutes = turns + first.turns, minutes + first.minutes
        assert first.minutes == pytest.approx(info["splits"][split]["minutes"], abs=0.006)
    assert turns == info["turns_used"] and minutes == pytest.approx(info["minutes_used"], abs=0.001)


@pytest.mark.parametrize("seed", range(6))
def test_minutes_add_up_from_random_files_to_the_corpus(tmp_path, seed):
    draw = random.Random(seed)
    stated = {"used": 0.0, "rejected": 0.0, "files": 0.0}
    (tmp_path / "in").mkdir()
    for number in range(draw.randrange(2, 6)):
        length = draw.randrange(2, 9) / 2
        kind = "good" if number == 0 else draw.choice(("good", "silent", "no transcript"))
        noise = np.random.default_rng(number).normal(0, 0.1 * (kind != "silent"), round(8_000 * length))
        soundfile.write(tmp_path / f"in/{number}.wav", noise, 8_000)
        if kind != "good":
            stated["files"] += length
        if kind == "no transcript":
            continue
        turns = []
        for _ in range(draw.randrange(1, 6)):
            start = draw.uniform(0.1, length - 0.5)
            end = start + draw.choice((0.4, length))  # the longer one ends after the recording
            turns.append(
                {"speaker": "A", "text": draw.choice(("so", "so", None)), "start": start, "end": end}
            )
            usable = kind == "good" and turns[-1]["text"] is not None and end <= length
            stated["used" if usable else "rejected"] += end - start
        if kind == "good":
            turns.append({"speaker": "A", "text": "yes", "start": 0.0, "end": 0.5})
            stated["used"] += 0.5
        (tmp_path / f"in/{number}.json").write_text(json.dumps(turns))
    corpus = prepare_recordings(tmp_path / "out", source=tmp_path / "in")
    info = corpus.info
    assert info["minutes_used"] == pytest.approx(stated["used"] / 60, abs=0.002)
    assert info["minutes_rejected"] == pytest.approx(stated["rejected"] / 60, abs=0.002)
    assert info["minutes_of_rejected_files"] == pytest.approx(stated["files"] / 60, abs=0.002)
    assert sum(turn.duration for turn in corpus.turns()) == pytest.approx(stated["used"], abs=0.01)
    text = "\n".join(funnel_lines(corpus))
    assert f"used: {info['turns_used']} ({info['minutes_used']:.1f} minutes), left out: " in text
    if info["turns_rejected"]:
        assert f"left out: {info['turns_rejected']} ({info['minutes_rejected']:.1f} minutes)" in text


@pytest.mark.parametrize("seed", range(4))
def test_the_last_row_is_what_the_dataset_trains_on(tmp_path, seed):
    corpus, encoded = made(tmp_path, seed)
    *_, trained = stages(corpus.turns("train"), encoded, TRAINING, NUMBERS)
    config = DatasetConfig(rows_per_micro_batch=60, max_rows=60, exclude_speakers=("B",))
    table = table_of(corpus, encoded, "train", ByteCodec(), numbers=NUMBERS)
    sizes = {"codec": ByteCodec(), "num_codebooks": 3, "end_code": 9, "micro_batches": 1, "seed": 0}
    data = ConversationDataset(table, config=config, **sizes)
    plans = [data.plan(n + 1).micro_batches[0] for n in range(len(data.sampler.epoch(0)))]
    drawn = [turn for plan in plans for chunk in plan.chunks for turn in chunk.turns if turn.trained]
    assert len(drawn) == trained.turns
    assert sum(turn.turn.codes.shape[1] for turn in drawn) == trained.frames


def test_the_lines_name_what_is_left_out(tmp_path):
    corpus, encoded = made(tmp_path, 3)
    text = "\n".join(funnel_lines(corpus, encoded, TRAINING, NUMBERS))
    assert "files in the source: " in text and "train:\n" in text and "frames trained on" in text
    silent = [turn.id for turn in corpus.turns("train") if not turn.text]
    assert f"- {len(silent)} turns" in text and silent[0] in text


def test_rejects_of_any_number_of_reasons_add_up_in_the_lines(tmp_path):
    writer = CorpusWriter(folder=tmp_path / "corpus", identity={"name": "made"})
    writer.start()
    writer.add(Turn(id="t", conversation="c", index=0, speaker="A", text="hi", audio="audio/a.flac", end=1.0))
    for number in range(7):
        for _ in range(7 - number):
            writer.reject("bad", f"reason {number}", seconds=6.0)
    lines = [line for line in funnel_lines(writer.finish()) if line.startswith("  - ") and ": " in line]
    shown = [line for line in lines if "reason" in line]
    assert [int(line.split()[1]) for line in shown] == [7, 6, 5, 10]
    assert shown[-1] == "  - 10 (1.0 minutes): other reasons: 4, in rejects.jsonl"
