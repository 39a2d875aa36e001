"""A run speaks with the tokenizer that its codes were made by, wherever that lies."""

import json
import shutil

import pytest
import torch

from csm.cli import main
from csm.generation.talker import Talker
from csm.recipes.steps.speak import trained_talker
from csm.tokenizer.conversational_rvq import ConversationalRVQ

CPU = torch.device("cpu")


def test_a_run_without_a_tokenizer_of_its_own_speaks_with_the_one_it_names(steps):
    talker = trained_talker(steps.model, CPU)
    assert list(talker.voices) == ["A", "B"]
    own = ConversationalRVQ.from_pretrained(steps.tokenizer).state_dict()
    assert all(torch.equal(value, own[name]) for name, value in talker.tokenizer.state_dict().items())


def test_another_tokenizer_and_a_run_that_is_not_finished_are_refused(steps, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(steps.model, run)
    ConversationalRVQ(steps.run.tokenizer).save_pretrained(run / "tokenizer")
    with pytest.raises(ValueError, match="was not made by the tokenizer in"):
        trained_talker(run, CPU)
    (run / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="is not finished"):
        trained_talker(run, CPU)
    (run / "run.json").unlink()
    with pytest.raises(ValueError, match="no run in .*launch/train.py"):
        trained_talker(run, CPU)


def test_sampling_of_the_recipe_is_the_default(steps):
    stored = json.loads((steps.model / "run.json").read_text())["config"]["run"]["sampling"]
    talker = trained_talker(steps.model, CPU)
    assert talker.sampling.max_seconds == stored["max_seconds"] == 0.8


def test_an_exported_voice_carries_its_speakers_consent_and_who_gave_none_is_named(steps, tmp_path, capsys):
    corpus = tmp_path / "corpus"
    shutil.copytree(steps.run.corpus, corpus)
    (corpus / "corpus.json").write_text(json.dumps({"name": "tones", "consent": {"A": "signed 2026-11-01"}}))
    words = ["export", "voice", "--run", str(steps.model), "--corpus", str(corpus)]
    assert main([*words, "--output", str(tmp_path / "voice")]) == 0
    assert "no consent of B is on record" in capsys.readouterr().err
    rows = json.loads((tmp_path / "voice" / "voices.json").read_text())
    assert rows["A"]["consent"] == "signed 2026-11-01" and "consent" not in rows["B"]
    card = json.loads((tmp_path / "voice" / "card.json").read_text())
    assert card == {
        "corpus": "tones",
        "licence": "",
        "consent": {"A": "signed 2026-11-01"},
        "watermark": "none",
    }


def test_a_named_voice_of_an_export_is_the_main_one(steps, tmp_path, capsys):
    words = ["export", "voice", "--run", str(steps.model), "--output"]
    for name in ("A", "B"):
        assert main([*words, str(tmp_path / name), "--main", name]) == 0
        assert next(iter(Talker.from_pretrained(tmp_path / name).voices)) == name
    assert main([*words, str(tmp_path / "C"), "--main", "C"]) != 0
    assert "--main is 'C': expected one of A, B" in capsys.readouterr().err
    assert not (tmp_path / "C").exists()
