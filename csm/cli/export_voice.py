"""Writes a voice folder of a finished run: model, tokenizer and speakers, for csm speak and Talker.

    csm export voice --run runs/quickstart --output my_voice
    csm speak --voice my_voice "I had a plane to catch."

A speaker's consent, entered by csm prepare --consent, is kept with the voice in voices.json and card.json.
With --watermark, csm speak adds an inaudible watermark (resemble-perth); streams carry none.

From Python: Talker.from_pretrained("my_voice").generate("I had a plane to catch.").
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from csm.audio.watermark import Watermark
from csm.cli.options import add_run, device_of
from csm.data.consent import consents, without_consent
from csm.generation.voice_card import write_card
from csm.generation.voices import Voice
from csm.recipes.steps.speak import run_corpus, trained_talker
from csm.system.log import log


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_run(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder of the voice")
    parser.add_argument(
        "--main",
        metavar="NAME",
        help="voice that speaks where none is named (default: the one with most training minutes)",
    )
    parser.add_argument("--whole", action="store_true", help="fp32 weights (default: matrices in 8 bits)")
    parser.add_argument(
        "--no-tokenizer", action="store_true", help="leave the tokenizer out: use the one beside OUTPUT"
    )
    parser.add_argument("--watermark", action="store_true", help="csm speak marks this voice's speech")


def run(options: argparse.Namespace) -> None:
    """Writes the folder."""
    if (options.output / "voices.json").exists():
        raise ValueError(f"{options.output} holds a voice already: choose another --output")
    if options.watermark:
        Watermark()  # is installed
    talker = trained_talker(options.run, device_of(options), corpus=options.corpus, all_voices=True)
    if options.main:
        talker = replace(talker, voices=with_first(talker.voices, options.main))
    talker.save_pretrained(options.output, half=not options.whole, tokenizer=not options.no_tokenizer)
    corpus = run_corpus(options.run, options.corpus)
    write_card(options.output, corpus=corpus.info, consent=consents(corpus), mark=options.watermark)
    if asked := [name for name in without_consent(corpus) if name in talker.voices]:
        log.warning(
            "no consent of %s is on record: a voice is to be shared only with the speaker's; enter it with "
            "csm prepare --consent SPEAKER=STATEMENT and export again",
            ", ".join(asked),
        )
    size = sum(path.stat().st_size for path in options.output.rglob("*") if path.is_file())
    print(f"{options.output}: {len(talker.voices)} voices, {size / 1e6:.1f} MB")


def with_first(voices: Mapping[str, Voice], name: str) -> dict[str, Voice]:
    """Returns voices with the one of a name first, the others in their order.

    Raises:
        ValueError: There is no voice of this name.
    """
    if name not in voices:
        raise ValueError(f"--main is {name!r}: expected one of {', '.join(voices)}")
    return {name: voices[name], **voices}
