"""Checkpoints are whole or absent, verified, rotated, exact, and loadable by any number of ranks."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import threading
import time
from collections import namedtuple
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from csm.system.files import file_sha256
from csm.training import checkpoint as checkpoint_file
from csm.training import checkpoint_reader, checkpoint_shard
from csm.training.checkpoint import Checkpoints, require_space, save_checkpoint
from csm.training.checkpoint_reader import exported_weights, newest_checkpoint, newest_state, read_checkpoint
from csm.training.checkpoint_shard import HostCopy
from csm.training.distributed import DistributedContext
from csm.training.options import TrainingConfig
from csm.training.plain_engine import Engine, PlainEngine

ALONE = DistributedContext(rank=0, size=1, local_size=1, device=torch.device("cpu"))
CONFIG = TrainingConfig(micro_batches=1, ema_decay=0.9)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 4)
        self.tied = self.inner
        self.frozen = nn.Parameter(torch.randn(2), requires_grad=False)
        self.register_buffer("codes", torch.randn(5))


def made(seed: int) -> dict[str, Engine]:
    torch.manual_seed(seed)
    return {"net": PlainEngine("net", Net(), CONFIG, ALONE)}


def stepped(engines: dict[str, Engine]) -> None:
    engine = engines["net"]
    engine.backward(engine.module.inner(torch.ones(1, 3)).square().sum())  # type: ignore[operator]
    engine.gradients()
    engine.step(0.1)
    for fragment in engine.fragments():
        fragment.slots["average"].lerp_(fragment.slots["weight"], 0.5)


def state(engines: dict[str, Engine]) -> dict[str, Tensor]:
    found = {f"{slot}/{f.name}": t.clone() for f in engines["net"].fragments() for slot, t in f.slots.items()}
    return found | {key: value.clone() for key, value in engines["net"].constants().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def saved(folder: Path, *steps: int, keep: int = 10) -> dict[str, Engine]:
    engines = made(0)
    for step in steps:
        stepped(engines)
        save_checkpoint(folder, step, engines, ALONE, keep=keep)
    return engines


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def rewrite(folder: Path, change) -> None:
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    manifest["files"] = change(manifest["files"])
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))


def rehashed(folder: Path, name: str, change) -> None:
    """Changes a file and enters its new SHA-256, as a tool that edits checkpoints would."""
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    entry = {"size": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
    rewrite(folder, lambda files: {**files, name: entry})


def link(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def test_everything_comes_back_exactly_and_training_goes_on_equally(tmp_path: Path) -> None:
    engines = saved(tmp_path, 3)
    extra = ({"counts": {"a": 1}}, {"a": torch.tensor(0.1, dtype=torch.float64)})
    save_checkpoint(tmp_path, 4, engines, ALONE, keep=2, extra=extra)
    following = torch.rand(3)
    others = made(1)
    stored = read_checkpoint(tmp_path / "step_00000004", others, ALONE)
    stored.load(others)
    assert stored.step == 4 and stored.values == extra[0]
    assert torch.equal(stored.tensors["a"], extra[1]["a"])
    assert torch.equal(torch.rand(3), following)
    assert equal(state(engines), state(others)) and others["net"].updates == 1
    stepped(engines)
    stepped(others)
    assert equal(state(engines), state(others))


def test_the_manifest_holds_size_and_sha_256_of_every_file(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    folder = tmp_path / "step_00000001"
    files = json.loads((folder / "MANIFEST.json").read_text())["files"]
    assert sorted(files) == ["rank_00000.json", "rank_00000.safetensors"]
    for name, entry in files.items():
        assert entry == {"size": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
    assert (tmp_path / "latest").read_text() == "step_00000001\n"


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda f: flip(f / "rank_00000.safetensors"), "rank_00000.safetensors has another SHA-256"),
        (lambda f: flip(f / "rank_00000.json"), "rank_00000.json has another SHA-256"),
        (
            lambda f: (f / "rank_00000.safetensors").write_bytes(b""),
            "rank_00000.safetensors has 0 bytes, the manifest says",
        ),
        (lambda f: (f / "rank_00000.json").unlink(), "rank_00000.json is missing"),
        (lambda f: (f / "MANIFEST.json").unlink(), "MANIFEST.json is missing"),
        (lambda f: (f / "MANIFEST.json").write_text("{"), "MANIFEST.json is damaged"),
        (lambda f: (f / "MANIFEST.json").write_text("[1]"), "MANIFEST.json is damaged"),
        (lambda f: (f / "MANIFEST.json").write_text("[" * 10**5), "MANIFEST.json is damaged"),
        (lambda f: rewrite(f, lambda files: {}), "its manifest does not list the files of 1 ranks"),
        (
            lambda f: rewrite(f, lambda files: {**files, "../../../etc/hostname": files["rank_00000.json"]}),
            "its manifest does not list the files of 1 ranks: ../../../etc/hostname",
        ),
        (
            lambda f: shutil.copy(f / "rank_00000.json", f / "rank_00001.json"),
            "it holds rank_00001.json, which its manifest does not list",
        ),
        (lambda f: link(f / "rank_00000.json"), "rank_00000.json is a link"),
        (lambda f: link(f), "it is a link"),
        (
            lambda f: rehashed(f, "rank_00000.json", lambda data: data.replace(b'"ranks": 1', b'"ranks": 2')),
            "it was saved by 2 ranks, its manifest lists 1",
        ),
    ],
)
def test_a_damaged_checkpoint_is_skipped_for_an_older_one_and_the_reason_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], harm, reason: str
) -> None:
    saved(tmp_path, 1, 2)
    harm(tmp_path / "step_00000002")
    assert newest_checkpoint(tmp_path, ALONE) == tmp_path / "step_00000001"
    assert f"checkpoint step_00000002 is skipped: {reason}" in capsys.readouterr().err
    # The run comes to step 2 again and replaces the damaged one.
    if (tmp_path / "step_00000002").is_symlink():
        return
    save_checkpoint(tmp_path, 2, made(0), ALONE, keep=2)
    assert newest_checkpoint(tmp_path, ALONE) == tmp_path / "step_00000002"
    assert not list(tmp_path.glob("*.tmp-*"))


def test_a_renamed_step_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path, 1, 2)
    (tmp_path / "step_00000002").rename(tmp_path / "step_00000040")
    assert newest_checkpoint(tmp_path, ALONE) == tmp_path / "step_00000001"
    assert "step_00000040 is skipped: its manifest is of step 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rank_00000.safetensors", lambda data: (2**62).to_bytes(8, "little") + data[8:]),
        ("rank_00000.safetensors", lambda data: data[:-40]),
        (
            "rank_00000.safetensors",
            lambda data: data.replace(b"net/weight/inner.b", b"net/weight/outer.b"),
        ),
        ("rank_00000.safetensors", lambda data: data.replace(b'"random/torch"', b'"random/other"')),
        ("rank_00000.json", lambda data: data.replace(b'"constants": {', b'"constants": [], "c": {')),
        ("rank_00000.json", lambda data: data.replace(b'"inner.bias": [0, 4]', b'"inner.bias": [0, 3]')),
        ("rank_00000.json", lambda data: data.replace(b'"inner.bias": [0, 4]', b'"inner.bias": "0,4"')),
        ("rank_00000.json", lambda data: data.replace(b'"python": [3', b'"python": [null')),
        ("rank_00000.json", lambda data: data.replace(b'"updates": 2', b'"updates": []')),
    ],
)
def test_a_right_hash_over_wrong_content_falls_back_to_the_checkpoint_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, change
) -> None:
    saved(tmp_path, 1, 2)
    before = (tmp_path / "step_00000002" / name).read_bytes()
    rehashed(tmp_path / "step_00000002", name, change)
    assert (tmp_path / "step_00000002" / name).read_bytes() != before
    found = newest_state(tmp_path, made(1), ALONE)
    assert found is not None and found[0].name == "step_00000001" and found[1].step == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("checkpoint step_00000002 is skipped: it cannot be read (")


def test_if_no_checkpoint_verifies_the_run_is_not_silently_begun_anew(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    flip(tmp_path / "step_00000001" / "rank_00000.safetensors")
    with pytest.raises(ValueError, match="no checkpoint in .* verifies .*move the folder away"):
        newest_checkpoint(tmp_path, ALONE)
    assert newest_checkpoint(tmp_path / "nothing", ALONE) is None


def test_a_poisoned_pickle_is_never_opened(tmp_path: Path) -> None:
    class Poison:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "poisoned",))

    saved(tmp_path, 1)
    folder = tmp_path / "step_00000001"
    (folder / "rank_00000.safetensors").write_bytes(pickle.dumps(Poison()))
    with pytest.raises(ValueError):
        newest_checkpoint(tmp_path, ALONE)
    assert not (tmp_path / "poisoned").exists()
    source = Path(checkpoint_file.__file__).read_text() + Path(checkpoint_reader.__file__).read_text()
    assert "torch.load" not in source and "pickle." not in source


@pytest.mark.parametrize(
    ("module", "function"),
    [
        (checkpoint_shard, "save_file"),
        (checkpoint_shard, "write_flushed"),
        (checkpoint_file, "write_flushed"),
        (checkpoint_file, "_finish"),
        (checkpoint_file, "write_atomically"),
    ],
)
def test_an_interrupted_save_leaves_the_older_checkpoint_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, function: str
) -> None:
    engines = saved(tmp_path, 1)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, function, fail)
        with pytest.raises(ValueError, match="No space left on device.*Older checkpoints are intact"):
            save_checkpoint(tmp_path, 2, engines, ALONE, keep=1)
    assert (tmp_path / "step_00000001").is_dir()
    save_checkpoint(tmp_path, 3, engines, ALONE, keep=2)
    assert not list(tmp_path.glob("*.tmp-*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is the disk that is full")
def test_a_disk_that_fills_up_names_the_file_the_bytes_needed_and_those_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines, start = saved(tmp_path, 1), checkpoint_file._start

    def filled(folder: Path, temporary: Path) -> None:
        start(folder, temporary)
        (temporary / "rank_00000.json").symlink_to("/dev/full")

    monkeypatch.setattr(checkpoint_file, "_start", filled)
    needed = checkpoint_file.checkpoint_bytes(engines, ALONE)
    said = (
        rf"step_00000002 could not be written: .*No space left on device.* needs {needed} bytes, \d+ are free"
    )
    with pytest.raises(ValueError, match=said):
        save_checkpoint(tmp_path, 2, engines, ALONE, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step_00000001"]


def test_what_is_written_is_the_state_of_its_step_whatever_the_next_steps_change(tmp_path: Path) -> None:
    engines = made(0)
    checkpoints = Checkpoints(tmp_path, engines, ALONE, keep=10)
    counts = {"a": 1}
    states = {}
    for step in (1, 2, 3):
        stepped(engines)
        states[step] = state(engines)
        sums = {"a": torch.tensor(float(step))}
        checkpoints.begin(step, ({"counts": counts}, sums))
        counts["a"] += 1
        sums["a"] += 1
        engines["net"].module.codes += 1  # type: ignore[operator]
        checkpoints.before_update()
    stepped(engines)
    checkpoints.close()
    for step in (1, 2, 3):
        others = made(1)
        stored = read_checkpoint(tmp_path / f"step_{step:08d}", others, ALONE)
        stored.load(others)
        assert equal(state(others), states[step]) and stored.values == {"counts": {"a": step}}
        assert stored.tensors["a"] == step


def test_an_update_waits_for_the_copy_and_gradients_do_not(tmp_path: Path, monkeypatch) -> None:
    engines, gate, copy = made(0), threading.Event(), HostCopy.of

    def slow(*arguments):
        assert gate.wait(20)
        return copy(*arguments)

    monkeypatch.setattr(HostCopy, "of", slow)
    checkpoints = Checkpoints(tmp_path, engines, ALONE, keep=10)
    checkpoints.begin(1)
    before = state(engines)
    update = threading.Thread(target=lambda: (checkpoints.before_update(), stepped(engines)))
    update.start()
    update.join(0.2)
    assert update.is_alive() and equal(state(engines), before)
    gate.set()
    update.join(20)
    checkpoints.close()
    others = made(1)
    read_checkpoint(tmp_path / "step_00000001", others, ALONE).load(others)
    assert equal(state(others), before) and not equal(state(engines), before)


def test_until_its_files_are_written_the_checkpoint_before_is_the_newest_and_no_step_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines, gate, write = saved(tmp_path, 1), threading.Event(), checkpoint_shard.write_shard

    def slow(*arguments):
        assert gate.wait(20)
        return write(*arguments)

    monkeypatch.setattr(checkpoint_shard, "write_shard", slow)
    checkpoints = Checkpoints(tmp_path, engines, ALONE, keep=10)
    checkpoints.begin(2)
    for _ in range(3):
        checkpoints.poll()
    assert newest_checkpoint(tmp_path, ALONE) == tmp_path / "step_00000001"
    gate.set()
    deadline = time.monotonic() + 20
    while not (tmp_path / "step_00000002").is_dir() and time.monotonic() < deadline:
        checkpoints.poll()
    assert newest_checkpoint(tmp_path, ALONE) == tmp_path / "step_00000002"
    assert (tmp_path / "latest").read_text() == "step_00000002\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a process that it forks")
def test_a_kill_while_files_are_written_leaves_the_checkpoint_before_to_resume_from(tmp_path: Path) -> None:
    engines = saved(tmp_path, 1)
    before = state(engines)
    stepped(engines)  # before the fork: autograd's threads are the parent's
    child = os.fork()
    if child == 0:
        try:
            # The first file is written, the second one never.
            checkpoint_shard.write_flushed = lambda path, _: path.write_bytes(b"{") and time.sleep(60)
            Checkpoints(tmp_path, engines, ALONE, keep=1).begin(2)
            time.sleep(60)
        finally:
            os._exit(1)  # a child that raises would run the other tests once more
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob("*.tmp-*/rank_00000.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(list(tmp_path.glob("step_00000002.tmp-*/rank_00000.safetensors"))) == 1
    others = made(1)
    found = newest_state(tmp_path, others, ALONE)
    assert found is not None and found[0].name == "step_00000001"
    found[1].load(others)
    assert equal(state(others), before)
    save_checkpoint(tmp_path, 2, others, ALONE, keep=2)
    assert not list(tmp_path.glob("*.tmp-*"))


def test_bits_are_compared_and_not_numbers() -> None:
    nan = torch.tensor([float("nan"), 0.0])
    assert checkpoint_shard.same_bits(nan, nan.clone())
    assert not checkpoint_shard.same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert not checkpoint_shard.same_bits(torch.tensor([0.0]), torch.tensor([0]))
    assert checkpoint_shard.same_bits(torch.zeros(0), torch.zeros(0))


def test_what_a_killed_save_left_is_ignored_and_cleared_away_by_the_next(tmp_path: Path) -> None:
    engines = saved(tmp_path, 1)
    shutil.copytree(tmp_path / "step_00000001", tmp_path / "step_00000002.tmp-0badcafe")
    (tmp_path / "latest.tmp-31550").write_text("step_000")
    assert newest_checkpoint(tmp_path, ALONE) == tmp_path / "step_00000001"
    save_checkpoint(tmp_path, 3, engines, ALONE, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step_00000001", "step_00000003"]


def test_rotation_keeps_the_newest_and_deletes_only_after_the_new_one_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = saved(tmp_path, 1, 2, 3, 4, keep=2)
    assert sorted(path.name for path in tmp_path.glob("step_*")) == ["step_00000003", "step_00000004"]
    monkeypatch.setattr(checkpoint_shard, "holds", lambda *_: False)
    with pytest.raises(ValueError, match="returned other bytes than were written"):
        save_checkpoint(tmp_path, 5, engines, ALONE, keep=1)
    assert {"step_00000003", "step_00000004"} <= {path.name for path in tmp_path.glob("step_*")}


def test_too_little_disk_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = saved(tmp_path, 1)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**30, 2**30 - 1000, 1000))
    with pytest.raises(ValueError, match="too little disk space: a checkpoint needs 1 MB, .* 0 MB free"):
        save_checkpoint(tmp_path, 2, engines, ALONE, keep=1)
    with pytest.raises(ValueError, match="needs 1045 MB"):
        require_space(tmp_path, 2**30, ALONE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step_00000001"]


def test_a_checkpoint_of_other_parameters_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    other: dict[str, Engine] = {"net": PlainEngine("net", nn.Linear(3, 4), CONFIG, ALONE)}
    with pytest.raises(ValueError, match=r"4 parameters of net differ: bias None there, \[4\] here"):
        read_checkpoint(tmp_path / "step_00000001", other, ALONE)
    renamed: dict[str, Engine] = {"model": made(0)["net"]}
    with pytest.raises(ValueError, match=r"it holds \['net'\], but this run trains 'model'"):
        read_checkpoint(tmp_path / "step_00000001", renamed, ALONE)


def test_exported_weights_load_into_the_module_with_tied_frozen_and_buffers(tmp_path: Path) -> None:
    engines = saved(tmp_path, 1)
    exported = exported_weights(tmp_path / "step_00000001", "net", engines["net"])
    fresh = Net()
    fresh.load_state_dict(exported)
    assert torch.equal(exported["tied.weight"], exported["inner.weight"])
    assert torch.equal(exported["codes"], engines["net"].module.codes)  # type: ignore[arg-type]
    average = next(f for f in engines["net"].fragments() if f.name == "inner.weight").slots["average"]
    assert torch.equal(exported["inner.weight"].flatten(), average)


def test_pieces_of_other_ranks_are_put_together_at_any_cut(tmp_path: Path) -> None:
    """Three ranks' fragments of one parameter, with a cut at uneven places, load as one."""
    whole = torch.arange(12.0)
    folder = tmp_path / "step_00000001"
    folder.mkdir()
    for rank, (start, end) in enumerate([(0, 5), (5, 6), (6, 12)]):
        values = {"modules": {"net": {"fragments": {"w": [start, end - start]}}}}
        tensors = {"net/weight/w": whole[start:end].clone()}
        checkpoint_shard.write_shard(folder, rank, json.dumps(values).encode(), tensors)
    reader = checkpoint_reader._Reader(folder, checkpoint_reader._read_ranks(folder), "net")
    for offset in range(12):
        for count in range(1, 13 - offset):
            assert torch.equal(reader.piece("weight", "w", offset, count), whole[offset : offset + count])
    with pytest.raises(ValueError, match="incomplete; it has no element 12"):
        reader.piece("weight", "w", 10, 3)
