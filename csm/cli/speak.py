"""Says a text: writes a WAV file, and plays it where there is a sound device.

    csm speak "I had a plane to catch."
    csm speak "You and whose army?" --speaker FAYE --output line.wav
    csm speak "I had a plane to catch." --speed 0.8
    csm speak --voice wideband "I had a plane to catch."     the packaged voice at 24 kHz
    csm speak --voice wideband "I had a plane to catch." --candidates 4     the best read of four
    csm speak "How could you?" --style angry.wav       in the manner of a recording of any speaker
    csm speak --prompt me.wav --prompt-text "What I say in it." "The same voice says this."
    some_program | csm speak -      speaks each sentence as soon as it has arrived

Text of any length is spoken sentence by sentence. --list names the voices.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from csm.audio.files import read_audio
from csm.cli.options import add_candidates, add_voice
from csm.generation.playback import play
from csm.generation.prompt_turn import PromptTurn
from csm.generation.talker import Talker
from csm.generation.typed_conversation import free_path
from csm.generation.voice_card import is_marked, mark_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("text", nargs="?", help="text to speak; -: standard input")
    add_voice(parser)
    parser.add_argument(
        "--speaker", metavar="NAME", help="speaker of the text (default: the most trained speaker)"
    )
    parser.add_argument("--list", action="store_true", help="list the speakers")
    parser.add_argument("--prompt", type=Path, metavar="FILE", help="recording whose voice to continue in")
    parser.add_argument("--prompt-text", default="", metavar="TEXT", help="text of the recording")
    parser.add_argument("--style", type=Path, metavar="FILE", help="recording in whose manner to speak")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="WAV file (default: speech/000.wav, 001.wav, ...)"
    )
    parser.add_argument("--quiet", action="store_true", help="do not play it")
    parser.add_argument("--seed", type=int, help="seed of sampling; another seed gives another rendition")
    parser.add_argument("--speed", type=float, help="rate of speech: 1 is the voice's own, 0.5 to 2")
    add_candidates(parser)
    parser.add_argument("--temperature", type=float, help="temperature of sampling; 0: the argmax")
    parser.add_argument(
        "--guidance",
        type=float,
        metavar="X",
        help="strength of guidance, which moves a frame's prediction away from the one without the text; 0: "
        "none, 0.5: clearer words of the voice wideband (default: the voice's own)",
    )
    parser.add_argument("--top-k", type=int, help="number of most probable codes to sample from; 0: all")
    parser.add_argument(
        "--watermark",
        action="store_true",
        help="add an inaudible watermark (default: where the voice's card says so)",
    )
    parser.add_argument("--int8", action="store_true", help="int8 weights: faster, less exact")


def run(options: argparse.Namespace) -> None:
    """Speaks."""
    talker = Talker.from_pretrained(options.voice)
    given = {name: getattr(options, name) for name in ("seed", "speed", "temperature", "top_k", "guidance")}
    sampling = replace(talker.sampling, **{k: v for k, v in given.items() if v is not None})
    talker = replace(talker, sampling=sampling, weights="int8" if options.int8 else "fp32")
    if options.list:
        print("\n".join(talker.voices))
        return
    if options.text is None:
        raise ValueError('no text: expected csm speak "what to say", or - to read it as it arrives')
    text = sys.stdin if options.text == "-" else options.text
    if options.style is not None:
        rate = talker.tokenizer.config.sample_rate
        talker = talker.with_style(read_audio(options.style, sample_rate=rate), rate)
    stream = talker.generate(
        text,
        options.speaker,
        prompt=prompt_of(options, talker),
        candidates=options.candidates,
        reader=options.reader,
        stream=True,
    )
    output = options.output or free_path(Path("speech"), ".wav")
    timing = stream.write(output)
    if options.watermark or is_marked(options.voice):
        mark_file(output)
    print(
        f"{output}: {stream.voice.name}, {timing.audio_s:.2f} s of speech in {timing.generation_s:.2f} s, "
        f"the first after {timing.first_audio_s:.2f} s"
    )
    if not options.quiet and (silent := play(output, timing.audio_s)):
        print(f"not played: {silent}")


def prompt_of(options: argparse.Namespace, talker: Talker) -> PromptTurn | None:
    """Returns the recording whose voice is continued, None where none is given."""
    if options.prompt is None:
        return None
    rate = talker.tokenizer.config.sample_rate
    return PromptTurn(options.prompt_text, read_audio(options.prompt, sample_rate=rate), rate)
