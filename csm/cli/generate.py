"""Speaks with a trained model.

    csm generate --run runs/quickstart

generates the demonstration: eight held-out lines of the main voice and two dialogues, each as recording,
resynthesis and generated WAV with speech.jsonl in RUN/speech, for csm evaluate. Finished ones are kept.

    csm generate --run runs/quickstart --text "I had a plane to catch." --speaker JOE

says one line of your own: RUN/lines/000.wav ... or --output FILE.wav. Another --seed gives another rendition.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from csm.audio.files import write_audio
from csm.cli.options import add_run, device_of
from csm.generation.talker import Talker
from csm.generation.typed_conversation import free_path
from csm.recipes.run_files import load_run
from csm.recipes.steps.speak import run_corpus, speak_lines, trained_talker


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_run(parser)
    parser.add_argument("--text", help="line to speak instead of the demonstration")
    parser.add_argument(
        "--speaker", metavar="NAME", help="speaker of the line (default: the most trained speaker)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="PATH", help="speech folder, or with --text a WAV file"
    )
    parser.add_argument(
        "--seed", type=int, help="seed of sampling (default: the recipe's, as for the next two)"
    )
    parser.add_argument("--temperature", type=float, help="temperature of sampling; 0: the argmax")
    parser.add_argument("--top-k", type=int, help="number of most probable codes to sample from; 0: all")


def run(options: argparse.Namespace) -> None:
    """Generates the demonstration, or says one line."""
    sampling = load_run(options.run).sampling
    given = {name: getattr(options, name) for name in ("seed", "temperature", "top_k")}
    sampling = dataclasses.replace(sampling, **{k: v for k, v in given.items() if v is not None})
    talker = trained_talker(options.run, device_of(options), sampling=sampling, corpus=options.corpus)
    if options.text is not None:
        say_line(options, talker)
        return
    output = options.output or options.run / "speech"
    made = speak_lines(options.run, talker, run_corpus(options.run, options.corpus), output)
    print(f"{output}: {f'{made} items spoken' if made else 'the demonstration is complete; nothing to do'}")


def say_line(options: argparse.Namespace, talker: Talker) -> None:
    """Says --text by --speaker."""
    output = options.output or free_path(options.run / "lines", ".wav")
    speech = talker.speak_turn(options.text, options.speaker)
    write_audio(output, speech.waveform, speech.sample_rate)
    seconds = f"{speech.timing.audio_s:.2f} s of speech in {speech.timing.generation_s:.2f} s"
    print(f"{output}: {speech.voice.name}, {seconds}, the first after {speech.timing.first_audio_s:.2f} s")
