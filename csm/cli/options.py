"""Options that several subcommands share: device, recipe and its overrides, and the number of ranks."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from pathlib import Path

import torch

from csm import config as config_files
from csm.conversation.backchannels import BACKCHANNELS
from csm.conversation.smart_turn import TURN_ENDS
from csm.generation.readers import READERS
from csm.generation.voice_folder import PACKAGED_VOICES, packaged_voice
from csm.recipes.named import RECIPES, recipe
from csm.recipes.run_config import RunConfig
from csm.training.distributed import start_distributed


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds --device."""
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto: cuda where there is a GPU")


def device_of(options: argparse.Namespace) -> torch.device:
    """Returns the device of this process, after it has joined the ranks that a launcher started.

    Raises:
        ValueError: This machine has no such device.
    """
    return start_distributed(options.device).device


def add_turn_end(parser: argparse.ArgumentParser) -> None:
    """Adds --turn-end."""
    parser.add_argument(
        "--turn-end",
        choices=TURN_ENDS,
        default=TURN_ENDS[0],
        help="what decides that your turn has ended: 0.5 s of silence, or smart-turn, a network that reads "
        "the sound and is fetched once (default: %(default)s)",
    )


def add_backchannels(parser: argparse.ArgumentParser) -> None:
    """Adds --backchannels."""
    parser.add_argument(
        "--backchannels",
        choices=BACKCHANNELS,
        default=BACKCHANNELS[0],
        help="what separates short speech over the voice that leaves it the floor from an interruption: its "
        "English words, or nothing but its length (default: %(default)s)",
    )


def add_voice(parser: argparse._ActionsContainer, default: str = " (default: the packaged voice)") -> None:
    """Adds --voice: the folder of an exported voice, or the name of a packaged one.

    Args:
        parser: Parser, or a group of its options.
        default: What the help says of a command without the option.
    """
    others = ", ".join(list(PACKAGED_VOICES)[1:])
    parser.add_argument(
        "--voice",
        type=packaged_voice,
        metavar="FOLDER",
        help=f"of csm export voice, or csm-1b, or {others}, which is packaged{default}",
    )


def add_candidates(parser: argparse._ActionsContainer) -> None:
    """Adds --candidates and --reader: several renditions of each sentence, of which one is kept."""
    parser.add_argument(
        "--candidates",
        type=int,
        default=1,
        metavar="N",
        help="speak each sentence N times and keep the one that a reader reads best: fewer word errors, at N "
        "times the work and without audio before the sentence is whole (default: 1)",
    )
    parser.add_argument(
        "--reader",
        choices=READERS,
        default=READERS[0],
        help="what reads candidates: Whisper tiny.en, or the voice's own model (default: %(default)s)",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Adds --run, --corpus and --device: a finished training and where it runs."""
    parser.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="of a finished csm train")
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="of the corpus, where it has moved")
    add_device(parser)


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Adds --recipe, --set and --device, and the list of recipes below the options."""
    parser.add_argument(
        "--recipe", default="quickstart", metavar="NAME", help="one of the list below (default: %(default)s)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the recipe, for example training.steps=100; repeatable",
    )
    add_device(parser)
    parser.epilog = "recipes:\n" + "\n".join(recipe_lines())


def recipe_lines() -> Iterator[str]:
    """Yields what every recipe is, its time and its hardware, from the recipes' docstrings.

    These stand in the first paragraph and in the first sentence of the second, unless that is a command.
    """
    indent = 6 * " "
    for name, make in RECIPES.items():
        first, *rest = (" ".join(part.split()) for part in (make.__doc__ or "").split("\n\n"))
        yield f"  {name}"
        if rest and not rest[0].startswith("`"):
            first += f"\n{rest[0].split('. ')[0].rstrip('.')}."
        for fact in first.splitlines():
            yield textwrap.fill(fact, 110, initial_indent=indent, subsequent_indent=indent)


def resolved_recipe(options: argparse.Namespace) -> RunConfig:
    """Returns the recipe of --recipe with its overrides.

    Raises:
        ValueError: Unknown recipe or field, or a value that the field does not take.
    """
    run = recipe(options.recipe)
    for assignment in options.set:
        run = config_files.override(run, assignment)
    return run
