"""Expresso (T. A. Nguyen et al., Interspeech 2023; CC BY-NC 4.0), https://speechbot.github.io/expresso/.

    audio_48khz/read/ex01/STYLE/CORPUS/ex01_STYLE_00001.wav        read speech, in read_transcriptions.txt
    audio_48khz/conversational/ex01-ex02/STYLE/ex01-ex02_STYLE_001.wav   two channels, without transcripts

The style is the emotion label. Conversations have no transcripts: --transcribe recognises them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from csm.data.corpora.layouts.fields import text_of
from csm.data.corpora.layouts.source import Layout, SourceConversation, SourceTurn, Untranscribed
from csm.data.corpora.layouts.tree import Tree

TRANSCRIPTS = "read_transcriptions.txt"


def recognise(tree: Tree) -> str | None:
    """Looks for the transcripts and counts the conversations."""
    if not any(path.name == TRANSCRIPTS for path in tree.files):
        return None
    return f"{TRANSCRIPTS} and {sum(_is_conversation(tree, audio) for audio in tree.audio())} conversations"


def read(tree: Tree) -> Iterator[SourceConversation | Untranscribed]:
    """Yields read sentences, each a conversation of its own, and the conversations."""
    texts: dict[Path, dict[str, str]] = {}
    for path in tree.files:
        if path.name == TRANSCRIPTS:
            tree.used.add(path)
            texts[path.parent] = dict(_texts(tree, path))
        elif path.suffix.lower() == ".txt":
            tree.reject_file(path, "is no transcript: splits, VAD and licence are not read")
    for audio in tree.audio():
        style = audio.stem.split("_")[1] if "_" in audio.stem else ""
        if _is_conversation(tree, audio):
            tree.used.add(audio)
            pair = audio.stem.split("_")[0].split("-")
            yield Untranscribed(id=audio.stem, audio=audio, speakers=tuple(pair), emotion=style or None)
            continue
        try:
            known = next((texts[folder] for folder in audio.parents if folder in texts), {})
            text = known[audio.stem]
        except KeyError:
            tree.reject_file(audio, f"{TRANSCRIPTS} has no text of it: expected a line with its name")
            continue
        tree.used.add(audio)
        speaker = audio.stem.split("_")[0]
        turn = SourceTurn(speaker=speaker, text=text, audio=audio, emotion=style or None, id=audio.stem)
        yield SourceConversation(id=audio.stem, turns=[turn])


def _texts(tree: Tree, path: Path) -> Iterator[tuple[str, str]]:
    """Yields the name of a recording below the folder of the transcripts, and its text."""
    recordings = {audio.stem for audio in tree.audio() if audio.is_relative_to(path.parent)}
    lines: dict[str, str] = {}
    for where, line in tree.lines(path):
        name, separator, text = line.partition("\t")
        if not separator:
            tree.reject_turn(where, "has one column: expected the name of a recording and its text")
        elif name in lines:
            tree.reject_turn(where, f"{name} has a text already: expected it once, found {lines[name]} too")
        elif name not in recordings:
            tree.reject_turn(where, f"recording {name!r} is missing: expected audio of that name")
        else:
            lines[name] = where
            try:
                yield name, text_of(text)
            except ValueError as error:
                tree.reject_turn(where, error)


def _is_conversation(tree: Tree, audio: Path) -> bool:
    return "conversational" in audio.relative_to(tree.root).parts


LAYOUT = Layout(
    name="expresso",
    looks_for="read_transcriptions.txt and audio_48khz/ (Expresso)",
    recognise=recognise,
    read=read,
)
