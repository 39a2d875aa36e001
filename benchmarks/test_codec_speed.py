"""The tokenizer on one thread: 10 s against transformers' codecs, one streamed frame, a training step."""

from functools import cache, partial
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import csm
from csm.audio.files import write_audio
from csm.data.manifest import Conversation, Corpus, Turn
from csm.data.utterances import UtteranceDataset
from csm.recipes.named import quickstart
from csm.tokenizer import ConversationalRVQ, presets
from csm.training.tokenizer_task import TokenizerTask, TrainedParts

SECONDS, CODEBOOKS = 10, 32
MIMI, ENCODEC = "transformers Mimi", "transformers EnCodec"
BAR = 4.0  # target ratio of each peer's time to ours, for encode and for decode
# By sample rate: target speed of encode and decode together, and target time of both for a frame of 80 ms.
TIMES_REAL_TIME = {11_025: 25, 24_000: 12}
FRAME_MILLISECONDS = {11_025: 15, 24_000: 25}


@pytest.fixture(autouse=True)
def one_thread():
    """One thread, as on a server with one stream per core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


def packaged(device: torch.device) -> ConversationalRVQ:
    folder = Path(csm.__file__).parent / "weights" / "tokenizer"
    return ConversationalRVQ.from_pretrained(folder).to(device)


def packaged_wideband(device: torch.device) -> ConversationalRVQ:
    folder = Path(csm.__file__).parent / "weights" / "wideband" / "tokenizer"
    return ConversationalRVQ.from_pretrained(folder).to(device)


def quickstart_size(device: torch.device) -> ConversationalRVQ:
    return ConversationalRVQ(presets.quickstart()).to(device).eval()


def noise(samples: int, device: torch.device) -> torch.Tensor:
    return torch.randn(1, 1, samples, generator=torch.Generator().manual_seed(0)).to(device) * 0.1


def both(tokenizer: ConversationalRVQ, audio: torch.Tensor) -> torch.Tensor:
    return tokenizer.decode(tokenizer.encode(audio)[0])


@pytest.mark.parametrize("name", ["encode", "decode", "encode and decode"])
@pytest.mark.parametrize("make", [quickstart_size, packaged, packaged_wideband])
def test_ten_seconds(make, name, device, timed, benchmark):
    tokenizer = make(device)
    benchmark.group = f"{tokenizer.config.sample_rate} Hz tokenizers, 10 s [{device.type}]"
    frame, rate = tokenizer.config.samples_per_frame, tokenizer.config.sample_rate
    audio = noise(SECONDS * rate // frame * frame, device)
    codes, _ = tokenizer.encode(audio)
    assert tokenizer.decode(codes).shape == audio.shape
    calls = {"encode": partial(tokenizer.encode, audio), "decode": partial(tokenizer.decode, codes)}
    timed(calls.get(name) or partial(both, tokenizer, audio))
    if not benchmark.disabled:
        times = audio.shape[-1] / rate / benchmark.stats["median"]
        benchmark.extra_info["times_real_time"] = round(times, 1)
        if name == "encode and decode":
            bar = TIMES_REAL_TIME[rate]
            benchmark.extra_info |= {"bar": bar, "met": times >= bar}


@pytest.mark.parametrize("make", [quickstart_size, packaged, packaged_wideband])
def test_one_frame_of_a_stream(make, device, timed, benchmark):
    """Encodes and decodes a block of frames within a stream: a part of a conversation's latency."""
    tokenizer = make(device)
    config = tokenizer.config
    benchmark.group = f"{config.sample_rate} Hz tokenizers, one frame of a stream [{device.type}]"
    frames = config.semantic_block_frames if config.semantic_layers else 1
    frame = noise(frames * config.samples_per_frame, device)
    with tokenizer.streaming(1):
        # Fills the attention window.
        for _ in range(tokenizer.config.attention_frames):
            assert both(tokenizer, frame).shape[-1] <= frame.shape[-1]
        timed(partial(both, tokenizer, frame), rounds=41)
    if not benchmark.disabled:
        milliseconds = 1e3 * benchmark.stats["median"] / frames
        benchmark.extra_info["milliseconds"] = round(milliseconds, 2)
        bar = FRAME_MILLISECONDS[config.sample_rate]
        benchmark.extra_info |= {"bar": bar, "met": milliseconds <= bar}


class Ours:
    """The 24 kHz size with random weights."""

    def __init__(self) -> None:
        self.model = ConversationalRVQ(presets.speech_24khz()).eval()

    def encode(self, audio: torch.Tensor) -> torch.Tensor:
        return self.model.encode(audio)[0]

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return self.model.decode(codes)


class Mimi:
    """transformers' default configuration: 24 kHz, 12.5 frames per second."""

    def __init__(self) -> None:
        from transformers import MimiConfig, MimiModel

        self.model = MimiModel(MimiConfig()).eval()

    def encode(self, audio: torch.Tensor) -> torch.Tensor:
        return self.model.encode(audio, num_quantizers=CODEBOOKS).audio_codes

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return self.model.decode(codes).audio_values


class EnCodec:
    """transformers' default configuration: 24 kHz, 75 frames per second, 32 codebooks at 24 kbit/s."""

    def __init__(self) -> None:
        from transformers import EncodecConfig, EncodecModel

        self.model = EncodecModel(EncodecConfig()).eval()

    def encode(self, audio: torch.Tensor) -> torch.Tensor:
        return self.model.encode(audio, bandwidth=24.0).audio_codes[0]

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return self.model.decode(codes.unsqueeze(0), [None]).audio_values


CODECS = {"csm": (Ours, 12.5), MIMI: (Mimi, 12.5), ENCODEC: (EnCodec, 75)}


@cache
def codec(name: str, device: torch.device) -> Ours | Mimi | EnCodec:
    made = CODECS[name][0]()
    made.model.to(device)
    return made


def prepared(name: str, way: str, device: torch.device):
    """Returns a call that encodes or decodes 10 s; asserts 32 codebooks and the length."""
    audio, it = noise(SECONDS * 24_000, device), codec(name, device)
    codes = it.encode(audio)
    assert codes.shape == (1, CODEBOOKS, SECONDS * CODECS[name][1]), codes.shape
    assert it.decode(codes).shape == audio.shape
    return partial(it.encode, audio) if way == "encode" else partial(it.decode, codes)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("way", ["encode", "decode"])
def test_24_khz(way, name, device, compare, benchmark):
    def contenders():
        audio = noise(SECONDS * 24_000, device)
        ours = codec("csm", device)
        codes = ours.encode(audio)
        waveform = ours.decode(codes)
        # A stream in blocks equals the whole; a code may differ if two vectors are equally near.
        with ours.model.streaming(1):
            streamed = torch.cat([ours.encode(part) for part in audio.split(25 * 1920, dim=-1)], -1)
            parts = [ours.decode(part) for part in codes.split(25, dim=-1)]
            torch.testing.assert_close(
                torch.cat([*parts, ours.model.flush()], -1), waveform, atol=1e-4, rtol=0
            )
        assert (streamed == codes).float().mean() > 0.999
        return {other: partial(prepared, other, way, device) for other in CODECS}

    flops = moved = 0.0
    if not benchmark.disabled:
        try:
            call = prepared(name, way, device)
        except ImportError as error:
            pytest.skip(f"{name}: not installed: {error}")
        with FlopCounterMode(display=False) as counted:
            call()
        flops = float(counted.get_total_flops())
        # The weights and the waveform once.
        moved = 4.0 * (sum(p.numel() for p in codec(name, device).model.parameters()) + SECONDS * 24_000)
    bars = {MIMI: BAR, ENCODEC: BAR}
    compare(name, f"24 kHz codecs, {way} 10 s", contenders, flops=flops, moved=moved, bars=bars)


@pytest.fixture
def task(tmp_path, device) -> TokenizerTask:
    """A training of the quickstart's tokenizer, all of it, from random weights on noise."""
    run = quickstart()
    rate, frame = run.tokenizer.sample_rate, run.tokenizer.samples_per_frame
    conversations = []
    for split in ("train", "validation"):
        turns = []
        for index in range(run.utterances.items):
            name, seconds = f"{split}{index}", run.utterances.max_seconds
            write_audio(tmp_path / f"{name}.wav", noise(int(seconds * rate), torch.device("cpu"))[0], rate)
            kept = {"conversation": split, "index": index, "speaker": "AB"[index % 2], "text": "yes no"}
            turns.append(Turn(id=name, audio=f"{name}.wav", end=int(seconds * rate) / rate, **kept))
        conversations.append(Conversation(id=split, split=split, turns=tuple(turns)))
    corpus = Corpus(root=tmp_path, conversations=tuple(conversations))
    options = {
        "sample_rate": rate,
        "samples_per_frame": frame,
        "config": run.utterances,
        "seed": 0,
        "micro_batches": 1,
    }
    data = [UtteranceDataset(corpus, split, **options) for split in ("train", "validation")]
    loss, tokenizer = run.tokenizer_loss, ConversationalRVQ(run.tokenizer).to(device)
    made = TokenizerTask(tokenizer, *data, loss, TrainedParts(initialise=True), device=device)
    made.trainer.to(device)
    return made


def test_training_step(task, device, timed, benchmark):
    """Losses, backward, fused AdamW and codebook update of one micro-batch, per second of encoded audio."""
    benchmark.group = f"tokenizer training step [{device.type}]"
    trainer, steps = task.trainer.train(), iter(range(1, 10_000))
    optimizer = torch.optim.AdamW(trainer.parameters(), 1e-4, fused=True)
    batch = task.batch(1, 0).to(device)

    @torch.enable_grad()
    def step() -> None:
        number = next(steps)
        loss, _ = task.loss("tokenizer", trainer, batch, number)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        task.after_step(number)

    step()  # initialises the codebooks from the data and the moments of the optimizer
    timed(step)
    if not benchmark.disabled:
        seconds = int(batch.lengths.sum()) / task.train.sample_rate
        spent = 1e3 * benchmark.stats["median"] / seconds
        benchmark.extra_info["milliseconds_per_second_of_audio"] = round(spent, 2)
