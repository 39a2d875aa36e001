"""The commands and Python blocks of docs/finetune.md, on a small random csm-1b with a small random Mimi."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import numpy
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from tests.small_csm_1b import SIZES, write_csm_1b, write_recordings

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "finetune.md").read_text(encoding="utf-8")
SHORT = {
    "training.steps": "2",
    "training.micro_batches": "2",
    "training.warmup_steps": "1",
    "training.checkpoint_every": "2",
    "training.log_every": "1",
    "data.max_rows": "120",
    "data.rows_per_micro_batch": "150",
    "data.depth_share": "0.5",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.M | re.S)


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if not line.startswith("#")]


def small(command: str) -> list[str]:
    """Returns the words of a command, with the sizes of the small model before the page's settings."""
    words = shlex.split(command)
    if "finetune_csm_1b" in words:
        place = words.index("finetune_csm_1b") + 1
        sets = [word for name, value in {**SIZES, **SHORT}.items() for word in ("--set", f"{name}={value}")]
        words[place:place] = sets
    return words


def inside(words: list[str]) -> str:
    """Runs a command of launch/ in this process; returns what it printed."""
    file = str(ROOT / words[0])
    out, err, status = StringIO(), StringIO(), None
    with patch.object(sys, "argv", [file, *words[1:]]), redirect_stdout(out), redirect_stderr(err):
        try:
            runpy.run_path(file, run_name="__main__")
        except SystemExit as end:
            status = end.code
    assert status == 0, (words, out.getvalue(), err.getvalue())
    return out.getvalue()


def by_deepspeed(words: list[str], folder: Path) -> None:
    """Runs a command with the launcher of the page, on two ranks."""
    launcher = Path(sys.executable).with_name("deepspeed")
    if not launcher.exists():
        pytest.skip("deepspeed is not installed")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = str(server.getsockname()[1])
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    done = subprocess.run(
        [str(launcher), "--num_accelerators", "2", "--master_port", port, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs every command of the page in order; returns the folder."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "launch").symlink_to(ROOT / "launch")
    write_csm_1b(folder / "models" / "csm-1b")
    write_recordings(folder / "my_recordings")
    soundfile.write(folder / "me.wav", 0.1 * numpy.random.default_rng(0).standard_normal(9600), 24_000)
    before, threads = Path.cwd(), torch.get_num_threads()
    os.chdir(folder)
    ranked = 0
    try:
        with patch("csm.training.distributed.available_cores", lambda: 1):
            for command in commands():
                launcher, *words = small(command)
                if launcher == "deepspeed":
                    ranked += 1
                if launcher == "deepspeed" and ranked == 1:
                    by_deepspeed(words, folder)
                    continue
                printed = inside(words)
                if "--dry-run" in words:
                    (folder / "dry_run.txt").write_text(printed)
        yield folder
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)


def test_the_page_has_the_commands_of_every_step() -> None:
    found = commands()
    assert all(command.startswith(("python launch/", "deepspeed launch/train.py")) for command in found)
    files = {name for command in found for name in re.findall(r"launch/(\w+)\.py", command)}
    spoken = {"export_voice", "speak", "generate_speech"}
    assert files == {"prepare_data", "encode_corpus", "train", "convert_checkpoint", *spoken}
    assert "`hf download" in PAGE, "the only command that is not run: it downloads the weights"


@pytest.mark.processes
def test_the_recordings_are_encoded_by_the_mimi_of_the_model(page: Path) -> None:
    from csm.data.code_shards import read_code_shards

    encoded = read_code_shards(page / "runs/mine/codes")
    assert len(encoded) == 24
    assert all(turn.codes.shape == (4, 15) and int(turn.codes.max()) < 16 for turn in encoded.values())


@pytest.mark.processes
def test_full_fine_tuning_changes_csm_1b_and_writes_no_added_part(page: Path) -> None:
    model, base = (load_file(page / f"{name}/model.safetensors") for name in ("runs/mine", "export/merged"))
    assert not any("voice_reads" in name or "memory_reads" in name for name in model)
    same = [name for name in model if name in base and torch.equal(model[name], base[name])]
    assert not [name for name in same if name.startswith(("backbone.blocks", "depth_decoder", "codebook0"))]
    record = json.loads((page / "runs/mine/run.json").read_text())
    assert record["training"]["zero_stage"] == 3 and record["training"]["offload"] == "all"
    assert record["sessions"][0]["ranks"] == 2


@pytest.mark.processes
def test_frozen_parts_are_unchanged(page: Path) -> None:
    from csm.model import CSMModel

    base = CSMModel.from_pretrained(page / "models/csm-1b").state_dict()
    depth = load_file(page / "runs/mine_depth/model.safetensors")
    added = load_file(page / "runs/mine_added/model.safetensors")
    moved = {name for name, value in depth.items() if not torch.equal(value, base[name])}
    assert any(name.startswith("depth_decoder") for name in moved)
    assert not [name for name in moved if name.startswith("backbone")]
    public = [
        name for name in added if name.startswith(("backbone.blocks", "depth_decoder", "codebook0", "audio"))
    ]
    assert all(torch.equal(added[name], base[name]) for name in public)
    gates = [value for name, value in added.items() if name.endswith(".gate")]
    assert len(gates) == 4 and any(bool(gate) for gate in gates)


@pytest.mark.processes
def test_the_adapter_merged_by_the_command_equals_the_model_of_the_run(page: Path) -> None:
    run = load_file(page / "runs/mine_lora/model.safetensors")
    merged = load_file(page / "export/merged/model.safetensors")
    public = [name for name in run if not name.startswith(("text_source", "voice_source", "memory"))]
    assert all(torch.allclose(run[name], merged[name], atol=1e-6) for name in public)
    from csm.model import CSMModel

    base = CSMModel.from_pretrained(page / "models/csm-1b").state_dict()
    moved = {name for name in public if not torch.equal(run[name], base[name])}
    assert len(moved) == 7 * 5 and all(".blocks." in name for name in moved)


@pytest.mark.processes
def test_the_dry_run_prints_the_memory_and_the_size_of_a_step(page: Path) -> None:
    text = (page / "dry_run.txt").read_text()
    assert re.search(r"^   64 +3\*", text, flags=re.M) and "shared by 1, 2 GPUs" in text


@pytest.mark.processes
def test_the_exported_voice_has_the_speakers_the_mimi_and_the_weights_of_the_run(page: Path) -> None:
    from csm.generation.talker import Talker
    from csm.tokenizer.mimi import MimiTokenizer

    voice = Talker.from_pretrained(page / "voices/mine")
    assert list(voice.voices) == ["ANN", "BEN"] and [v.number for v in voice.voices.values()] == [0, 1]
    base = MimiTokenizer.from_pretrained(page / "models/csm-1b")
    kept, theirs = voice.tokenizer.state_dict(), base.state_dict()
    assert kept.keys() == theirs.keys() and all(torch.equal(kept[name], theirs[name]) for name in kept)
    run = load_file(page / "runs/mine/model.safetensors")
    largest = run["backbone.blocks.0.attention.q_proj.weight"]
    assert torch.allclose(
        voice.model.state_dict()["backbone.blocks.0.attention.q_proj.weight"], largest, atol=2e-3
    )


@pytest.mark.processes
@pytest.mark.parametrize("name", ["ben.wav", "ann.wav", "me_too.wav"])
def test_every_command_that_speaks_wrote_its_line(page: Path, name: str) -> None:
    info = soundfile.info(page / name)
    assert info.samplerate == 24_000 and info.frames and info.frames % 1920 == 0


@pytest.mark.processes
def test_the_python_block_writes_audio(page: Path) -> None:
    exec(compile(blocks("python")[0], "finetune.md", "exec"), {})
    info = soundfile.info(page / "hello.wav")
    assert info.samplerate == 24_000 and info.frames and info.frames % 1920 == 0


@pytest.mark.processes
def test_transformers_loads_the_export_with_every_weight_and_mimi(page: Path) -> None:
    import transformers

    from csm.network.parameters import is_added, public_name

    theirs = transformers.CsmForConditionalGeneration.from_pretrained(page / "export/mine")
    weights = theirs.state_dict()
    ours = load_file(page / "runs/mine/model.safetensors")
    public = [name for name in ours if not is_added(name)]
    assert len(public) == 7 + 9 * 5
    assert all(torch.equal(ours[name], weights[public_name(name, "transformers")]) for name in public)
    base = transformers.CsmForConditionalGeneration.from_pretrained(page / "models/csm-1b")
    mimi, kept = base.codec_model.state_dict(), theirs.codec_model.state_dict()
    assert mimi.keys() == kept.keys() and all(torch.equal(mimi[name], kept[name]) for name in mimi)


@pytest.mark.processes
def test_peft_loads_the_adapter_onto_transformers_model(page: Path) -> None:
    pytest.importorskip("peft", reason="peft is not installed, which only this test needs")
    names: dict[str, object] = {}
    exec(compile(blocks("python")[1], "finetune.md", "exec"), names)
    model = names["model"]
    merged = model.merge_and_unload().state_dict()  # type: ignore[attr-defined]
    ours = load_file(page / "runs/mine_lora/model.safetensors")
    theirs = merged["backbone_model.layers.1.mlp.down_proj.weight"]
    assert torch.allclose(theirs, ours["backbone.blocks.1.feed_forward.down_proj.weight"], atol=1e-6)
