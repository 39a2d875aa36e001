"""A saved tokenizer is read back, in full and in packaged form, and a wrong folder is refused."""

import dataclasses
import json

import pytest
import torch

from csm.tokenizer.conversational_rvq import ConversationalRVQ


@torch.no_grad()
def test_saved_and_read_again_it_is_the_same_tokenizer(tokenizer, speech, tmp_path):
    tokenizer.save_pretrained(tmp_path / "made" / "here")
    again = ConversationalRVQ.from_pretrained(tmp_path / "made" / "here")
    assert again.config == tokenizer.config and not again.training
    for name, value in tokenizer.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    audio = speech(1, 3200)
    assert torch.equal(tokenizer.encode(audio)[0], again.encode(audio)[0])


@torch.no_grad()
def test_the_packaged_form_is_a_quarter_as_large_and_gives_nearly_all_the_codes(tokenizer, speech, tmp_path):
    for half in (False, True):
        tokenizer.save_pretrained(tmp_path / str(half), half=half)
    sizes = [(tmp_path / str(half) / "model.safetensors").stat().st_size for half in (False, True)]
    assert sizes[1] < 0.6 * sizes[0]
    again = ConversationalRVQ.from_pretrained(tmp_path / "True")
    assert all(value.dtype == torch.float32 for value in again.state_dict().values())
    audio = speech(4, 6400)
    assert float((again.encode(audio)[0][:, 0] == tokenizer.encode(audio)[0][:, 0]).float().mean()) > 0.9


def test_a_folder_that_is_no_tokenizer_is_refused(tokenizer, config, tmp_path):
    with pytest.raises(ValueError, match="no tokenizer in"):
        ConversationalRVQ.from_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**dataclasses.asdict(config), "codebook_size": 64}))
    with pytest.raises(ValueError, match="does not fit config.json"):
        ConversationalRVQ.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"sample_rat": 8000}))
    with pytest.raises(ValueError, match="sample_rat"):
        ConversationalRVQ.from_pretrained(tmp_path)
