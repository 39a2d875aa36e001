"""Generation frame by frame, batch 1, greedy, against transformers' CSM with the same weights."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from test_training_step import CODEBOOKS, CODES, PEER, theirs  # noqa: E402, F401

from csm.generation.depth_sampler import DepthSampler  # noqa: E402
from csm.generation.sampling import SamplingConfig  # noqa: E402
from csm.generation.session import Session  # noqa: E402
from csm.model import CSMModel  # noqa: E402
from csm.sequences.turns import FRAMES_PER_SECOND  # noqa: E402

INT8, MODULES = "csm int8", "csm by modules"
FRAMES, TEXT = 12, "hello there"
BAR = 5.0


def ours(model: CSMModel, **options) -> torch.Tensor:
    """Returns the frames [FRAMES, K] of a new conversation."""
    sampling = SamplingConfig(temperature=0.0, max_seconds=FRAMES / FRAMES_PER_SECOND, extra_codes=True)
    return torch.stack(list(Session(model, sampling, **options).speak(TEXT, 0)))


def by_modules(model: CSMModel) -> torch.Tensor:
    """The same without the native loop: a decoder whose `start` is replaced runs module by module."""
    decoder = model.depth_decoder
    vars(decoder)["start"] = type(decoder).start.__get__(decoder)
    try:
        return ours(model)
    finally:
        del vars(decoder)["start"]


def prepared(call, expected: torch.Tensor):
    frames = call()
    assert torch.equal(frames, expected), f"{(frames != expected).sum()} codes differ from ours"
    return call


def prepared_int8(model: CSMModel):
    if model.audio_embedding.weight.is_cuda:
        raise RuntimeError("int8 weights are for the CPU")
    call = partial(ours, model, sampler=DepthSampler(model, "int8"))
    # Its logits differ slightly, so with the flat logits of a random model its codes often differ.
    assert call().shape == (FRAMES, CODEBOOKS)
    return call


@pytest.mark.parametrize("name", ["csm", INT8, MODULES, PEER])
def test_generation(name, device, compare, theirs):  # noqa: F811
    read_theirs, folder = theirs

    @torch.no_grad()
    def contenders():
        model = CSMModel.from_pretrained(folder, text="bytes")
        # Without the layers that csm-1b lacks, both sides are the same network.
        config = replace(model.config, cross_layers=(), memory_layers=())
        model = CSMModel.from_pretrained(folder, text="bytes", config=config).to(device)
        their_model = read_theirs(folder).to(device).eval()
        ids = torch.tensor([model.codec.encode_turn(TEXT, 0)], device=device)
        generate = partial(
            their_model.generate,
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=FRAMES,
            do_sample=False,
            depth_decoder_do_sample=False,
        )

        frames = ours(model)
        assert torch.equal(frames, generate()[0].cpu()), "the frames of the two generators differ"
        return {
            "csm": lambda: partial(ours, model),
            INT8: lambda: prepared_int8(model),
            MODULES: lambda: prepared(partial(by_modules, model), frames),
            PEER: lambda: generate,
        }

    # Weights used per frame: backbone and its head once, the depth decoder once per codebook.
    backbone = 6 * (2 * 512 * 512 + 2 * 512 * 128 + 3 * 512 * 2048) + 512 * (CODES + 3)
    layers = 2 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 1024) + 512 * 256
    heads = (CODEBOOKS - 1) * 256 * (CODES + 3)
    compare(
        name,
        f"{FRAMES} frames of speech",
        contenders,
        flops=2.0 * FRAMES * (backbone + CODEBOOKS * layers + heads),
        moved=4.0 * FRAMES * (backbone + layers + heads),
        bars={PEER: BAR},
    )
