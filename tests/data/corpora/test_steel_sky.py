"""Beneath a Steel Sky from a small package: what is speech is transcribed and given to a voice."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from csm.audio.resampling import resample
from csm.data.corpora import steel_sky
from csm.data.corpora.steel_sky import PACKAGE, SAMPLE_RATE, prepare_steel_sky, speakers_of
from csm.evaluation.metrics.words import error_counts
from tests.data.small_game import make_package
from tests.data.small_steel_sky import make_archive, pack, with_header
from tests.evaluation.conftest import real_clips  # noqa: F401

FOLDER = "usr/share/scummvm/beneath-a-steel-sky/"


def packed(samples: np.ndarray) -> bytes:
    """8-bit samples [S], packed; every hundredth repeats the one before, where a run of literals ends."""
    content = bytearray(np.clip(samples * 128 + 128, 0, 255).astype(np.uint8).tobytes())
    parts, start = [], 0
    while len(content) - start > 120:
        stop = start + 100
        content[stop : stop + 2] = content[stop - 1 : stop] * 2
        parts.append((bytes(content[start:stop]), (1, 2)))
        start = stop + 2
    parts.append((bytes(content[start:]), None))
    return with_header(pack(parts, bytes(content)))


@pytest.fixture
def lines(real_clips):  # noqa: F811
    clips = [*real_clips["JOE"][:3], *real_clips["FAYE"][:2]]
    return {51_000 + number: clip for number, clip in enumerate(clips)}


@pytest.fixture
def downloads(tmp_path, monkeypatch, lines) -> Path:
    import torch

    noise = np.random.default_rng(0).normal(size=2 * SAMPLE_RATE) * 0.1
    files = {51_500: packed(noise), 51_501: packed(np.zeros(1000))}
    for number, clip in lines.items():
        mono = torch.from_numpy(np.atleast_2d(clip.waveform)[0].astype(np.float32))
        files[number] = packed(resample(mono, clip.sample_rate, SAMPLE_RATE).numpy())
    index, archive = make_archive(files)
    folder = tmp_path / "downloads"
    folder.mkdir()
    content = {f"{FOLDER}sky.dnr": index, f"{FOLDER}sky.dsk": archive}
    make_package(
        folder / PACKAGE.file_name, {**content, "usr/share/doc/beneath-a-steel-sky/copyright": b"free"}
    )
    digest = hashlib.sha256((folder / PACKAGE.file_name).read_bytes()).hexdigest()
    monkeypatch.setattr(steel_sky, "PACKAGE", dataclasses.replace(PACKAGE, sha256=digest))
    monkeypatch.setattr(steel_sky, "LEAST_OF_SPEAKER", 1.0)
    return folder


def test_lines_are_transcribed_and_voices_told_apart(downloads, tmp_path, lines) -> None:
    pytest.importorskip("faster_whisper")
    pytest.importorskip("resemblyzer")
    corpus = prepare_steel_sky(tmp_path / "out", downloads=downloads)
    turns = {int(turn.id.rsplit("_", 1)[1]): turn for turn in corpus.turns()}
    assert set(turns) == set(lines) and all(turn.synthetic for turn in turns.values())
    errors = [error_counts(lines[number].text, turn.text) for number, turn in turns.items()]
    assert sum(e for e, _ in errors) / sum(n for _, n in errors) < 0.4
    speakers = [turns[number].speaker for number in sorted(lines)]
    assert len({*speakers[:3]}) == len({*speakers[3:]}) == 1 and speakers[0] != speakers[3]
    assert "tiny.en" in corpus.info["texts_by"] and "clusters" in corpus.info["speakers_by"]
    sound = soundfile.info(tmp_path / "out" / turns[51_000].audio)
    assert sound.samplerate == SAMPLE_RATE
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert {one["source"]: one["reason"].split(":")[0] for one in rejects} == {
        "steel_sky_51500": "music or a sound",
        "steel_sky_51501": "shorter than 0.5 s",
    }
    assert (tmp_path / "out" / "LICENSE.txt").read_bytes() == b"free"


def test_voices_are_numbered_by_what_they_speak_and_rare_ones_are_none() -> None:
    axes = np.eye(3)[[0, 1, 1, 2, 1, 0]] + 0.05 * np.random.default_rng(0).normal(size=(6, 3))
    assert speakers_of(axes, [6.0, 9.0, 9.0, 2.0, 9.0, 6.0]) == [1, 0, 0, None, 0, 1]
