"""The mission's snippet, unchanged, as the first Python block of README has it: it runs."""

import ast
import re
from pathlib import Path

import torch

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
# README adds the imports and the definition of targets.
MISSION = """
rvq = ConversationalRVQ(n_codebooks=32, codebook_size=1024)
model = CSMModel(d_model=768, n_layers=12, n_heads=12)
codes, _ = rvq.encode(audio)
outputs = model(text_tokens=text, voice_codes=codes)
loss = conversational_loss(outputs, targets)
outputs = model(text_tokens=text)
outputs = model(voice_codes=codes)
"""


def test_the_mission_snippet_encodes_trains_and_generates_both_ways() -> None:
    torch.manual_seed(0)
    names = {"audio": torch.randn(1, 1, 24_000) * 0.1, "text": ["Hello."]}
    block = ast.parse(re.search(r"^```python\n(.*?)^```", README, re.M | re.S)[1])
    assert [ast.unparse(node) for node in ast.parse(MISSION).body] == [
        ast.unparse(node) for node in block.body[1:] if not ast.unparse(node).startswith("targets = ")
    ]
    outputs = []
    for node in block.body:
        exec(compile(ast.Module([node], []), "README.md", "exec"), names)
        if ast.unparse(node).startswith("outputs = "):
            outputs.append(names["outputs"])
    assert names["codes"].shape[:2] == (1, 32)
    loss = names["loss"]
    assert loss.total.isfinite()
    # At random weights a code is one of 1027, a text id one of 388.
    parts = {name: float(part.detach()) for name, part in loss.parts.items()}
    assert abs(parts["codebook0"] - 6.93) < 0.5 and abs(parts["text"] - 5.96) < 0.5
    _, voice, text = outputs
    assert voice.voice_codes.shape[:2] == (1, 32) and voice.voice_codes.shape[2] > 0
    assert isinstance(text.text_tokens[0], str)
