"""The GPU day's runner: a step that crashes or hangs ends nothing, and what is red is red everywhere."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks/gpu_day.py"
_spec = importlib.util.spec_from_file_location("gpu_day", SCRIPT)
assert _spec is not None and _spec.loader is not None
gpu_day = sys.modules["gpu_day"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(gpu_day)

ROW = "import json, sys; rows = open(sys.argv[sys.argv.index('--rows') + 1], 'a', buffering=1)\n"
PLANTED = {
    "crashes": ROW + "rows.write(json.dumps({'name': 'a'}) + '\\n'); raise ValueError('no such card')",
    "hangs": ROW
    + "rows.write(json.dumps({'name': 'b', 'gate': True}) + '\\n'); rows.write('{\"na'); rows.flush()\n"
    + "import subprocess, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(90)'])\n"
    + "time.sleep(90)",
    "red": ROW + "rows.write(json.dumps({'name': 'c', 'gate': False, 'ms': 2.5}) + '\\n')",
    "skips": ROW + "rows.write(json.dumps({'name': 'd', 'skipped': 'no sanitizer'}) + '\\n')",
    "measures": ROW + "rows.write(json.dumps({'name': 'e', 'card': 'a | card', 'gate': True}) + '\\n')",
    "measures nothing": "",
}


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """Steps whose scripts are PLANTED, in a folder in place of benchmarks/."""
    (tmp_path / "gpu").mkdir()
    for name, text in PLANTED.items():
        (tmp_path / "gpu" / f"{name}.py").write_text(text)
    monkeypatch.setattr(gpu_day, "HERE", tmp_path)
    return [gpu_day.Step(name, (f"{name}.py",), 3.0 if name == "hangs" else 60.0) for name in PLANTED]


def test_every_step_survives_the_failure_of_the_one_before_and_a_red_gate_stays_red(tmp_path, planted):
    out = tmp_path / "out"
    assert gpu_day.main(["--out", str(out)], planted) == 1
    steps = {step["name"]: step for step in json.loads((out / "gpu_day.json").read_text())["steps"]}
    states = {name: (step["state"], step["reason"]) for name, step in steps.items()}
    assert states == {
        "crashes": ("failed", "status 1: ValueError: no such card"),
        "hangs": ("failed", "stopped at its limit of 3 s"),
        "red": ("red", "c"),
        "skips": ("skipped", "no sanitizer"),
        "measures": ("ok", ""),
        "measures nothing": ("failed", "it measured nothing"),
    }
    assert steps["hangs"]["rows"] == [{"name": "b", "gate": True}]
    assert steps["crashes"]["rows"] == [{"name": "a"}] and "Traceback" in steps["crashes"]["output"]
    suites = xml.parse(out / "junit.xml").getroot()
    found = {s.get("name"): [s.get(k) for k in ("tests", "failures", "errors", "skipped")] for s in suites}
    assert found["red"] == ["2", "1", "0", "0"] and found["crashes"] == ["1", "0", "1", "0"]
    assert found["skips"] == ["1", "0", "0", "1"] and found["hangs"] == ["2", "0", "1", "0"]
    table = (out / "gpu_day.md").read_text()
    assert table.startswith("## GPU day: a | card\n") and "| c | NO | 2.5 |" in table
    assert sorted(path.name for path in out.iterdir()) == [
        "gpu_day.json", "gpu_day.log", "gpu_day.md", "junit.xml",
    ]  # fmt: skip


def test_steps_that_are_not_repeated_keep_their_results(tmp_path, planted):
    out = tmp_path / "out"
    assert gpu_day.main(["--out", str(out), "--steps", "red"], planted) == 1
    assert gpu_day.main(["--out", str(out), "--steps", "measures"], planted) == 1
    names = [step["name"] for step in json.loads((out / "gpu_day.json").read_text())["steps"]]
    assert names == ["red", "measures"]
    (tmp_path / "gpu/red.py").write_text(PLANTED["measures"])
    assert gpu_day.main(["--out", str(out), "--steps", "red"], planted) == 0


def test_the_table_goes_into_the_page_once_for_each_card(tmp_path, planted):
    out, page = tmp_path / "out", tmp_path / "MEASURED.md"
    page.write_text("# Measured\n\n## First\n\ntext\n")
    gpu_day.main(["--out", str(out), "--steps", "measures"], planted)
    for _ in range(2):
        assert gpu_day.main(["--out", str(out), "--enter", "--page", str(page)], planted) == 0
        page.write_text(page.read_text().rstrip("\n") + "\n\n## Last\n")
    text = page.read_text()
    assert text.count("## GPU day: a | card") == 1 and text.startswith(
        "# Measured\n\n## First\n\ntext\n\n## GPU"
    )
    assert text.endswith("## Last\n\n## Last\n")


def test_an_unknown_step_and_a_folder_without_results_are_refused(tmp_path, planted, capsys):
    for arguments, message in (["--steps", "sleep"], "'sleep' is none"), (["--enter"], "expected a folder"):
        with pytest.raises(SystemExit):
            gpu_day.main(["--out", str(tmp_path), *arguments], planted)
        assert message.replace("'", "") in capsys.readouterr().err.replace("'", "")


def test_the_day_takes_at_most_25_minutes_and_every_script_exists():
    assert sum(step.seconds for step in gpu_day.STEPS) <= 25 * 60
    assert all((SCRIPT.parent / "gpu" / step.script[0]).is_file() for step in gpu_day.STEPS)


# What the GPU machines lack (benchmarks/gpu/bare.py), and what only `csm prepare`, `evaluate` and tests need.
ABSENT = (
    "deepspeed",
    "gruut",
    "soundfile",
    "beartype",
    "jaxtyping",
    "num2words",
    "tqdm",
    "soxr",
    "safetensors",
)
WITHOUT = f"""
from importlib.machinery import PathFinder

found = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] in {ABSENT!r} else found(name, *rest)
"""


def test_a_training_step_runs_where_torch_is_all_there_is(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    call = [sys.executable, str(SCRIPT), "--out", str(tmp_path / "out"), "--steps", "training"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(call, env=environment, capture_output=True, text=True)
    log = (tmp_path / "out/gpu_day.log").read_text()
    assert done.returncode == 0, done.stdout + log
    steps = json.loads((tmp_path / "out/gpu_day.json").read_text())["steps"]
    assert [(step["state"], step["reason"]) for step in steps] == [("skipped", "no CUDA device")]
    gates = [row["name"] for step in steps for row in step["rows"] if row.get("gate")]
    assert gates == ["two runs have equal losses, 32 x 2"]


def test_a_missing_package_can_be_imported_and_its_use_names_it(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    program = f"""
import sys

sys.path.insert(0, {str(SCRIPT.parent / "gpu")!r})
from bare import replace_missing_packages

missing = replace_missing_packages()
from jaxtyping import Float
import soundfile, safetensors.torch
import torch

def norm(x: Float[torch.Tensor, "A B"] | None) -> None: ...

class Own(soundfile.SoundFile): ...

print(*missing)
try:
    soundfile.read("a.wav")
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    named, error = done.stdout.splitlines()
    assert {"jaxtyping", "soundfile", "safetensors", "num2words"} <= {*named.split()}
    assert error == "soundfile.read was called, and the package soundfile is missing"


def load(name: str):
    """Imports a file of benchmarks/gpu, which are no package."""
    sys.path.insert(0, str(SCRIPT.parent / "gpu"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def test_the_page_of_predictions_holds_what_its_script_computes(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent / "gpu"))  # it imports its neighbours when it computes
    predictions = load("predictions")
    page = predictions.PAGE.read_text(encoding="utf-8")
    assert predictions.filled(page, predictions.TABLES) == page, "run benchmarks/gpu/predictions.py"
    written = json.loads(predictions.PREDICTED.read_text())
    assert written == {row.name: float(f"{row.ms:.3g}") for row in predictions.predictions()}


def test_every_step_of_the_day_stands_on_the_page_with_its_limit():
    page = (ROOT / "docs/GPU.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| ")]
    limits = {name.strip(): limit.strip() for names, limit in rows for name in names.split(",")}
    for step in gpu_day.STEPS:
        assert limits[step.name].split()[0] == f"{step.seconds:.0f}", step.name


def test_loops_are_counted_without_the_loops_inside_them():
    sass = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/                   LDS.128 R4, [R2] ;
.L_x_0:
        /*0020*/                   FFMA R0, R1, R2, R3 ;
        /*0030*/                   MUFU.EX2 R0, R1 ;
        /*0040*/               @P0 BRA `(.L_x_0) ;
        /*0050*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0060*/              @!P1 BRA `(.L_x_1) ;
        /*0070*/                   EXIT ;
.L_x_2:
        /*0080*/                   BRA `(.L_x_2);
"""
    outer, inner = load("compiled_loops").loops_of(sass)
    assert outer == dict(depth=1, instructions=3, fused=0, matrix=0, shared=1, special=0, barriers=1)
    assert inner == dict(depth=2, instructions=3, fused=1, matrix=0, shared=0, special=1, barriers=0)
