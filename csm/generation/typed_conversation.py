"""A conversation whose lines are typed: each is spoken in a session that holds the lines before it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from csm.audio.files import write_audio
from csm.data.manifest import file_safe
from csm.generation.speech import Speech
from csm.generation.talker import Talker
from csm.system.files import full_disk_named

TRANSCRIPT_FILE = "transcript.jsonl"


def typed_conversation(
    talker: Talker, lines: Iterable[str], speakers: Sequence[str], output: Path
) -> Iterator[tuple[Path, str, Speech]]:
    """Speaks lines as they arrive, in one session, by the speakers in turn; writes a WAV and a row for each.

    A line "NAME: text" is spoken by NAME if that is one of the speakers, and the turns continue from there.
    Empty lines are skipped.

    Args:
        talker: Talker with voices of the speakers.
        lines: Texts, one turn each.
        speakers: Speaker names, in the order of their turns.
        output: Folder without a transcript; made if missing.

    Yields:
        The WAV file, the speaker's name and the speech.

    Raises:
        ValueError: A speaker is unknown, the folder holds a transcript, or a line is too long for the model.
    """
    if (output / TRANSCRIPT_FILE).exists():
        raise ValueError(f"{output} holds a conversation already: choose another --output")
    for name in speakers:
        talker.voice(name)
    session = talker.session()
    output.mkdir(parents=True, exist_ok=True)
    turn = number = 0
    for line in lines:
        head, colon, rest = line.partition(":")
        if colon and head.strip() in speakers:
            turn, line = speakers.index(head.strip()), rest
        if not line.strip():
            continue
        name = speakers[turn % len(speakers)]
        speech = talker.speak_turn(line.strip(), name, session=session)
        path = output / f"turn_{number:03d}.{file_safe(name)}.wav"
        write_audio(path, speech.waveform, speech.sample_rate)
        row = {"turn": number, "speaker": name, "text": line.strip(), "audio": path.name}
        with (
            full_disk_named(output / TRANSCRIPT_FILE),
            open(output / TRANSCRIPT_FILE, "a", encoding="utf-8", newline="\n") as file,
        ):
            file.write(json.dumps(row | {"timing": speech.timing._asdict()}, ensure_ascii=False) + "\n")
        yield path, name, speech
        turn, number = turn + 1, number + 1


def free_path(parent: Path, suffix: str = "") -> Path:
    """Returns the first of parent/000, parent/001, ... with this suffix that does not exist."""
    return next(path for number in range(10**6) if not (path := parent / f"{number:03d}{suffix}").exists())
