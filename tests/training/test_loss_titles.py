"""Every loss that training writes has a title and a unit."""

from dataclasses import fields

from csm.losses import LossConfig
from csm.tokenizer.training.losses import TokenizerLossConfig
from csm.training.loss_titles import MODEL, TOKENIZER, loss_title

# Fields of the loss configurations that are no weight of a loss.
NO_LOSS = {"label_smoothing"}


def test_every_part_of_the_conversational_loss_has_a_title():
    parts = {field.name for field in fields(LossConfig)} - NO_LOSS
    assert parts == set(MODEL)


def test_every_titled_part_of_the_tokenizer_is_a_weight():
    assert set(TOKENIZER) <= {field.name for field in fields(TokenizerLossConfig)}


def test_the_module_decides_between_losses_of_one_name():
    assert loss_title("model/text").unit == "cross-entropy, nats per token"
    assert loss_title("tokenizer/text").title == "Text (CTC)"
    assert loss_title("model/loss").title == "Total loss"
    assert loss_title("perplexity") == ("perplexity", "loss")
