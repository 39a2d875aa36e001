"""What the commands of launch/ share: recipe and overrides, the device, and errors in one line."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable

import torch

from csm import config as config_files
from csm.recipes.named import RECIPES, recipe
from csm.recipes.run_config import RunConfig
from csm.system.log import configure_log
from csm.training.distributed import start_distributed
from csm.training.loop import NonFiniteError


def command_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the command's docstring, as it stands, and that knows --device."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto: cuda where there is a GPU")
    return parser


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Adds --recipe and --set."""
    parser.add_argument(
        "--recipe",
        default="quickstart",
        metavar="NAME",
        help=f"a complete run by name: {', '.join(sorted(RECIPES))} (default: %(default)s)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the recipe, for example training.steps=100; may be given again",
    )


def add_local_rank(parser: argparse.ArgumentParser) -> None:
    """Accepts the argument that the deepspeed launcher hands to every rank."""
    parser.add_argument("--local_rank", type=int, default=0, help=argparse.SUPPRESS)


def resolved_recipe(options: argparse.Namespace) -> RunConfig:
    """The recipe that was asked for, with its overrides.

    Raises:
        ValueError: Unknown recipe or field, or a value that the field does not take.
    """
    run = recipe(options.recipe)
    for assignment in options.set:
        run = config_files.override(run, assignment)
    return run


def device_of(options: argparse.Namespace) -> torch.device:
    """The device of this process, after it has joined the ranks that a launcher started.

    Raises:
        ValueError: No such device here.
    """
    return start_distributed(options.device).device


def command(name: str, parser: argparse.ArgumentParser, work: Callable[[argparse.Namespace], None]) -> int:
    """Parses the command line and does the work; bad input becomes one line on stderr and status 2.

    A loss or gradient that is not finite becomes one line and status 1.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # texts and paths may hold what a terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    options = parser.parse_args()
    configure_log()
    try:
        work(options)
    except (ValueError, OSError, NonFiniteError) as error:
        rank = int(os.environ.get("RANK", 0))
        who = f"{name} (rank {rank})" if rank else name
        print(f"{who}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return 1 if isinstance(error, NonFiniteError) else 2
    return 0
