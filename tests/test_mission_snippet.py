"""The mission's snippet, unchanged but for its imports and the definitions of audio, text and targets."""

import torch

from csm import ConversationalRVQ, ConversationTargets, CSMModel, conversational_loss


def test_the_mission_snippet_runs() -> None:
    torch.manual_seed(0)
    audio = torch.randn(1, 1, 24_000) * 0.1
    text = ["Hello."]
    rvq = ConversationalRVQ(n_codebooks=32, codebook_size=1024)
    model = CSMModel(d_model=768, n_layers=12, n_heads=12)
    codes, _ = rvq.encode(audio)
    targets = ConversationTargets.of(model.pair_rows(text, codes), model.config.semantic_codebooks)
    outputs = model(text_tokens=text, voice_codes=codes)
    loss = conversational_loss(outputs, targets)
    assert loss.total.isfinite()
    # At random weights a code is one of 1027, a text id one of 388.
    parts = {name: float(part.detach()) for name, part in loss.parts.items()}
    assert abs(parts["codebook0"] - 6.93) < 0.5 and abs(parts["text"] - 5.96) < 0.5
    outputs = model(text_tokens=text)  # Generates voice
    assert outputs.voice_codes.shape[:2] == (1, 32) and outputs.voice_codes.shape[2] > 0
    outputs = model(voice_codes=codes)  # Generates text
    assert isinstance(outputs.text_tokens[0], str)
