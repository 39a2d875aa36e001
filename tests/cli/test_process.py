"""Errors of a command are one line, and ranks above 0 leave it to rank 0."""

from types import SimpleNamespace

import pytest

from csm.cli import main, process
from csm.training.loop import NonFiniteError


def run(error: BaseException) -> int:
    def fail(options: object) -> None:
        raise error

    return process.run_command("test", lambda: SimpleNamespace(add_arguments=lambda p: None, run=fail), [])


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ValueError("steps is 0:\n  expected 1"), 2, "csm test: steps is 0: expected 1"),
        (FileNotFoundError(2, "No such file", "x"), 2, "csm test: [Errno 2] No such file: 'x'"),
        (NonFiniteError("step 3"), 1, "csm test: step 3"),
        (KeyboardInterrupt(), 130, "csm test: interrupted"),
        (
            ModuleNotFoundError("No module", name="torchaudio.functional"),
            2,
            "csm test: this command needs the package torchaudio: pip install 'csm-speech[train]'",
        ),
    ],
)
def test_an_error_is_one_line_and_a_status(capsys, error, status, line) -> None:
    assert run(error) == status
    assert capsys.readouterr().err == f"{line}\n"


def test_a_fault_of_the_program_stays_a_traceback() -> None:
    for error in (KeyError("x"), ZeroDivisionError(), ModuleNotFoundError("No module", name="csm.nothing")):
        with pytest.raises(type(error)):
            run(error)


def test_a_rank_above_0_waits_for_rank_0_to_speak(capsys, monkeypatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(process.time, "sleep", waits.append)
    monkeypatch.setenv("RANK", "0")
    assert run(ValueError("no")) == 2 and waits == []
    monkeypatch.setenv("RANK", "1")
    assert run(ValueError("no")) == 2 and waits == [process.GRACE_S]
    assert capsys.readouterr().err == "csm test: no\ncsm test (rank 1): no\n"


def test_the_overview_lists_commands_and_an_unknown_one_is_guessed(capsys) -> None:
    assert main(["--help"]) == 0 and "\n  csm train --help\n" in capsys.readouterr().out
    assert main(["tran"]) == 2
    assert capsys.readouterr().err == "csm: command is 'tran': expected train; see csm --help\n"
    assert main(["train", "--stepz"]) == 2
    assert capsys.readouterr().err == "csm train: unrecognized arguments: --stepz; see csm train --help\n"


def test_the_launcher_s_argument_is_dropped(capsys) -> None:
    assert main(["--local_rank=1", "train", "--recipe", "tiny", "--fields"]) == 0
    assert "recipe=tiny" in capsys.readouterr().out
