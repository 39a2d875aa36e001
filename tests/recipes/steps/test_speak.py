"""A run speaks with the tokenizer that its codes were made by, wherever that lies."""

import json
import shutil

import pytest
import torch

from csm.recipes.steps.speak import trained_cast, trained_talker
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
        trained_cast(run, CPU)
    (run / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="is not finished"):
        trained_cast(run, CPU)
    (run / "run.json").unlink()
    with pytest.raises(ValueError, match="no run in .*launch/train.py"):
        trained_cast(run, CPU)


def test_sampling_of_the_recipe_is_the_default(steps):
    stored = json.loads((steps.model / "run.json").read_text())["config"]["run"]["sampling"]
    cast = trained_cast(steps.model, CPU)
    assert cast.sampling.max_seconds == stored["max_seconds"] == 0.8
