"""Writes the text of a recording by the model of a voice: text appears while the recording is heard.

    csm transcribe turn.wav --voice my_voice
    csm transcribe turn.wav --voice my_voice --json     a line of JSON for each change: seconds heard, text

The recording is one turn of one speaker, at most as long as the model's context. A model with a letter head
(model.letters_per_frame) spells frame by frame; any other one, as the packaged voice, writes the text at the
end. Transcription by the model is experimental: docs/MEASURED.md has its word error rates.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from csm.audio.files import read_audio
from csm.cli.options import add_voice
from csm.generation.talker import Talker


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("file", type=Path, metavar="FILE", help="recording of one channel")
    add_voice(parser)
    parser.add_argument("--speaker", metavar="NAME", help="known voice in the recording (default: any other)")
    parser.add_argument("--json", action="store_true", help="print each change as a line of JSON")


def run(options: argparse.Namespace) -> None:
    """Transcribes."""
    talker = Talker.from_pretrained(options.voice)
    config = talker.tokenizer.config
    audio = read_audio(options.file, sample_rate=config.sample_rate)[0]
    stream = talker.hear(options.speaker)
    shown = Transcript(as_json=options.json)
    for samples in audio.split(config.samples_per_frame):
        shown.show(stream.push(samples), stream.seconds)
    shown.end(stream.finish(), stream.seconds)


class Transcript:
    """Text on the screen that grows while it is heard.

    Args:
        as_json: Whether every change is a line of JSON, the last one with "final": true.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.text = ""

    def show(self, text: str, seconds: float) -> None:
        """Shows the text so far, after a number of seconds of audio."""
        if text == self.text:
            return
        if self.as_json:
            print(json.dumps({"seconds": round(seconds, 2), "text": text}), flush=True)
        else:
            # Text that is no continuation of what stands there begins a line of its own.
            more = text.startswith(self.text)
            print(text[len(self.text) :] if more else f"\n{text}", end="", flush=True)
        self.text = text

    def end(self, text: str, seconds: float) -> None:
        """Shows the text of the whole turn."""
        if self.as_json:
            print(json.dumps({"seconds": round(seconds, 2), "text": text, "final": True}), flush=True)
            return
        self.show(text, seconds)
        print(flush=True)
