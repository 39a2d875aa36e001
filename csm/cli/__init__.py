"""The command `csm`: one module a subcommand, imported when it is called."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from functools import partial

from csm import __version__
from csm.cli.process import guarded, run_command
from csm.system.supervisor import supervise

#: Subcommand -> module in csm.cli and what it does. A name may have two words.
COMMANDS = {
    "speak": ("speak", "say a text with the packaged voice or your own"),
    "transcribe": ("transcribe", "write the text of a recording, while its voice comes in"),
    "prepare": ("prepare", "make a corpus folder of recorded conversations"),
    "train-semantic": ("train_semantic", "train the semantic half of a recipe's tokenizer"),
    "train-tokenizer": ("train_tokenizer", "train the voice tokenizer of a recipe"),
    "encode": ("encode", "encode a corpus to the codes that the model trains on"),
    "train": ("train", "train the conversational model of a recipe; --fields lists its settings"),
    "generate": ("generate", "speak held-out lines and dialogues with a trained model"),
    "evaluate": ("evaluate", "measure a run, a tokenizer or a voice, and write a report page"),
    "research": ("research", "answer a research question: train what it compares, measure, and decide"),
    "evaluate-conversation": ("evaluate_conversation", "measure how a voice takes turns and yields"),
    "serve": ("serve", "open a page to talk with a voice, and an HTTP server for it"),
    "converse": ("converse", "hold a typed conversation with a trained model"),
    "export voice": ("export_voice", "write a voice folder of a run, for speak --voice"),
    "export corpus": ("export_corpus", "write a corpus for moshi-finetune, lhotse or Hugging Face datasets"),
    "export tokenizer": ("export_tokenizer", "write a tokenizer as torch.export or ONNX programs"),
    "convert": ("convert", "convert between this layout and the two of csm-1b"),
}

# Subcommands that launchers start as ranks.
LAUNCHED = ("encode", "train", "train_tokenizer", "train_semantic")

OVERVIEW = """usage: csm COMMAND ... | csm COMMAND --help | csm --version

Trains conversational speech models: recorded conversations in, a talking model out.

commands:
{commands}

Three to begin with:
  csm speak "You and whose army?" --speaker FAYE
  csm prepare --corpus amazon_queen_excerpt --output data/amazon_queen_excerpt
  csm train --help
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand; returns its exit status.

    Args:
        arguments: Words after `csm`; None takes those of this process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # The deepspeed launcher puts this before the first word; the environment holds the same number.
    words = [word for word in words if not word.startswith("--local_rank=")]
    for name, (module, _) in COMMANDS.items():
        length = len(name.split())
        if words[:length] == name.split():
            if module in LAUNCHED:
                supervise(f"csm {name}")
            return run_command(name, partial(importlib.import_module, f"csm.cli.{module}"), words[length:])
    return guarded("csm", lambda: overview(words))


def overview(words: Sequence[str]) -> int:
    """Prints the list of commands, or the version.

    Raises:
        ValueError: The words name no command.
    """
    if list(words) == ["--version"]:
        print(f"csm {__version__}")
        return 0
    if words and words[0] not in ("--help", "-h"):
        wanted = " ".join(words[:2]) if words[0] == "export" else words[0]
        near = difflib.get_close_matches(wanted, COMMANDS, n=1)
        expected = near[0] if near else f"one of {', '.join(COMMANDS)}"
        raise ValueError(f"command is {wanted!r}: expected {expected}; see csm --help")
    width = max(map(len, COMMANDS))
    lines = (f"  {name:{width}}  {summary}" for name, (_, summary) in COMMANDS.items())
    print(OVERVIEW.format(commands="\n".join(lines)), end="")
    return 0
