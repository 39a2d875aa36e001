"""Audio of csm-1b's form: frames with Mimi's waveform, streamed here, whole in transformers; same weights."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "gpu")]

from generation_roofline import frame_traffic  # noqa: E402
from test_generation_speed import FRAMES, TEXT  # noqa: E402
from test_training_step import PEER, theirs  # noqa: E402, F401

from csm.generation.audio_stream import stream_audio  # noqa: E402
from csm.generation.sampling import SamplingConfig  # noqa: E402
from csm.generation.session import Session  # noqa: E402
from csm.model import CSMModel  # noqa: E402
from csm.sequences.turns import FRAMES_PER_SECOND  # noqa: E402
from csm.tokenizer.mimi import MimiTokenizer  # noqa: E402

WHOLE, AGAIN = "transformers, whole", "transformers, all frames again"


def streamed(model: CSMModel, mimi: MimiTokenizer) -> torch.Tensor:
    """Returns a line's waveform [S] from its chunks of a frame."""
    sampling = SamplingConfig(temperature=0.0, max_seconds=FRAMES / FRAMES_PER_SECOND)
    return torch.cat(list(stream_audio(mimi, Session(model, sampling).speak(TEXT, 0))), dim=1)[0]


@pytest.mark.parametrize("name", ["csm", PEER])
def test_frames_with_their_audio(name, device, compare, theirs):  # noqa: F811
    read_theirs, folder = theirs
    base = CSMModel.from_pretrained(folder, text="bytes")
    # Without the layers that csm-1b lacks, both sides are the same network.
    config = replace(base.config, cross_layers=(), memory_layers=())

    @torch.no_grad()
    def contenders():
        model = CSMModel.from_pretrained(folder, text="bytes", config=config).to(device)
        their_model = read_theirs(folder).to(device).eval()
        mimi = MimiTokenizer(their_model.codec_model)
        ids = torch.tensor([model.codec.encode_turn(TEXT, 0)], device=device)
        generate = partial(
            their_model.generate, input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=FRAMES,
            do_sample=False, depth_decoder_do_sample=False, output_audio=True,
        )  # fmt: skip
        (whole,) = generate()
        torch.testing.assert_close(streamed(model, mimi), whole.float().cpu().flatten(), atol=1e-5, rtol=0)
        return {"csm": lambda: partial(streamed, model, mimi), PEER: lambda: generate}

    traffic = frame_traffic(config, context=0, bytes_per_weight=4)
    compare(
        name, f"{FRAMES} frames of csm-1b's form and their audio", contenders,
        flops=0.0, moved=FRAMES * traffic.once, bars={PEER: 1.0},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["csm", WHOLE, AGAIN])
def test_mimi_of_its_true_size(name, device, compare):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.MimiModel(transformers.MimiConfig()).to(device).eval()
    mimi = MimiTokenizer(model)
    codes = torch.randint(0, 2048, (1, 32, FRAMES), device=device)

    def chunks() -> torch.Tensor:
        with mimi.streaming(1):
            return torch.cat([mimi.decode(frame) for frame in codes.split(1, dim=2)], dim=2)

    def again() -> torch.Tensor:
        """Streams without caches: each frame decodes all before it, and keeps its own samples."""
        parts = [mimi.decode(codes[..., : n + 1])[..., -1920:] for n in range(FRAMES)]
        return torch.cat(parts, dim=2)

    def contenders():
        whole = mimi.decode(codes)
        torch.testing.assert_close(chunks(), whole, atol=1e-5, rtol=0)
        return {"csm": lambda: chunks, WHOLE: lambda: partial(mimi.decode, codes), AGAIN: lambda: again}

    weights = 4 * sum(parameter.numel() for parameter in model.decoder.parameters())
    group = f"{FRAMES} frames of Mimi, chunks of a frame"
    compare(name, group, contenders, flops=0.0, moved=FRAMES * weights, bars={AGAIN: 1.0})
