"""Real clips of the packaged excerpt, and a small run made of them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from csm.data.manifest import Conversation, Corpus, Turn
from csm.evaluation.core.clips import Clip
from csm.tokenizer import ConversationalRVQ, TokenizerConfig

EXCERPT = Path(__file__).resolve().parents[2] / "csm" / "data" / "excerpt"


def _turns() -> list[dict]:
    lines = (EXCERPT / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return [turn for line in lines for turn in json.loads(line)["turns"]]


@pytest.fixture(scope="session")
def real_clips() -> dict[str, list[Clip]]:
    """Six clips of 2 to 4 s for each of two speakers, JOE and FAYE, at 11,025 Hz."""
    with tarfile.open(next(EXCERPT.glob("*.tar"))) as archive:
        found: dict[str, list[Clip]] = {"JOE": [], "FAYE": []}
        for turn in _turns():
            clips = found.get(turn["speaker"])
            if clips is None or len(clips) == 6 or not 2.0 < turn["end"] < 4.0:
                continue
            member = archive.extractfile(f"{turn['id']}.mp3")
            assert member is not None
            waveform, sample_rate = soundfile.read(io.BytesIO(member.read()), dtype="float32")
            clips.append(
                Clip(
                    id=turn["id"],
                    conversation=turn["conversation"],
                    speaker=turn["speaker"],
                    text=turn["text"],
                    waveform=waveform,
                    sample_rate=sample_rate,
                )
            )
    return found


@pytest.fixture
def run_folder(tmp_path: Path, real_clips: dict[str, list[Clip]]) -> Path:
    """A run with three lines and one dialogue of four turns; one generated file is missing."""
    run = tmp_path / "run"
    speech = run / "speech"
    speech.mkdir(parents=True)
    (run / "tokenizer").mkdir()
    noise = np.random.default_rng(0)
    rows: list[dict] = []

    def versions(name: str, clip: Clip) -> dict:
        assert clip.waveform is not None
        noisy = clip.waveform + 0.01 * noise.standard_normal(len(clip.waveform)).astype(np.float32)
        late = np.concatenate([np.zeros(1102, np.float32), clip.waveform])
        made = {"recording": clip.waveform, "resynthesis": noisy, "generated": late}
        for condition, waveform in made.items():
            soundfile.write(speech / f"{name}.{condition}.wav", waveform, clip.sample_rate)
        timing = {"first_audio_s": 0.2, "generation_s": 1.5, "audio_s": len(late) / clip.sample_rate}
        return {condition: f"{name}.{condition}.wav" for condition in made} | {"timing": timing}

    for number, clip in enumerate(real_clips["JOE"][:3]):
        name = f"line_{number:02d}"
        rows.append(
            {"kind": "line", "id": name, "conversation": f"C{number}", "turn": 1, "speaker": "JOE"}
            | {"text": clip.text}
            | versions(name, clip)
        )
    channels = {"recording": np.zeros((2, 11025 * 20), np.float32)}
    channels["generated"] = channels["recording"].copy()
    at = 0
    for number in range(4):
        speaker = ("JOE", "FAYE")[number % 2]
        clip = real_clips[speaker][3 + number // 2]
        assert clip.waveform is not None
        name = f"dialogue_00.turn_{number:02d}"
        rows.append(
            {"kind": "turn", "id": name, "dialogue": "dialogue_00", "turn": number, "speaker": speaker}
            | {"text": clip.text, "start": at / 11025, "end": at / 11025 + clip.duration}
            | versions(name, clip)
        )
        for mixed in channels.values():
            mixed[number % 2, at : at + len(clip.waveform)] = clip.waveform
        at += len(clip.waveform)
    for condition, mixed in channels.items():
        soundfile.write(speech / f"dialogue_00.{condition}.wav", mixed[:, : at + 2000].T, 11025)
    rows.append(
        {"kind": "dialogue", "id": "dialogue_00", "speakers": ["JOE", "FAYE"]}
        | {condition: f"dialogue_00.{condition}.wav" for condition in channels}
    )
    (speech / "line_02.generated.wav").unlink()
    (speech / "speech.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (run / "metrics.jsonl").write_text(
        "".join(
            json.dumps({"step": step, "split": split, "model/total": 5.0 - step / 100}) + "\n"
            for step in range(0, 100, 10)
            for split in ("train", "validation")
        )
        + '{"step": 1',
        encoding="utf-8",
    )
    (run / "codes").mkdir()
    (run / "codes" / "codebooks.json").write_text(
        json.dumps(
            {
                "usage": [0.5] * 4,
                "perplexity": [8.0] * 4,
                "dead": [8] * 4,
                "codebook_size": 16,
                "frames": 9999,
            }
        ),
        encoding="utf-8",
    )
    return run


@pytest.fixture
def small_corpus(tmp_path: Path, real_clips: dict[str, list[Clip]]) -> Corpus:
    """Two test conversations of three real clips each, and one clip of 1 s."""
    conversations = []
    for name, speaker in (("C0", "JOE"), ("C1", "FAYE")):
        turns = []
        for index, clip in enumerate(real_clips[speaker][:3]):
            assert clip.waveform is not None
            path = f"{clip.id}.wav"
            soundfile.write(tmp_path / path, clip.waveform, clip.sample_rate)
            whole = {"conversation": name, "speaker": speaker, "text": clip.text, "audio": path}
            turns.append(Turn(id=clip.id, index=index, end=clip.duration, **whole))
        if name == "C0":
            turns.append(Turn(id="short", index=3, end=1.0, **whole))
        conversations.append(Conversation(id=name, split="test", turns=tuple(turns)))
    return Corpus(root=tmp_path, conversations=tuple(conversations), info={"name": "small"})


@pytest.fixture
def tiny_tokenizer() -> ConversationalRVQ:
    """Four codebooks of sixteen codes at 11,025 Hz with random weights."""
    torch.manual_seed(0)
    config = TokenizerConfig(
        sample_rate=11025,
        n_codebooks=4,
        semantic_codebooks=2,
        codebook_size=16,
        codebook_dim=8,
        encoder_widths=(8, 8, 8),
        encoder_depths=(1, 1, 1),
        decoder_widths=(8, 8, 8),
        decoder_depths=(1, 1, 1),
    )
    return ConversationalRVQ(config).eval()
