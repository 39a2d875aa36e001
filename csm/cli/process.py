"""One subcommand in one process: its arguments are parsed, it runs, and an error becomes one line."""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol, cast

from csm.system.extras import missing_package
from csm.system.log import configure_log

BAD_INPUT, NOT_FINITE, INTERRUPTED = 2, 1, 130
# A launcher ends all ranks within a second of the first that failed; then rank 0 alone has spoken.
GRACE_S = 5.0


class Subcommand(Protocol):
    """What a module of csm.cli defines; its docstring is the help text."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the subcommand's arguments."""

    def run(self, options: argparse.Namespace) -> int | None:
        """Does the work; returns an exit status, None for 0."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are `ValueError`s, as all bad input is."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")


def run_command(name: str, module: Callable[[], object], words: Sequence[str]) -> int:
    """Parses the words after a subcommand's name and runs it; returns the exit status.

    Args:
        name: The subcommand.
        module: Imports its module; called here so that a missing package is one line too.
        words: Its arguments.
    """

    def work() -> int | None:
        subcommand = cast(Subcommand, module())
        parser = Parser(
            prog=f"csm {name}",
            description=subcommand.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        subcommand.add_arguments(parser)
        options = parser.parse_args(list(words))
        options.words = [*name.split(), *words]
        return subcommand.run(options)

    return guarded(f"csm {name}", work)


def guarded(name: str, work: Callable[[], int | None]) -> int:
    """Runs `work`; an error that its user can mend becomes one line on stderr.

    Returns:
        The status of `work`, 2 for bad input, 1 for a loss or gradient that is not finite.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # texts and paths may hold what a terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    configure_log()
    try:
        return work() or 0
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "csm", "csm_kernels"):
            raise
        return complain(name, missing_package(package.replace("_", "-"), "this command"), BAD_INPUT)
    except FloatingPointError as error:
        return complain(name, error, NOT_FINITE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader, as in `| head`, has read enough
        return 0
    except (ValueError, OSError) as error:
        return complain(name, error, BAD_INPUT)
    except KeyboardInterrupt:
        return complain(name, "interrupted", INTERRUPTED)


def complain(name: str, error: object, status: int) -> int:
    """Prints an error as one line and returns the status.

    Ranks above 0 first wait for the launcher to end them: rank 0 has the same error and prints it.
    """
    rank = int(os.environ.get("RANK", 0))
    if rank:
        time.sleep(GRACE_S)
    who = f"{name} (rank {rank})" if rank else name
    print(f"{who}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return status
