"""The training loop, on one rank in this process and on two ranks started by every launcher.

Run as a script (`test_loop.py SCENARIO FOLDER`) this file is the training program of the multi-process tests.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from csm.system.log import configure_log
from csm.training import engine as engine_file
from csm.training.distributed import DistributedContext
from csm.training.loop import NonFiniteError, clip, train
from csm.training.options import TrainingConfig
from csm.training.samples import Clips

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {
    "steps": 12,
    "learning_rate": 0.01,
    "warmup_steps": 2,
    "clip": 0.2,
    "ema_decay": 0.9,
    "log_every": 1,
}
CONFIG |= {"checkpoint_every": 4, "validate_every": 6, "keep_checkpoints": 3, "weight_decay": 0.1}


@dataclass
class Output:
    """A forward output that DeepSpeed's own hooks cannot look into."""

    y: Tensor


class Net(nn.Module):
    """A module with dropout, a norm, a parameter the loss never reaches, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(8, 33), nn.GELU(), nn.Dropout(0.1), nn.LayerNorm(33), nn.Linear(33, 8)
        )
        self.unused = nn.Linear(3, 3)
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: Tensor) -> Output:
        return Output(self.layers(x))


class TinyTask:
    """A net, and a discriminator that is updated every second step and is a fixed function for the net."""

    def __init__(self, *, slow_after: int = 10**9, nan_at: int = 0, signal_at: int = 0) -> None:
        torch.manual_seed(0)
        discriminator = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 1))
        self.modules: dict[str, nn.Module] = {"net": Net(), "discriminator": discriminator}
        self.learning_rate_scales = {"discriminator": 0.5}
        self.headline, self.watched = ("net/loss", "net/square", "discriminator/loss"), "net/square"
        self.slow_after, self.nan_at, self.signal_at = slow_after, nan_at, signal_at

    def batch(self, step: int, micro_batch: int) -> dict[str, object]:
        generator = torch.Generator().manual_seed(1000 * step + micro_batch)
        x = torch.randn(4, 8, generator=generator)
        if step == self.nan_at and micro_batch == 1:
            x[0, 0] = float("nan")
        return {"x": x, "ids": [f"turn_{step}_{micro_batch}"]}

    def batch_ids(self, batch: dict[str, object]) -> list[str]:
        return list(batch["ids"])  # type: ignore[call-overload]

    def frames(self, batch: dict[str, object]) -> Tensor:
        return torch.tensor(4)

    def loss(self, name: str, module: nn.Module, batch: dict[str, Tensor], step: int):
        if step > self.slow_after:
            time.sleep(0.05)
        last_rank = int(os.environ.get("RANK", 0)) == int(os.environ.get("WORLD_SIZE", 1)) - 1
        if step == self.signal_at and last_rank:
            self.signal_at = 0  # a second signal would end the process at once
            os.kill(os.getpid(), signal.SIGTERM)
        if name == "net":
            y = module(batch["x"]).y
            square = ((y - batch["x"].flip(1)) ** 2).mean()
            return square - 0.01 * self.modules["discriminator"](y).mean(), {"square": square}
        if step % 2:
            return None
        with torch.no_grad():
            y = self.modules["net"](batch["x"]).y
        return torch.tanh(module(y).mean() - module(batch["x"]).mean()), {}

    def after_step(self, step: int) -> dict[str, Tensor]:
        mean = self.modules["net"].mean
        assert isinstance(mean, Tensor)
        mean.add_(torch.full((8,), float(step)))
        return {"buffer": mean.mean()}

    def validate(self, step: int) -> dict[str, float]:
        assert not self.modules["net"].training
        with torch.no_grad():
            return {"net/square": float(self.modules["net"](torch.ones(2, 8)).y.square().mean())}


def config(**changes: object) -> TrainingConfig:
    return TrainingConfig(**{**CONFIG, **changes})  # type: ignore[arg-type]


def run(folder: Path, task: TinyTask | None = None, **changes: object) -> Path:
    return train(
        task or TinyTask(), config(**changes), folder, run_description={"name": "tiny"}, device="cpu"
    )


def lines(folder: Path, split: str = "train") -> list[dict[str, float]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["split"] == split]


def weights(folder: Path) -> dict[str, Tensor]:
    return {
        f"{n}.{k}": v
        for n in ("net", "discriminator")
        for k, v in load_file(folder / f"weights_{n}.safetensors").items()
    }


def assert_same_run(first: Path, second: Path) -> None:
    """Losses of every step and the final weights are equal bit for bit."""
    assert (first / "metrics.jsonl").read_bytes() == (second / "metrics.jsonl").read_bytes()
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def assert_close_run(first: Path, second: Path, tolerance: float) -> None:
    ours, theirs = lines(first), lines(second)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs] == list(range(1, 13))
    for mine, other in zip(ours, theirs, strict=True):
        for key in ("net/square", "net/gradient_norm"):
            assert mine[key] == pytest.approx(other[key], rel=tolerance)


# One rank, this process, plain torch


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_file, "deepspeed_installed", lambda: False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of the plain engine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_file, "deepspeed_installed", lambda: False)
        return run(tmp_path_factory.mktemp("whole"))


def test_the_loss_falls_and_every_part_is_reported(whole: Path) -> None:
    train_lines = lines(whole)
    assert train_lines[-1]["net/square"] < train_lines[0]["net/square"]
    assert {"net/loss", "net/square", "net/gradient_norm", "buffer"} <= train_lines[0].keys()
    assert "discriminator/loss" in train_lines[1] and "discriminator/loss" not in train_lines[0]
    assert [line["step"] for line in lines(whole, "validation")] == [0, 6, 12]


def test_two_runs_are_equal_bit_for_bit(whole: Path, tmp_path: Path, plain: None) -> None:
    assert_same_run(whole, run(tmp_path / "again"))


def test_validation_and_samples_change_no_loss_and_no_weight(
    whole: Path, tmp_path: Path, plain: None
) -> None:
    class Noisy(TinyTask):
        """Draws random numbers while it validates and makes clips."""

        def validate(self, step: int) -> dict[str, float]:
            torch.rand(100)
            return super().validate(step)

        def originals(self) -> Clips:
            return {"a": (torch.zeros(1, 8), 8000)}

        def samples(self, step: int) -> Clips:
            return {"a": (torch.rand(1, 8), 8000)}

    often = run(tmp_path / "often", Noisy(), validate_every=1)
    quiet = run(tmp_path / "quiet", Noisy(), samples=False)
    assert lines(often) == lines(quiet) == lines(whole)
    assert all(torch.equal(weights(often)[key], value) for key, value in weights(whole).items())
    assert (often / "samples" / "step_00000000").is_dir() and not (quiet / "samples").exists()


def test_results_are_written_by_the_step_and_mark_the_run_as_complete(tmp_path: Path, plain: None) -> None:
    given: list[set[str]] = []

    def finish(weights: dict[str, dict[str, Tensor]]) -> list[Path]:
        given.append(set(weights))
        (tmp_path / "model").write_bytes(bytes(weights["net"]["mean"].numpy()))
        return [tmp_path / "model"]

    def again() -> Path:
        options = {"run_description": {}, "device": "cpu", "finish": finish, "inputs": {"corpus": "c"}}
        return train(TinyTask(), config(steps=2), tmp_path, **options)  # type: ignore[arg-type]

    again()
    assert given == [{"net", "discriminator"}] and not list(tmp_path.glob("weights_*"))
    assert json.loads((tmp_path / "run.json").read_text())["inputs"] == {"corpus": "c"}
    again()
    assert len(given) == 1
    (tmp_path / "model").unlink()
    again()
    assert len(given) == 2 and (tmp_path / "model").is_file()


def test_the_exported_weights_are_the_average_and_the_buffers_are_the_last(whole: Path) -> None:
    exported = weights(whole)
    assert torch.equal(exported["net.mean"], torch.full((8,), float(sum(range(1, 13)))))
    newest = load_file(whole / "checkpoints" / "step_00000012" / "rank_00000.safetensors")
    assert torch.equal(exported["net.layers.0.bias"], newest["net/average/layers.0.bias"])
    assert not torch.equal(exported["net.layers.0.bias"], newest["net/weight/layers.0.bias"])


def test_a_complete_run_is_recognised_and_left_alone(whole: Path, plain: None, capsys) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    assert run(whole) == whole
    assert "complete" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}


def test_a_finished_run_with_more_steps_trains_on_by_the_longer_schedule(
    tmp_path: Path, plain: None, capsys
) -> None:
    run(tmp_path, steps=6, log_every=1)
    first = weights(tmp_path)
    run(tmp_path, steps=12, log_every=1)
    assert "resuming after step 6" in capsys.readouterr().err
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 13))
    assert any(not torch.equal(first[key], value) for key, value in weights(tmp_path).items())
    complete = json.loads((tmp_path / "complete.json").read_text())
    assert complete["step"] == 12


def test_a_run_in_a_folder_that_was_moved_resumes_there(whole: Path, tmp_path: Path, plain: None) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path / "here", TinyTask(signal_at=6))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here").rename(tmp_path / "elsewhere" / "there")
    assert_same_run(whole, run(tmp_path / "elsewhere" / "there"))


def test_damaged_final_weights_are_exported_again(tmp_path: Path, plain: None) -> None:
    folder = run(tmp_path, steps=2, log_every=2)
    path = folder / "weights_net.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    run(tmp_path, steps=2, log_every=2)
    assert path.read_bytes() == good


def test_a_folder_of_another_run_is_refused_and_the_differing_fields_are_named(
    whole: Path, plain: None
) -> None:
    with pytest.raises(ValueError, match=r"training.learning_rate: 0.01 there, 0.02 here"):
        run(whole, learning_rate=0.02)
    with pytest.raises(ValueError, match=r"config.name: tiny there, other here"):
        train(TinyTask(), config(), whole, run_description={"name": "other"}, device="cpu")


def test_a_termination_signal_saves_and_exits_with_status_0_and_the_resumed_run_is_equal(
    whole: Path, tmp_path: Path, plain: None, capsys
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, TinyTask(signal_at=6))
    assert stopped.value.code == 0
    assert "stopped after step 6 by SIGTERM; the same command resumes" in capsys.readouterr().err
    run(tmp_path)
    assert "resuming after step 6" in capsys.readouterr().err
    assert_same_run(whole, tmp_path)


def test_an_open_metrics_window_survives_a_stop(tmp_path: Path, plain: None) -> None:
    run(tmp_path / "whole", log_every=5)
    with pytest.raises(SystemExit):
        run(tmp_path / "stopped", TinyTask(signal_at=7), log_every=5)
    run(tmp_path / "stopped", log_every=5)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_resume_drops_the_metrics_after_its_checkpoint(whole: Path, tmp_path: Path, plain: None) -> None:
    class Crash(TinyTask):
        def after_step(self, step: int) -> dict[str, Tensor]:
            if step == 7:
                raise RuntimeError("power cut")
            return super().after_step(step)

    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path, Crash())
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5, 6]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "spl')
    run(tmp_path)
    assert_same_run(whole, tmp_path)


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_its_batches(
    tmp_path: Path, plain: None
) -> None:
    with pytest.raises(NonFiniteError, match=r"step 3: the loss of net .*turn_3_1"):
        run(tmp_path, TinyTask(nan_at=3))
    assert json.loads((tmp_path / "nonfinite.json").read_text())["batch_ids"] == {"1": ["turn_3_1"]}
    assert not list((tmp_path / "checkpoints").glob("step_*"))


def test_a_gradient_that_is_not_finite_names_all_batches_of_the_step(tmp_path: Path, plain: None) -> None:
    class Steep(TinyTask):
        def loss(self, name: str, module: nn.Module, batch: dict[str, Tensor], step: int):
            y = module(batch["x"])
            # The square root has an infinite slope at 0 and the loss itself is finite.
            return (y if name == "discriminator" else y.y).sub(
                y if name == "discriminator" else y.y
            ).sqrt().mean(), {}

    with pytest.raises(NonFiniteError, match=r"the gradient of net .*turn_1_0.*turn_1_1"):
        run(tmp_path, Steep())


def test_the_norm_of_the_clipped_gradient_is_the_limit() -> None:
    gradients = [torch.full((3,), 2.0), torch.full((4, 1), -1.0)]
    clip(gradients, 4.0, 1.0)
    assert torch.cat([g.flatten() for g in gradients]).norm().item() == pytest.approx(1.0)
    clip(gradients, 1.0, 0.0)
    assert torch.cat([g.flatten() for g in gradients]).norm().item() == pytest.approx(1.0)


def test_shards_that_the_ranks_cannot_share_are_refused() -> None:
    distributed = DistributedContext(rank=0, size=3, local_size=3, device=torch.device("cpu"))
    with pytest.raises(ValueError, match="micro_batches is 2: expected a multiple of the 3 ranks"):
        engine_file.build_engines(TinyTask().modules, config(), distributed)


# Two ranks, started by every launcher


def environment(**more: str) -> dict[str, str]:
    kept = {
        k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "DS_ACCELERATOR")
    }
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    return {**kept, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **more}


def free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def start(command: list[str], **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def start_ranks(scenario: str, folder: Path) -> list[subprocess.Popen[str]]:
    command = [sys.executable, __file__, scenario, str(folder)]
    common = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
    }
    return [start(command, RANK=str(rank), LOCAL_RANK=str(rank), **common) for rank in range(2)]


def finished(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=150)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def torchrun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of everything that two ranks of torchrun train in one launch."""
    pytest.importorskip("deepspeed")
    folder = tmp_path_factory.mktemp("torchrun")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    process = start([*launcher, "--master_port", free_port(), __file__, "everything", str(folder)])
    (folder / "output.txt").write_text(finished(process))
    return folder


def test_zero_stages_0_to_3_are_equal_bit_for_bit(torchrun: Path) -> None:
    for stage in (0, 1, 3):
        assert_same_run_but_for_config(torchrun / f"zero{stage}", torchrun / "zero2")


def assert_same_run_but_for_config(first: Path, second: Path) -> None:
    assert_same_run(first, second)
    assert (first / "run.json").read_text() != (second / "run.json").read_text()


def test_the_deepspeed_launcher_gives_the_same_run_as_torchrun(torchrun: Path, tmp_path: Path) -> None:
    launcher = Path(sys.executable).with_name("deepspeed")
    if not launcher.exists():
        pytest.skip("the launcher of deepspeed is not installed beside this python")
    command = [sys.executable, str(launcher), "--num_accelerators", "2", "--master_port", free_port()]
    finished(start([*command, __file__, "zero2", str(tmp_path)]))
    assert_same_run(torchrun / "zero2", tmp_path / "zero2")


def test_one_rank_of_plain_python_equals_two_ranks_to_rounding(
    torchrun: Path, whole: Path, tmp_path: Path
) -> None:
    finished(start([sys.executable, __file__, "zero2", str(tmp_path)]))
    assert_close_run(tmp_path / "zero2", torchrun / "zero2", 1e-4)
    assert_close_run(tmp_path / "zero2", whole, 1e-4)


def test_bfloat16_keeps_fp32_weights_and_moments_and_comes_near_fp32(torchrun: Path) -> None:
    assert_close_run(torchrun / "bf16", torchrun / "zero2", 0.1)
    assert (torchrun / "bf16" / "metrics.jsonl").read_bytes() != (
        torchrun / "zero2" / "metrics.jsonl"
    ).read_bytes()
    for path in (torchrun / "bf16" / "checkpoints").rglob("*.safetensors"):
        stored = {k: v for k, v in load_file(path).items() if not k.startswith(("random/", "extra/"))}
        assert {tensor.dtype for tensor in stored.values()} == {torch.float32}


def test_a_loss_that_is_not_finite_on_one_rank_stops_both_before_the_update(torchrun: Path) -> None:
    for rank in range(2):
        message = (torchrun / f"nonfinite_{rank}.txt").read_text()
        assert "step 3: the loss of net is not finite" in message and "turn_3_1" in message
    assert not list((torchrun / "nonfinite" / "checkpoints").glob("step_*"))


def test_a_signal_to_one_rank_stops_all_after_the_same_step(torchrun: Path) -> None:
    assert_same_run(torchrun / "zero2", torchrun / "signal")
    assert [s["after_step"] for s in json.loads((torchrun / "signal/run.json").read_text())["sessions"]] == [
        0,
        6,
    ]


def test_a_write_that_fails_on_one_rank_fails_on_all_and_leaves_nothing(torchrun: Path) -> None:
    assert "No space left on device" in (torchrun / "diskfull_1.txt").read_text()
    assert "another rank" in (torchrun / "diskfull_0.txt").read_text()
    assert sorted(path.name for path in (torchrun / "diskfull" / "checkpoints").iterdir()) == [
        "latest",
        "step_00000004",
    ]


def test_a_checkpoint_of_two_zero_2_ranks_resumes_under_zero_3_and_on_one_rank(
    torchrun: Path, tmp_path: Path
) -> None:
    """The plain engine, one rank, resumes from step 4 of two ranks; ZeRO-3 does so inside the launch."""
    assert_same_run(torchrun / "zero2", torchrun / "zero2to3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_file, "deepspeed_installed", lambda: False)
        copied = tmp_path / "copied"
        copy_first_checkpoint(torchrun / "zero2", copied, zero_stage=2)
        run(copied)
    assert_close_run(copied, torchrun / "zero2", 1e-4)


def test_stdout_stays_readable(torchrun: Path) -> None:
    # ZeRO-3 rightly warns that it cannot look into the net's dataclass; that line is for the user.
    text = (torchrun / "output.txt").read_text().splitlines()
    shown = [line for line in text if "A module has unknown inputs or outputs type" not in line]
    assert all(re.search(r": step \d+ of 12, |resum|nothing to do", line) for line in shown), shown
    reports = [line for line in shown if line.startswith("zero2: step 12 of 12, ")]
    assert len(reports) == 1 and " (" in reports[0] and " at step 0)" in reports[0]


def test_killed_half_way_with_its_newest_checkpoint_damaged_a_run_still_ends_with_the_same_weights(
    torchrun: Path, tmp_path: Path
) -> None:
    ranks = start_ranks("slow", tmp_path)
    newest = tmp_path / "zero2" / "checkpoints" / "step_00000008"
    deadline = time.monotonic() + 120
    while not newest.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in ranks:
        process.send_signal(signal.SIGKILL)
    for process in ranks:
        process.communicate()
    assert newest.exists() and not (tmp_path / "zero2" / "complete.json").exists()
    part = newest / "rank_00001.safetensors"
    data = bytearray(part.read_bytes())
    data[-3] ^= 4
    part.write_bytes(bytes(data))
    for stale in newest.parent.glob("step_00000012"):
        stale.rename(stale.with_name("step_00000012.tmp-killed"))
    outputs = [finished(process) for process in start_ranks("zero2", tmp_path)]
    assert "step_00000008 is skipped: rank_00001.safetensors has another SHA-256" in "".join(outputs)
    assert "resuming after step 4" in outputs[0]
    assert_same_run(torchrun / "zero2", tmp_path / "zero2")
    assert not list(newest.parent.glob("*.tmp-*"))


def copy_first_checkpoint(source: Path, target: Path, *, zero_stage: int) -> None:
    """Make a folder of a run that stopped after step 4, as if it had been trained with `zero_stage`."""
    shutil.copytree(source / "checkpoints" / "step_00000004", target / "checkpoints" / "step_00000004")
    record = json.loads((source / "run.json").read_text())
    record["training"]["zero_stage"] = zero_stage
    (target / "run.json").write_text(json.dumps(record))
    kept = (source / "metrics.jsonl").read_text().splitlines(keepends=True)[:5]
    (target / "metrics.jsonl").write_text("".join(kept))


def main(scenario: str, folder: Path) -> None:
    """Train what a multi-process test asks for; two modules, so two engines in one process."""
    if scenario in ("zero2", "slow"):
        run(folder / "zero2", TinyTask(slow_after=8) if scenario == "slow" else None)
        return
    rank = int(os.environ["RANK"])
    for stage in range(4):
        run(folder / f"zero{stage}", zero_stage=stage)
    run(folder / "bf16", precision="bf16")
    try:
        run(folder / "nonfinite", TinyTask(nan_at=3))
    except NonFiniteError as error:
        (folder / f"nonfinite_{rank}.txt").write_text(str(error))
    try:
        run(folder / "signal", TinyTask(signal_at=6))
    except SystemExit as stop:
        assert stop.code == 0
    run(folder / "signal")
    if rank == 0:
        copy_first_checkpoint(folder / "zero2", folder / "zero2to3", zero_stage=3)
    torch.distributed.barrier()
    run(folder / "zero2to3", zero_stage=3)
    try:
        run(folder / "diskfull", DiskFull())
    except ValueError as error:
        (folder / f"diskfull_{rank}.txt").write_text(str(error))


class DiskFull(TinyTask):
    """After step 4 the last rank's disk takes no more."""

    def after_step(self, step: int) -> dict[str, Tensor]:
        from csm.training import checkpoint_shard

        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        if step > 4 and os.environ["RANK"] == "1":
            checkpoint_shard.write_shard = fail  # type: ignore[assignment]
        return super().after_step(step)


if __name__ == "__main__":
    configure_log()
    scenario, folder = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    main(scenario, Path(folder))
