"""Options that several subcommands share: device, recipe and its overrides, and the number of ranks."""

from __future__ import annotations

import argparse
import re
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
    parser.add_argument(
        "--device", default="auto", help="device: cpu, cuda or auto, which is cuda where there is a GPU"
    )


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
        help="detector of the end of your turn: 0.5 s of silence, or smart-turn, a network that reads "
        "the sound and is fetched once (default: %(default)s)",
    )


def add_backchannels(parser: argparse.ArgumentParser) -> None:
    """Adds --backchannels."""
    parser.add_argument(
        "--backchannels",
        choices=BACKCHANNELS,
        default=BACKCHANNELS[0],
        help="rule that separates backchannels (short speech that does not stop the voice) from "
        "interruptions: by the speech's English words, or by its length alone (default: %(default)s)",
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
        help=f"folder of csm export voice or of csm-1b, or {others}, which is packaged{default}",
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
        help="recogniser that reads the candidates: Whisper tiny.en, or the voice's own model "
        "(default: %(default)s)",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Adds --run, --corpus and --device: a finished training and where it runs."""
    parser.add_argument(
        "--run", type=Path, required=True, metavar="FOLDER", help="folder of a finished csm train"
    )
    parser.add_argument(
        "--corpus", type=Path, metavar="FOLDER", help="folder of the corpus, where it has moved"
    )
    add_device(parser)


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Adds --recipe, --set and --device, and the list of recipes below the options."""
    parser.add_argument(
        "--recipe",
        default="quickstart",
        metavar="NAME",
        help="recipe of the list below (default: %(default)s)",
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

    These stand in the first paragraph: what it is, `Hardware:` and `Time:`, each to its first sentence.
    """
    indent = 6 * " "
    for name, make in RECIPES.items():
        summary, *rest = (" ".join(part.split()) for part in (make.__doc__ or "").split("\n\n"))
        yield f"  {name}"
        facts = re.split(r"(?=Hardware: |Time: )", rest[0] if rest and "Hardware: " in rest[0] else "")
        for fact in (summary, *(f"{fact.split('. ')[0].strip().rstrip('.')}." for fact in facts if fact)):
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
