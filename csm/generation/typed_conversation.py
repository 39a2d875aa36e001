"""A conversation whose words are typed: every line is spoken, and hears the lines before it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from csm.audio.files import write_audio
from csm.data.manifest import file_safe
from csm.generation.demonstration import Cast
from csm.generation.streaming import Spoken, speak_aloud

TRANSCRIPT_FILE = "transcript.jsonl"


def typed_conversation(
    cast: Cast, lines: Iterable[str], speakers: Sequence[str], output: Path
) -> Iterator[tuple[Path, str, Spoken]]:
    """Speaks lines as they come, in one session, by the speakers in turn; a WAV and a transcript row each.

    A line "NAME: text", NAME being one of the speakers, is said by that one, and the turns go on from there.
    Empty lines are passed over.

    Args:
        speakers: Names, in the order of their turns.
        output: A folder without a transcript.

    Yields:
        The WAV file, the speaker's name and what was heard.

    Raises:
        ValueError: A speaker that training has not heard, a folder in use, or a line too long to be said.
    """
    if (output / TRANSCRIPT_FILE).exists():
        raise ValueError(f"{output} holds a conversation already: choose another --output")
    voices = {name: cast.voice(name) for name in speakers}
    session = cast.session(0)
    output.mkdir(parents=True, exist_ok=True)
    turn = number = 0
    for line in lines:
        head, colon, rest = line.partition(":")
        if colon and head.strip() in voices:
            turn, line = list(voices).index(head.strip()), rest
        if not line.strip():
            continue
        name = speakers[turn % len(speakers)]
        spoken = speak_aloud(session, cast.tokenizer, line.strip(), voices[name])
        path = output / f"turn_{number:03d}.{file_safe(name)}.wav"
        write_audio(path, spoken.waveform, cast.tokenizer.config.sample_rate)
        row = {"turn": number, "speaker": name, "text": line.strip(), "audio": path.name}
        with open(output / TRANSCRIPT_FILE, "a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(row | {"timing": spoken.timing._asdict()}, ensure_ascii=False) + "\n")
        yield path, name, spoken
        turn, number = turn + 1, number + 1


def free_path(parent: Path, suffix: str = "") -> Path:
    """The first of parent/000, parent/001 ... with this suffix that does not exist."""
    return next(path for number in range(10**6) if not (path := parent / f"{number:03d}{suffix}").exists())
