"""Converses with a voice: type or speak your side, and it answers.

    csm converse                               you type, the packaged voice repeats it
    csm converse --chat http://127.0.0.1:8000/v1    an OpenAI-compatible endpoint chooses its words
    csm converse --script lines.txt --microphone    you speak, and may interrupt it
    csm converse --run runs/quickstart --speaker JOE --you FAYE

The model speaks words and does not choose them. With --run and no --chat, --script or --microphone you type
both sides: first a line of yours, then the one that the model says to it, and so on in turn. Each is spoken
in its own voice, with everything before it as context. "NAME: text" gives the turn to one of the two; --lines
reads the lines from a file, one a line. Ctrl-D (Ctrl-Z on Windows) ends a conversation.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from csm.audio.files import write_audio
from csm.cli.options import add_backchannels, add_device, add_turn_end, add_voice, device_of
from csm.conversation.backchannels import available_backchannels
from csm.conversation.console import microphone_events, typed_replies
from csm.conversation.live import LiveConversation
from csm.conversation.repliers import ChatReplier, EchoReplier, Replier, ScriptReplier
from csm.conversation.smart_turn import available_turn_end
from csm.conversation.transcriber import HEARING, transcriber_of
from csm.conversation.worker import SimulatedWorker, ThreadWorker
from csm.generation.corpus_voices import minutes_of_speakers
from csm.generation.talker import Talker
from csm.generation.typed_conversation import free_path, typed_conversation
from csm.recipes.steps.speak import run_corpus, trained_talker


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="folder of a finished csm train")
    parser.add_argument(
        "--corpus", type=Path, metavar="FOLDER", help="folder of the run's corpus, where it has moved"
    )
    add_voice(parser, "")
    add_device(parser)
    parser.add_argument(
        "--speaker", metavar="NAME", help="voice of the model's lines (default: the most trained speaker)"
    )
    parser.add_argument(
        "--you", metavar="NAME", help="voice of your lines (default: the second most trained speaker)"
    )
    parser.add_argument("--lines", type=Path, metavar="FILE", help="text file of your lines")
    parser.add_argument(
        "--script", type=Path, metavar="FILE", help="text file of the model's lines, one a reply"
    )
    parser.add_argument(
        "--chat", metavar="URL", help="OpenAI-compatible endpoint that writes the model's words"
    )
    parser.add_argument(
        "--chat-model", default="default", metavar="NAME", help="name of the endpoint's model"
    )
    parser.add_argument(
        "--hearing",
        choices=HEARING,
        default=HEARING[0],
        help="recogniser of your speech: tiny.en, or the voice's own model (experimental)",
    )
    add_turn_end(parser)
    add_backchannels(parser)
    parser.add_argument("--microphone", action="store_true", help="speak instead of typing")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="folder of the conversation (default: conversations/000, 001, ... in RUN or here)",
    )


def run(options: argparse.Namespace) -> None:
    """Converses until the lines end."""
    if options.run is not None and options.voice is not None:
        raise ValueError("--run and --voice are given: expected one of them")
    if options.run is not None and not (options.chat or options.script or options.microphone):
        both_sides(options)
    elif options.microphone:
        spoken(options)
    else:
        answered(options)


def answered(options: argparse.Namespace) -> None:
    """Answers typed lines, each by a WAV file."""
    output = options.output or free_path((options.run or Path()) / "conversations")
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"{output} holds files already: choose another --output")
    live = LiveConversation(
        talker_of(options),
        replier_of(options),
        speaker=options.speaker,
        worker=SimulatedWorker(lambda measured: 0.0),
    )
    try:
        for number, reply in enumerate(typed_replies(live, typed(options.lines))):
            if reply.failure:
                print(f"no reply: {reply.failure}", file=sys.stderr, flush=True)
                continue
            path = output / f"turn_{number:03d}.wav"
            write_audio(path, reply.waveform[None], live.rate)
            print(f"{path}: {reply.text}", flush=True)
    finally:
        live.close()


def spoken(options: argparse.Namespace) -> None:
    """Converses by microphone and loudspeaker."""
    talker = talker_of(options)
    transcriber = transcriber_of(options.hearing, talker)
    live = LiveConversation(
        talker,
        replier_of(options),
        speaker=options.speaker,
        worker=ThreadWorker(),
        transcriber=transcriber,
        turn_end=available_turn_end(options.turn_end),
        backchannels=available_backchannels(options.backchannels, transcriber),
    )
    print("speak; end with Ctrl-C; a headset keeps the voice from interrupting itself", flush=True)
    try:
        for event in microphone_events(live):
            if event.text:
                print(f"{event.since / live.rate:7.2f} s  {event.kind}: {event.text}", flush=True)
    except KeyboardInterrupt:
        print("ended")
    finally:
        live.close()


def talker_of(options: argparse.Namespace) -> Talker:
    """Returns the voice of a run, of a folder, or the packaged one."""
    if options.run is not None:
        return trained_talker(options.run, device_of(options), corpus=options.corpus)
    return Talker.from_pretrained(options.voice)


def replier_of(options: argparse.Namespace) -> Replier:
    """Returns who chooses the words."""
    if options.chat is not None:
        key = os.environ.get("OPENAI_API_KEY", "")
        return ChatReplier(url=options.chat, model=options.chat_model, key=key)
    if options.script is None:
        return EchoReplier()
    return ScriptReplier(tuple(line.strip() for line in typed(options.script, "--script") if line.strip()))


def both_sides(options: argparse.Namespace) -> None:
    """Speaks line after line, by the two speakers in turn."""
    talker = talker_of(options)
    voice = options.speaker or talker.voice().name
    minutes = minutes_of_speakers(run_corpus(options.run, options.corpus))
    others = [name for name in talker.voices if name != voice]
    you = options.you or max(others, key=minutes.__getitem__, default=voice)
    output = options.output or free_path(options.run / "conversations")
    print(f"{you} (you) and {voice} (the model) speak in turn; end with Ctrl-D", flush=True)
    speakers = list(dict.fromkeys((you, voice)))
    for path, name, speech in typed_conversation(talker, typed(options.lines), speakers, output):
        print(f"{path}: {name}, {speech.timing.audio_s:.2f} s", flush=True)


def typed(path: Path | None, option: str = "--lines") -> Iterator[str]:
    """Yields the lines of a file, or of the keyboard until its end."""
    if path is not None:
        if not path.is_file():
            raise ValueError(f"no file {path}: {option} takes a text file, one line a turn")
        yield from path.read_text(encoding="utf-8").splitlines()
        return
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
