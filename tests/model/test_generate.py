"""One turn alone: batches are padded, and every item is what it is alone."""

import torch

from csm.generation.sampling import SamplingConfig
from csm.model.generate import generate_text, generate_voice

SHORT = SamplingConfig(max_seconds=1.2)


def test_voices_of_a_batch_are_padded_and_texts_come_in_order(tiny_model, random_turn) -> None:
    model = tiny_model()
    codes = generate_voice(model, ["hi", "a longer text"], SHORT)
    for text, padded in zip(["hi", "a longer text"], codes, strict=True):
        alone = generate_voice(model, [text], SHORT)[0]
        assert torch.equal(padded[:, : alone.shape[1]], alone) and (padded[:, alone.shape[1] :] == 24).all()
    turns = [random_turn("a"), random_turn("b")]
    both = generate_text(model, torch.stack([t.codes for t in turns]))
    assert both == [generate_text(model, t.codes[None])[0] for t in turns]
