"""A corpus through a tokenizer: every turn as codes, in one or several cuts."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from csm.audio.prosody import frame_prosody
from csm.audio.resampling import resample
from csm.data.code_shards import EncodedTurn, version_id, version_speed
from csm.data.manifest import Corpus
from csm.data.turn_audio import read_turn
from csm.data.utterances import one_thread
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.mimi import MimiInfo, MimiTokenizer
from csm.training.checkpoint import sha256_of

# Turns of one encoding batch: 32 of the longest (12 s) take about 0.5 GB.
ENCODE_BATCH = 32


def open_tokenizer(folder: Path, num_codebooks: int) -> ConversationalRVQ | MimiTokenizer:
    """The tokenizer of a folder: ours, or Mimi where it is transformers' (alone, or inside its CSM).

    Args:
        folder: With config.json.
        num_codebooks: How many of Mimi's codebooks are encoded.

    Raises:
        ValueError: No tokenizer there.
    """
    path = folder / "config.json"
    raw = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if raw.get("model_type") in ("mimi", "csm"):
        return MimiTokenizer.from_pretrained(folder, n_codebooks=num_codebooks)
    return ConversationalRVQ.from_pretrained(folder)


def sha256_of_weights(folder: Path) -> str:
    """Of model.safetensors, or of the SHA-256s of the files it is cut into."""
    whole = folder / "model.safetensors"
    if whole.is_file():
        return sha256_of(whole)
    digests = [sha256_of(path) for path in sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


@torch.no_grad()
def encoded_turns(
    corpus: Corpus,
    tokenizer: ConversationalRVQ | MimiTokenizer,
    versions: int = 1,
    speeds: Sequence[float] = (1.0,),
) -> Iterator[EncodedTurn]:
    """Codes, prosody and speaker embedding (of no width with Mimi) of every turn, the shortest first.

    Training turns come in `versions`, each with silence of another part of a frame before it and at its
    `version_speed`, as many frames as it has without the silence.
    """
    config = tokenizer.config
    device = next(tokenizer.parameters()).device
    # Neighbours in length share a batch: little padding, and the codes do not depend on it.
    ordered = sorted(corpus.turns(), key=lambda turn: (turn.duration, turn.id))
    trained = {turn.id for turn in corpus.turns("train")}
    with tqdm(total=len(ordered), desc="encode", ascii=True, unit="turn") as bar:
        for start in range(0, len(ordered), ENCODE_BATCH):
            group = ordered[start : start + ENCODE_BATCH]
            waveforms = [read_turn(corpus, turn, config.sample_rate) for turn in group]
            lengths = torch.tensor([w.shape[1] for w in waveforms])
            codes, info = tokenizer.encode(_padded(waveforms).to(device), lengths)
            known = {}
            for row, (turn, waveform) in enumerate(zip(group, waveforms, strict=True)):
                with one_thread():
                    prosody = frame_prosody(waveform, config.sample_rate, frame_rate=config.frame_rate)
                frames = -(-waveform.shape[1] // config.samples_per_frame)
                speaker = torch.zeros(0) if isinstance(info, MimiInfo) else info.speaker[row].cpu()
                yield EncodedTurn(turn.id, codes[row, :, :frames].cpu(), prosody[:frames], speaker)
                known[turn.id] = prosody[:frames], speaker
            at_speeds = {speed: [at_speed(w, speed) for w in waveforms] for speed in set(speeds[:versions])}
            for number in range(1, versions):
                early = config.samples_per_frame * number // versions
                speed = version_speed(number, speeds)
                played = at_speeds[speed]
                lengths = torch.tensor([w.shape[1] for w in played])
                codes, _ = tokenizer.encode(_padded(played, early).to(device), lengths + early)
                for row, turn in enumerate(group):
                    if turn.id in trained:
                        prosody, speaker = known[turn.id]
                        frames = -(-int(lengths[row]) // config.samples_per_frame)
                        kept = codes[row, :, :frames].cpu()
                        prosody = prosody_at_speed(prosody, speed, frames)
                        yield EncodedTurn(version_id(turn.id, number), kept, prosody, speaker)
            bar.update(len(group))


def at_speed(waveform: Float[Tensor, "1 S"], speed: float) -> Float[Tensor, "1 T"]:
    """A recording played faster or slower, its pitch and formants along with it."""
    if speed == 1:
        return waveform
    return resample(waveform[0], round(1000 * speed), 1000).unsqueeze(0)


def prosody_at_speed(prosody: Float[Tensor, "T 3"], speed: float, frames: int) -> Float[Tensor, "F 3"]:
    """`frame_prosody` of a recording played at another speed, of which that at speed 1 is known."""
    if speed == 1:
        return prosody
    # Middles of frames.
    places = ((torch.arange(frames) + 0.5) * speed).long().clamp(max=len(prosody) - 1)
    played = prosody[places].clone()
    played[:, 0] += math.log(speed) * (played[:, 1] > 0)
    return played


def _padded(waveforms: Sequence[Tensor], before: int = 0) -> Float[Tensor, "B 1 S"]:
    longest = max(waveform.shape[1] for waveform in waveforms)
    return torch.stack([F.pad(w, (before, longest - w.shape[1])) for w in waveforms])
