"""The lines of the samples are chosen once; no later start of a training reads the manifest."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from csm.data import manifest
from csm.data.code_shards import read_code_shards
from csm.data.manifest import read_corpus
from csm.recipes.steps.kept_samples import corpus_without_turns, spoken_lines
from csm.recipes.steps.train_model import train_model
from csm.tokenizer.opening import open_tokenizer
from csm.training import engine as engine_file

CPU = torch.device("cpu")


def test_a_second_training_on_the_same_codes_reads_no_manifest_and_has_the_same_samples(
    steps, tmp_path, monkeypatch
):
    monkeypatch.setattr(engine_file, "deepspeed_installed", lambda: False)

    def unread(path: Path) -> None:
        raise AssertionError(f"{path} is read")

    monkeypatch.setattr(manifest, "read_manifest", unread)
    train_model(steps.run, steps.codes, tmp_path, CPU)
    before, now = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.wav")}
        for folder in (steps.model / "samples", tmp_path / "samples")
    )
    assert before == now and len(now) == 6


def test_what_is_kept_is_what_was_chosen_and_another_corpus_chooses_anew(steps):
    corpus = read_corpus(steps.run.corpus)
    encoded, codec = read_code_shards(steps.codes), open_tokenizer(steps.tokenizer, 4)
    kept = spoken_lines(steps.run.corpus, steps.codes, encoded, codec, 2)
    assert kept.voice.name == "A" and [turn.id for turn in kept.lines] == [
        turn.id for turn in corpus.turns("test") if turn.id in {line.id for line in kept.lines}
    ]
    assert all(turn in corpus.turns("test") for turn in kept.lines)
    folders = list((steps.codes / "tables").glob("samples_*"))
    assert len(folders) == 1
    more = spoken_lines(steps.run.corpus, steps.codes, encoded, codec, 3)
    assert len(more.lines) == 3
    assert torch.equal(more.voice.speaker, kept.voice.speaker)


def test_a_damaged_choice_is_one_line(steps):
    encoded, codec = read_code_shards(steps.codes), open_tokenizer(steps.tokenizer, 4)
    spoken_lines(steps.run.corpus, steps.codes, encoded, codec, 1)
    (folder,) = (f for f in (steps.codes / "tables").glob("samples_*") if _lines(f) == 1)
    text = (folder / "lines.jsonl").read_text()
    (folder / "lines.jsonl").write_text(text.replace("test", "best"))
    with pytest.raises(ValueError, match="lines.jsonl has another SHA-256 .* remove "):
        spoken_lines(steps.run.corpus, steps.codes, encoded, codec, 1)
    (folder / "lines.jsonl").write_text(text)


def test_the_place_of_several_corpora_is_that_of_their_joined_one(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        turn = manifest.Turn(
            id=name, conversation=name, index=0, speaker="A", text="", audio="x.wav", start=0.0, end=1.0
        )
        manifest.write_manifest(
            tmp_path / name / "manifest.jsonl", [manifest.Conversation(id=name, split="train", turns=(turn,))]
        )
        (tmp_path / name / "corpus.json").write_text("{}")
    for folders in (f"{tmp_path}/a", f"{tmp_path}/a,{tmp_path}/b"):
        whole = read_corpus(folders)
        place = corpus_without_turns(folders)
        assert replace(whole, conversations=(), info={}) == place
        assert [whole.folder_of(turn) for turn in whole.turns()] == [
            place.folder_of(t) for t in whole.turns()
        ]


def _lines(folder: Path) -> int:
    return len((folder / "lines.jsonl").read_text().splitlines())
