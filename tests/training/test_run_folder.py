"""A folder belongs to one run and to one writer."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from csm.training.distributed import DistributedContext
from csm.training.options import TrainingConfig
from csm.training.run_folder import (
    StopRequest,
    is_complete,
    only_writer,
    require_same_run,
    require_writable,
    write_complete,
    write_run,
)

ALONE = DistributedContext(rank=0, size=1, local_size=1, device=torch.device("cpu"))
CONFIG = TrainingConfig(seed=5)


def test_run_json_tells_what_ran_where_and_how_often(tmp_path: Path) -> None:
    write_run(tmp_path, {"model": {"width": (1, 2)}}, CONFIG, ALONE, 0, {"codes": "c"})
    write_run(tmp_path, {"model": {"width": (1, 2)}}, CONFIG, ALONE, 7, {"codes": "c"})
    stored = json.loads((tmp_path / "run.json").read_text())
    assert stored["config"] == {"model": {"width": [1, 2]}}
    assert stored["inputs"] == {"codes": "c"}
    assert stored["training"]["seed"] == stored["seed"] == 5
    assert [session["after_step"] for session in stored["sessions"]] == [0, 7]
    assert {"started", "command", "commit", "versions", "device", "ranks"} <= stored["sessions"][0].keys()
    assert stored["sessions"][0]["versions"]["torch"].startswith(torch.__version__.split("+")[0])


def test_the_same_run_is_accepted_and_another_one_is_refused_with_its_differences(tmp_path: Path) -> None:
    require_same_run(tmp_path, {"a": {"b": 1}}, CONFIG)
    write_run(tmp_path, {"a": {"b": 1}}, CONFIG, ALONE, 0, {"codes": "c"})
    require_same_run(tmp_path, {"a": {"b": 1}}, CONFIG)
    with pytest.raises(ValueError) as error:
        require_same_run(tmp_path, {"a": {"b": 2, "c": 3}}, TrainingConfig(seed=6))
    for part in (
        "config.a.b: 1 there, 2 here",
        "config.a.c: nothing there, 3 here",
        "training.seed: 5 there",
    ):
        assert part in str(error.value)


def test_results_without_a_run_json_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(ValueError, match="metrics.jsonl but no run.json"):
        require_same_run(tmp_path, {}, CONFIG)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="not readable"):
        require_same_run(tmp_path, {}, CONFIG)


def test_a_run_is_complete_only_with_the_weights_it_wrote(tmp_path: Path) -> None:
    weights = tmp_path / "adapter" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"abc")
    assert not is_complete(tmp_path, 10)
    write_complete(tmp_path, 10, [weights])
    assert is_complete(tmp_path, 10)
    assert not is_complete(tmp_path, 11)
    weights.write_bytes(b"abd")
    assert not is_complete(tmp_path, 10)


@pytest.mark.parametrize("text", ["", "[]", "3", '{"files": 1}', "[" * 100_000, '{"step": 10}'])
def test_a_damaged_complete_json_is_no_completion(tmp_path: Path, text: str) -> None:
    (tmp_path / "complete.json").write_text(text)
    assert not is_complete(tmp_path, 10)


def test_other_data_is_refused_and_what_changed_is_named(tmp_path: Path) -> None:
    materials = {"corpus/manifest.jsonl": "a", "codes/codes_0000.safetensors": "b", "codes/gone": "c"}
    write_run(tmp_path, {}, CONFIG, ALONE, 5, {}, materials)
    require_same_run(tmp_path, {}, CONFIG, materials)
    other = {"corpus/manifest.jsonl": "x", "codes/codes_0000.safetensors": "b", "codes/new": "d"}
    with pytest.raises(ValueError, match="on other data: codes/gone, codes/new, corpus/manifest"):
        require_same_run(tmp_path, {}, CONFIG, other)


def test_a_corpus_of_the_same_content_may_lie_elsewhere(tmp_path: Path) -> None:
    here, there = {"run": {"corpus": "here"}}, {"run": {"corpus": "there"}}
    write_run(tmp_path, here, CONFIG, ALONE, 5, {}, {"corpus/manifest.jsonl": "a"})
    require_same_run(tmp_path, there, CONFIG, {"corpus/manifest.jsonl": "a"})
    with pytest.raises(ValueError, match="config.run.corpus: here there, there here"):
        require_same_run(tmp_path, there, CONFIG, {"corpus/manifest.jsonl": "b"})
    with pytest.raises(ValueError, match="config.run.corpus"):
        require_same_run(tmp_path, there, CONFIG)


def test_a_start_of_the_same_weights_may_lie_elsewhere_and_another_one_is_refused(tmp_path: Path) -> None:
    here = {"run": {"model_start": "here", "teacher": "x"}}
    there = {"run": {"model_start": "there", "teacher": "x"}}
    write_run(tmp_path, here, CONFIG, ALONE, 5, {}, {"model_start/model.safetensors": "a"})
    require_same_run(tmp_path, there, CONFIG, {"model_start/model.safetensors": "a"})
    with pytest.raises(ValueError, match="config.run.model_start: here there, there here"):
        require_same_run(tmp_path, there, CONFIG, {"model_start/model.safetensors": "b"})
    with pytest.raises(ValueError, match="on other data: model_start/model.safetensors differ"):
        require_same_run(tmp_path, here, CONFIG, {"model_start/model.safetensors": "b"})
    other = {"run": {"model_start": "there", "teacher": "y"}}
    with pytest.raises(ValueError, match="config.run.teacher"):
        require_same_run(tmp_path, other, CONFIG, {"model_start/model.safetensors": "a"})


def test_more_steps_continue_a_run_and_fewer_than_were_done_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, {}, TrainingConfig(steps=100), ALONE, 0, {})
    (tmp_path / "checkpoints" / "step_00000080").mkdir(parents=True)
    for steps in (100, 101, 80):
        require_same_run(tmp_path, {}, TrainingConfig(steps=steps))
    with pytest.raises(ValueError, match="training.steps: 100 there, 79 here"):
        require_same_run(tmp_path, {}, TrainingConfig(steps=79))


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    with only_writer(tmp_path, ALONE):
        with pytest.raises(ValueError, match="another process is training into"):
            with only_writer(tmp_path, ALONE, patience=0.3):
                pass
    with only_writer(tmp_path, ALONE, patience=0.3):
        pass


def test_the_writer_removes_what_a_killed_one_left_half_written(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest.tmp-31550").touch()
    (tmp_path / "complete.json.tmp-31550").touch()
    with only_writer(tmp_path, ALONE):
        assert sorted(path.name for path in tmp_path.rglob("*")) == [".lock", "checkpoints"]


def test_a_stop_request_follows_a_signal_and_puts_the_handlers_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    interrupt = signal.getsignal(signal.SIGINT)  # a shell ignores it for what it starts in the background
    with StopRequest(ALONE) as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop and stop.reason == "SIGTERM"
        os.kill(os.getpid(), signal.SIGTERM)  # a launcher passes on what its ranks have already
        assert stop and stop.reason == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == before
    assert signal.getsignal(signal.SIGINT) == interrupt


def test_ranks_stop_when_their_launcher_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = StopRequest(DistributedContext(rank=0, size=2, local_size=2, device=torch.device("cpu")))
    assert not stop
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert stop and stop.reason == "the end of its launcher"


def test_a_folder_that_takes_no_files_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output in (tmp_path / "file" / "run", Path("/proc/csm"), Path("/sys/kernel/csm")):
        with pytest.raises(ValueError, match=r"output: .* cannot be written \(.*\); choose another folder"):
            require_writable(output)
    require_writable(tmp_path / "new" / "run")
    assert list((tmp_path / "new" / "run").iterdir()) == []
