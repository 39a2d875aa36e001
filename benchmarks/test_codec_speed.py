"""How many times faster than real time the packaged tokenizer encodes and decodes, one stream."""

from pathlib import Path

import pytest
import torch

import csm
from csm.tokenizer import ConversationalRVQ

SECONDS = 10


@pytest.mark.parametrize("name", ["encode", "decode", "encode one frame", "decode one frame"])
def test_codec(name, device, timed, benchmark):
    benchmark.group = f"tokenizer {device.type}"
    folder = Path(csm.__file__).parent / "weights" / "tokenizer"
    tokenizer = ConversationalRVQ.from_pretrained(folder).to(device)
    size = tokenizer.config.samples_per_frame
    samples = size if "one frame" in name else SECONDS * tokenizer.config.sample_rate // size * size
    audio = torch.randn(1, 1, samples, device=device) * 0.1
    with torch.no_grad():
        codes, _ = tokenizer.encode(audio)
        assert tokenizer.decode(codes).shape == audio.shape
        timed(lambda: tokenizer.encode(audio) if "encode" in name else tokenizer.decode(codes))
    seconds = samples / tokenizer.config.sample_rate
    benchmark.extra_info["times_real_time"] = round(seconds / benchmark.stats["median"], 1)
