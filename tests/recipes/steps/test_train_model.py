"""A trained model is one set of weights, and its run remembers what it was made from."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from csm.data.code_shards import read_code_shards
from csm.model import CSMModel
from csm.recipes.steps.train_model import train_model
from csm.system.digests import record_digests
from csm.training import engine as engine_file

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.setattr(engine_file, "deepspeed_installed", lambda: False)


def test_the_folder_holds_the_model_once_and_names_it_as_complete(steps):
    assert [path.name for path in steps.model.glob("*.safetensors")] == ["model.safetensors"]
    complete = json.loads((steps.model / "complete.json").read_text())
    assert complete["step"] == 2 and set(complete["files"]) == {
        *("config.json", "model.safetensors", "sha256.json")
    }
    CSMModel.from_pretrained(steps.model)


def test_the_run_remembers_its_tokenizer_and_refuses_codes_of_another_one(steps, tmp_path):
    stored = json.loads((steps.model / "run.json").read_text())
    index = json.loads((steps.codes / "index.json").read_text())
    assert stored["inputs"]["tokenizer"] == str(steps.tokenizer)
    assert stored["inputs"]["codes"] == str(steps.codes)
    assert stored["config"]["tokenizer_sha256"] == index["tokenizer_sha256"]
    codes = tmp_path / "codes"
    shutil.copytree(steps.codes, codes)
    (codes / "index.json").write_text(json.dumps(index | {"tokenizer_sha256": "other"}))
    record_digests(codes, ["index.json"])
    with pytest.raises(ValueError, match="config.tokenizer_sha256: .* there, other here"):
        train_model(steps.run, codes, steps.model, CPU)


def test_each_validation_leaves_lines_of_the_main_voice(steps):
    samples = steps.model / "samples"
    lines = [path.name for path in sorted((samples / "original").iterdir())]
    assert len(lines) == 2 and all(name.startswith("test") for name in lines)
    for step in (0, 2):
        assert [path.name for path in sorted((samples / f"step_{step:08d}").iterdir())] == lines


def test_samples_change_no_weight(steps, tmp_path):
    quiet = replace(steps.run, training=replace(steps.run.training, samples=False))
    folders = tmp_path / "with", tmp_path / "without"
    # Both here: the first training of a process may differ from later ones by a last bit (docs/LOG.md).
    for run, folder in zip((steps.run, quiet), folders, strict=True):
        train_model(run, steps.codes, folder, CPU)
    assert [(folder / "samples").exists() for folder in folders] == [True, False]
    weights = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert weights[0] == weights[1]


def test_one_flipped_bit_of_codes_alignment_or_vectors_is_refused_before_training(steps, tmp_path):
    shard = read_code_shards(steps.codes).shards[0].name
    for name in (shard, "alignment.safetensors", "code_vectors.safetensors"):
        codes = tmp_path / name
        shutil.copytree(steps.codes, codes, ignore=shutil.ignore_patterns("tables"))
        data = bytearray((codes / name).read_bytes())
        data[-5] ^= 4
        (codes / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name} has another SHA-256 than sha256.json says"):
            train_model(steps.run, codes, tmp_path / "out", CPU)


def test_a_run_on_a_changed_manifest_is_refused_and_on_a_moved_one_it_is_not(steps, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(steps.run.corpus, moved)
    run = replace(steps.run, corpus=str(moved))
    assert train_model(run, steps.codes, steps.model, CPU) == steps.model
    text = (moved / "manifest.jsonl").read_text()
    (moved / "manifest.jsonl").write_text(text.replace('"text": "', '"text": "a '))
    with pytest.raises(ValueError, match="trained on other data|config.run.corpus: "):
        train_model(run, steps.codes, steps.model, CPU)
    shutil.copytree(steps.model, tmp_path / "model")
    stored = json.loads((tmp_path / "model/run.json").read_text())
    stored["config"]["run"]["corpus"] = str(moved)
    (tmp_path / "model/run.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="was trained on other data: corpus/manifest.jsonl differ"):
        train_model(run, steps.codes, tmp_path / "model", CPU)
