"""The GPU day: every check that needs a GPU, in the order of its worth, within 25 minutes and offline.

    python benchmarks/gpu_day.py --out DIR             runs the steps; exit status 1 if a gate is red
    python benchmarks/gpu_day.py --out DIR --enter     puts DIR's table into docs/MEASURED.md

A step is one script of benchmarks/gpu/ in a process of its own with a time limit: neither a crash nor a hang
ends the day, and what a step measured before counts. It needs torch and csm_kernels alone; packages that are
missing are replaced (benchmarks/gpu/bare.py). Without a CUDA device the steps run a rehearsal at small sizes,
and what needs the device is skipped with the reason.

DIR then holds gpu_day.json (all rows, what each step printed last), junit.xml, gpu_day.md and gpu_day.log.
Steps that are not named by --steps keep their results of an earlier call with the same DIR.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as xml
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MEASURED = ROOT / "docs/MEASURED.md"
TAIL = 4000  # characters of a step's output that the JSON keeps


@dataclass(frozen=True)
class Step:
    """One step of the day.

    Attributes:
        name: The name for --steps.
        script: File in benchmarks/gpu/ and its arguments; it appends rows to the file named by --rows.
        seconds: Limit of its process.
    """

    name: str
    script: tuple[str, ...]
    seconds: float


STEPS = (
    Step("environment", ("environment.py",), 70),
    Step("compiled", ("compiled.py",), 130),
    Step("tests", ("kernel_tests.py",), 270),
    Step("memcheck", ("sanitizer.py", "memcheck"), 90),
    Step("racecheck", ("sanitizer.py", "racecheck"), 90),
    Step("kernels", ("kernel_times.py",), 300),
    Step("counters", ("counters.py",), 100),
    Step("training", ("training_steps.py",), 210),
    Step("compiled_step", ("compiled_training.py", "compiled"), 110),
    Step("generation", ("generation.py",), 130),
)


@dataclass
class Outcome:
    """What became of a step.

    Attributes:
        name: Of the step.
        state: "ok", "red" (a gate of a row failed), "failed" (status or time limit) or "skipped".
        reason: Of every state but "ok".
        seconds: Wall clock.
        rows: What it measured; a row has "name", and "gate" true or false where it is a gate.
        output: End of what it printed.
    """

    name: str
    state: str = "ok"
    reason: str = ""
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    output: str = ""


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Returns the whole lines of a file of rows; half a line, of a process that was stopped, is left out."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def run_step(step: Step, out: Path, seconds: float) -> Outcome:
    """Runs one step and whatever processes it starts, and stops all of them at the limit."""
    rows, log = out / f".{step.name}.rows", out / f".{step.name}.log"
    rows.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / "gpu" / step.script[0]), *step.script[1:], "--rows", str(rows)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "GPU_DAY_OUT": str(out)}
    start = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=ROOT, start_new_session=True
        )
        try:
            status: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end_group(process.pid)
            process.wait()
    outcome = Outcome(step.name, seconds=time.monotonic() - start, rows=rows_of(rows))
    outcome.output = log.read_text(errors="replace")
    verdict_of(outcome, status, seconds)
    rows.unlink(missing_ok=True)
    log.unlink()
    return outcome


def _end_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def verdict_of(outcome: Outcome, status: int | None, limit: float) -> None:
    """Sets state and reason of an outcome from the exit status (None: at the limit) and the rows' gates."""
    red = [row["name"] for row in outcome.rows if row.get("gate") is False]
    skipped = [row["skipped"] for row in outcome.rows if "skipped" in row]
    if status is None:
        outcome.state, outcome.reason = "failed", f"stopped at its limit of {limit:.0f} s"
    elif status != 0:
        last = next((line for line in reversed(outcome.output.splitlines()) if line.strip()), "")
        outcome.state, outcome.reason = "failed", f"status {status}: {last.strip()[:200]}"
    elif red:
        outcome.state, outcome.reason = "red", "; ".join(red)
    elif skipped:
        outcome.state, outcome.reason = "skipped", "; ".join(dict.fromkeys(skipped))
    elif not outcome.rows:
        outcome.state, outcome.reason = "failed", "it measured nothing"


def junit(outcomes: Sequence[Outcome]) -> str:
    """Returns one test suite for each step, one case for each gate and one for the step itself."""
    root = xml.Element("testsuites")
    for outcome in outcomes:
        gates = [row for row in outcome.rows if "gate" in row]
        red = sum(not row["gate"] for row in gates)
        suite = xml.SubElement(
            root,
            "testsuite",
            name=outcome.name,
            tests=str(1 + len(gates)),
            failures=str(red),
            errors=str(int(outcome.state == "failed")),
            skipped=str(int(outcome.state == "skipped")),
            time=f"{outcome.seconds:.1f}",
        )
        case = xml.SubElement(suite, "testcase", classname=outcome.name, name="the step ran")
        case.set("time", f"{outcome.seconds:.1f}")
        if outcome.state in ("failed", "skipped"):
            kind = "error" if outcome.state == "failed" else "skipped"
            xml.SubElement(case, kind, message=outcome.reason).text = _printable(outcome.output[-TAIL:])
        for row in gates:
            case = xml.SubElement(suite, "testcase", classname=outcome.name, name=str(row["name"]))
            if not row["gate"]:
                xml.SubElement(case, "failure", message=json.dumps(row))
    return xml.tostring(root, encoding="unicode") + "\n"


def _printable(text: str) -> str:
    return re.sub(r"[^\t\n\x20-\ud7ff]", "?", text)  # XML 1.0 has no control characters


def title(outcomes: Sequence[Outcome]) -> str:
    """Returns the heading of the table: the device's name."""
    cards = [row["card"] for outcome in outcomes for row in outcome.rows if "card" in row]
    return f"## GPU day: {cards[0] if cards else 'no environment'}"


def markdown(outcomes: Sequence[Outcome]) -> str:
    """Returns the table of the day: a line per step, then a table per step of what it measured."""
    lines = [title(outcomes), "", "`python benchmarks/gpu_day.py --out DIR`", ""]
    lines += ["| step | state | s | reason |", "|---|---|---|---|"]
    lines += [f"| {o.name} | {o.state} | {o.seconds:.0f} | {_cell(o.reason)} |" for o in outcomes]
    for outcome in outcomes:
        rows = [row for row in outcome.rows if "skipped" not in row]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        if rows:
            lines += [
                "",
                f"### {outcome.name}",
                "",
                f"| {' | '.join(columns)} |",
                "|" + "---|" * len(columns),
            ]
            lines += [f"| {' | '.join(_cell(row.get(c, '')) for c in columns)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(str("" if value is None else value).replace("|", "/").split())


def entered(page: str, section: str) -> str:
    """Returns a page in which the section of this heading is the given one, at its end where it is new."""
    heading = section.split("\n", 1)[0]
    parts = re.split(r"(?m)^(?=## )", page)
    found = [index for index, part in enumerate(parts) if part.split("\n", 1)[0] == heading]
    if not found:
        return page.rstrip("\n") + "\n\n" + section
    last = found[0] == len(parts) - 1
    parts[found[0]] = section if last else section + "\n"
    return "".join(parts)


def write(path: Path, text: str) -> None:
    """Writes a file that appears whole."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def report(out: Path, outcomes: Sequence[Outcome]) -> None:
    """Writes the JSON, the junit file, the table and the log of what has been done so far."""
    for_json = [{**asdict(outcome), "output": outcome.output[-TAIL:]} for outcome in outcomes]
    write(out / "gpu_day.json", json.dumps({"steps": for_json}, indent=1) + "\n")
    write(out / "junit.xml", junit(outcomes))
    write(out / "gpu_day.md", markdown(outcomes))
    write(out / "gpu_day.log", "".join(f"==== {o.name}: {o.state}\n{o.output}\n" for o in outcomes))


def earlier(out: Path) -> dict[str, Outcome]:
    """Returns the outcomes that a folder holds, by step."""
    path = out / "gpu_day.json"
    steps = json.loads(path.read_text())["steps"] if path.is_file() else []
    return {step["name"]: Outcome(**step) for step in steps}


def run_day(out: Path, steps: Sequence[Step], chosen: Sequence[str], scale: float) -> list[Outcome]:
    """Runs the chosen steps in order, writing the report after each; returns all outcomes in order."""
    out.mkdir(parents=True, exist_ok=True)
    known = earlier(out)
    for step in steps:
        if step.name in chosen:
            print(f"{step.name} ...", flush=True)
            known[step.name] = outcome = run_step(step, out, scale * step.seconds)
            print(f"{step.name}: {outcome.state} in {outcome.seconds:.0f} s {outcome.reason}", flush=True)
            report(out, [known[s.name] for s in steps if s.name in known])
    return [known[step.name] for step in steps if step.name in known]


def main(arguments: Sequence[str] | None = None, steps: Sequence[Step] = STEPS) -> int:
    """The command; see the module. Returns the exit status."""
    names = [step.name for step in steps]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--steps", default=",".join(names), help=f"some of {','.join(names)}")
    parser.add_argument("--limits", type=float, default=1.0, help="factor of the steps' time limits")
    parser.add_argument("--enter", action="store_true", help="put DIR's table into docs/MEASURED.md")
    parser.add_argument("--page", type=Path, default=MEASURED, help="another page for --enter")
    chosen = parser.parse_args(arguments)
    if chosen.enter:
        outcomes = list(earlier(chosen.out).values())
        if not outcomes:
            parser.error(f"--out is {chosen.out}: expected a folder with gpu_day.json; run the day first")
        write(chosen.page, entered(chosen.page.read_text(encoding="utf-8"), markdown(outcomes)))
        return 0
    wanted = chosen.steps.split(",")
    if unknown := [name for name in wanted if name not in names]:
        parser.error(f"--steps is {chosen.steps}: {unknown[0]} is none of {', '.join(names)}")
    outcomes = run_day(chosen.out, steps, wanted, chosen.limits)
    bad = [outcome.name for outcome in outcomes if outcome.state in ("red", "failed")]
    print(f"red: {', '.join(bad)}" if bad else "no gate is red", f"({chosen.out / 'gpu_day.md'})")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
