"""Messages are ASCII lines on stderr, of rank 0; progress is a bar in a terminal and ten lines elsewhere."""

from __future__ import annotations

import io
import logging

import pytest

from csm.system.log import Progress, configure_log, log, progress_of


@pytest.fixture
def configured(monkeypatch):
    """Configures the log as rank 0, and takes that back."""
    monkeypatch.delenv("RANK", raising=False)
    before = log.handlers, log.level, log.propagate
    configure_log()
    yield
    log.handlers, log.level, log.propagate = before


def test_a_message_is_one_ascii_line_on_stderr(configured, capsys) -> None:
    log.info("%s: caf\u00e9, %d", "run", 3)
    done = capsys.readouterr()
    assert done.err == "run: caf\\xe9, 3\n" and done.out == ""


def test_other_ranks_show_warnings_alone_with_their_number(configured, monkeypatch, capsys) -> None:
    monkeypatch.setenv("RANK", "2")
    configure_log()
    log.info("progress")
    log.warning("disk")
    assert capsys.readouterr().err == "rank 2: disk\n"


def test_configuring_twice_shows_each_message_once(configured, capsys) -> None:
    configure_log()
    log.info("once")
    assert capsys.readouterr().err == "once\n"


def test_without_a_terminal_each_tenth_of_the_work_is_one_line(configured, capsys) -> None:
    assert list(progress_of(range(25), "encode", 25, unit="turn")) == list(range(25))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "encode: 3 of 25 turns, 12 %" and lines[-1] == "encode: 25 of 25 turns, 100 %"


def test_work_that_ends_early_claims_no_end(configured, capsys) -> None:
    for item in progress_of(range(10), "encode", 10, unit="turn"):
        if item == 4:
            break
    assert capsys.readouterr().err.splitlines()[-1] == "encode: 4 of 10 turns, 40 %"


def test_a_terminal_without_utf_8_gets_a_bar_in_ascii(caplog) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    raw = io.BytesIO()
    stream = Terminal(raw, encoding="ascii", errors="strict")
    with caplog.at_level(logging.INFO, "csm"):
        bar = Progress("encode", 2, unit="turn", stream=stream)
        bar.update(2)
        bar.close()
    stream.flush()
    assert b"2/2" in raw.getvalue() and not caplog.records
