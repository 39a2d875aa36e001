"""Step 9: generation with random weights: milliseconds, launches and waits per frame, and the first audio."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from typing import Any

import torch
from bare import NO_DEVICE, begin

TEXT, FRAMES = "I had a plane to catch, and no time to lose.", 24
TOGETHER = 8  # turns at once
# Of a frame with its row: what csm.generation.static_turns promises.
GRAPHS, WAITS = 2, 1


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


def sampling(frames: int, seed: int = 0, **options: Any) -> Any:
    """Returns settings by which a turn has this many frames."""
    from csm.generation.sampling import SamplingConfig
    from csm.sequences.turns import FRAMES_PER_SECOND

    limit = (frames + 0.5) / FRAMES_PER_SECOND
    return SamplingConfig(max_seconds=limit, shortest=100.0, seed=seed, extra_codes=True, **options)


def spoken(model: Any, frames: int, static: bool, **options: Any) -> list[torch.Tensor]:
    """Returns the frames of one turn of a new conversation: by graphs where `static`, else by modules."""
    from csm.generation.session import Session

    return list(Session(model, sampling(frames, **options), static=static).speak(TEXT, 0, frames=frames))


def timed(model: Any, device: torch.device, static: bool) -> dict[str, float]:
    """Returns milliseconds to the first frame and of each later one; a few frames warm up."""
    from csm.generation.session import Session

    spoken(model, 4, static)
    start = time.perf_counter()
    turn = Session(model, sampling(FRAMES), static=static).speak(TEXT, 0, frames=FRAMES)
    next(turn)
    first = time.perf_counter()
    count = sum(1 for _ in turn)
    if device.type == "cuda":
        torch.cuda.synchronize()
    last = time.perf_counter()
    return {"first_frame_ms": 1e3 * (first - start), "frame_ms": 1e3 * (last - first) / max(count, 1)}


def timed_together(model: Any, static: bool, count: int = TOGETHER) -> float:
    """Returns milliseconds of a frame of all of several turns at once."""
    from csm.generation.batch import Request, SpeakingTogether
    from csm.generation.session import Session

    for frames in (4, FRAMES):  # the first one warms up
        sessions = [Session(model, sampling(frames, seed), static=static) for seed in range(count)]
        together = SpeakingTogether([Request(session, TEXT, 0, frames) for session in sessions])
        next(together)
        start = time.perf_counter()
        steps = sum(1 for _ in together)
        last = time.perf_counter()
    return 1e3 * (last - start) / max(steps, 1)


def per_frame(model: Any) -> dict[str, float]:
    """Returns launches and waits of a frame: those of 12 frames less those of 4, divided by 8."""
    from torch.profiler import ProfilerActivity, profile

    counts: dict[int, dict[str, int]] = {}
    for frames in (4, 12):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
                spoken(model, frames, static=True)
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
        same = all(map(torch.equal, spoken(model, 6, True), spoken(model, 6, True)))
        rows.add(f"a seed gives the same codes, {name}", gate=same)
        if dtype == torch.float32:
            ways = [spoken(model, 6, static, temperature=0.0) for static in (True, False)]
            rows.add(f"graphs give the codes of the modules, {name}", gate=all(map(torch.equal, *ways)))
        if cuda:
            add_times(rows, name, model, device)
    if not cuda:
        for static in (True, False):
            timed(model, device, static)
        timed_together(model, True, 2)
        rows.skip("times and launches", NO_DEVICE)


def add_times(rows: Any, name: str, model: Any, device: torch.device) -> None:
    """Adds times of one turn and of several, by graphs and by modules, and what a frame asks of the host."""
    counts = per_frame(model)
    rows.add(
        f"at most {GRAPHS} graph launches and {WAITS} wait a frame, {name}",
        gate=counts["graph_launches_per_frame"] <= GRAPHS and counts["waits_per_frame"] <= WAITS,
    )
    row = {**timed(model, device, True), **counts}
    row["modules_frame_ms"] = timed(model, device, False)["frame_ms"]
    row[f"frame_ms_of_{TOGETHER}"] = timed_together(model, True)
    if model.config.num_codebooks == 32:
        row["first_audio_ms"] = first_audio(model, device)
    rows.add(f"generation, {name}", **row, gigabytes=torch.cuda.max_memory_allocated() / 1e9)


if __name__ == "__main__":
    main()
