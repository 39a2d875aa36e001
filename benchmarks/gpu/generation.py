"""Step 8: generation with random weights: milliseconds, launches and waits per frame, and the first audio."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from typing import Any

import torch
from bare import NO_DEVICE, begin

TEXT, FRAMES = "I had a plane to catch, and no time to lose.", 24


def sizes(cuda: bool) -> dict[str, tuple[Any, torch.dtype]]:
    """Returns the models by name, with the dtype of their weights."""
    from csm.network.model_config import CSMConfig
    from csm.network.presets import csm_1b

    if not cuda:
        small = CSMConfig(d_model=32, n_layers=2, n_heads=2, num_codebooks=4, semantic_codebooks=2)
        return {"32 x 2": (small, torch.float32)}
    return {
        "768 x 12": (CSMConfig(), torch.float32),
        "csm-1b": (replace(csm_1b(), text="bytes", text_vocab_size=0), torch.bfloat16),
    }


def spoken(model: Any, frames: int, seed: int = 0) -> list[torch.Tensor]:
    """Returns the frames of one turn of a new conversation."""
    from csm.generation.sampling import SamplingConfig
    from csm.generation.session import FRAMES_PER_SECOND, Session

    limit = (frames + 0.5) / FRAMES_PER_SECOND
    sampling = SamplingConfig(max_seconds=limit, shortest=100.0, seed=seed, extra_codes=True)
    return list(Session(model, sampling).speak(TEXT, 0, frames=frames))


def timed(model: Any, device: torch.device) -> dict[str, float]:
    """Returns milliseconds to the first frame and of each later one; tens of frames warm up."""
    from csm.generation.sampling import SamplingConfig
    from csm.generation.session import FRAMES_PER_SECOND, Session

    spoken(model, 4)
    sampling = SamplingConfig(max_seconds=(FRAMES + 0.5) / FRAMES_PER_SECOND, shortest=100.0)
    start = time.perf_counter()
    turn = Session(model, sampling).speak(TEXT, 0, frames=FRAMES)
    next(turn)
    first = time.perf_counter()
    count = sum(1 for _ in turn)
    if device.type == "cuda":
        torch.cuda.synchronize()
    last = time.perf_counter()
    return {"first_frame_ms": 1e3 * (first - start), "frame_ms": 1e3 * (last - first) / max(count, 1)}


def per_frame(model: Any) -> dict[str, float]:
    """Returns launches and waits of a frame: those of 12 frames less those of 4, divided by 8."""
    from torch.profiler import ProfilerActivity, profile

    counts: dict[int, dict[str, int]] = {}
    for frames in (4, 12):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
                spoken(model, frames)
            torch.cuda.set_sync_debug_mode("default")
        events = found.key_averages()
        counts[frames] = {
            "launches": sum(e.count for e in events if "LaunchKernel" in e.key),
            "graph_launches": sum(e.count for e in events if "GraphLaunch" in e.key),
            "waits": sum("synchroniz" in str(w.message) for w in caught),
        }
    return {f"{name}_per_frame": (counts[12][name] - counts[4][name]) / 8 for name in counts[4]}


def first_audio(model: Any, device: torch.device) -> float:
    """Returns milliseconds from a text to its first samples, through a tokenizer with random weights."""
    from csm.generation.sampling import SamplingConfig
    from csm.generation.session import Session
    from csm.tokenizer.conversational_rvq import ConversationalRVQ
    from csm.tokenizer.presets import speech_24khz

    tokenizer = ConversationalRVQ(speech_24khz()).to(device).eval()
    audio = []
    for _ in range(2):  # the first one warms up
        start = time.perf_counter()
        frame = next(Session(model, SamplingConfig(shortest=100.0)).speak(TEXT, 0, frames=FRAMES))
        with torch.no_grad(), tokenizer.streaming(1):
            samples = tokenizer.decode(frame.to(device).clamp_max(1023)[None, :, None])
        samples.cpu()
        audio.append(1e3 * (time.perf_counter() - start))
    return audio[-1]


def main() -> None:
    rows, device, _ = begin()
    from csm.model import CSMModel

    cuda = device.type == "cuda"
    for name, (config, dtype) in sizes(cuda).items():
        torch.manual_seed(0)
        torch.set_default_dtype(dtype)
        with device:
            model = CSMModel(config).eval()
        torch.set_default_dtype(torch.float32)
        same = all(map(torch.equal, spoken(model, 6), spoken(model, 6)))
        rows.add(f"a seed gives the same codes, {name}", gate=same)
        if cuda:
            row = {**timed(model, device), **per_frame(model)}
            if config.num_codebooks == 32:
                row["first_audio_ms"] = first_audio(model, device)
            rows.add(f"generation, {name}", **row, gigabytes=torch.cuda.max_memory_allocated() / 1e9)
    if not cuda:
        timed(model, device)
        rows.skip("times and launches", NO_DEVICE)


if __name__ == "__main__":
    main()
