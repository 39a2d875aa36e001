"""A trained tokenizer is one set of weights, and the same run is recognised."""

from dataclasses import replace

import pytest
import torch

from csm.recipes.steps.train_tokenizer import train_tokenizer
from csm.tokenizer.conversational_rvq import ConversationalRVQ

CPU = torch.device("cpu")


def test_the_folder_holds_the_tokenizer_once(steps):
    weights = [path.name for path in steps.tokenizer.glob("*.safetensors")]
    assert weights == ["model.safetensors"]
    assert ConversationalRVQ.from_pretrained(steps.tokenizer).config == steps.run.tokenizer


def test_the_same_run_is_complete_and_another_one_is_refused(steps, caplog):
    with caplog.at_level("INFO", "csm"):
        train_tokenizer(steps.run, steps.tokenizer, CPU)
    assert "this run is complete; nothing to do" in caplog.text
    # What makes only a model does not make another tokenizer.
    train_tokenizer(replace(steps.run, sampling=replace(steps.run.sampling, seed=5)), steps.tokenizer, CPU)
    other = replace(steps.run, utterances=replace(steps.run.utterances, items=2))
    with pytest.raises(ValueError, match="utterances.items: 4 there, 2 here"):
        train_tokenizer(other, steps.tokenizer, CPU)


def test_a_frozen_tokenizer_has_no_teacher(steps, tmp_path):
    taught = replace(steps.run, teacher="models/wavlm", tokenizer_frozen=True, tokenizer_start="packaged")
    with pytest.raises(ValueError, match="a teacher can teach nothing"):
        train_tokenizer(taught, tmp_path / "run", CPU)
