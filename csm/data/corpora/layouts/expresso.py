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
    return f"{TRANSCRIPTS} and {sum(map(_is_conversation, tree.audio()))} conversations"


def read(tree: Tree) -> Iterator[SourceConversation | Untranscribed]:
    """Yields read sentences, each a conversation of its own, and the conversations."""
    texts: dict[str, str] = {}
    for path in tree.files:
        if path.name == TRANSCRIPTS:
            tree.used.add(path)
            texts |= dict(line.split("\t", 1) for line in tree.text(path).splitlines() if "\t" in line)
        elif path.suffix.lower() == ".txt":
            tree.reject_file(path, "is no transcript: splits, VAD and licence are not read")
    for audio in tree.audio():
        style = audio.stem.split("_")[1] if "_" in audio.stem else ""
        if _is_conversation(audio):
            tree.used.add(audio)
            pair = audio.stem.split("_")[0].split("-")
            yield Untranscribed(id=audio.stem, audio=audio, speakers=tuple(pair), emotion=style or None)
            continue
        try:
            text = text_of(texts.get(audio.stem), f"its line in {TRANSCRIPTS}")
        except ValueError as error:
            tree.reject_file(audio, error)
            continue
        tree.used.add(audio)
        speaker = audio.stem.split("_")[0]
        turn = SourceTurn(speaker=speaker, text=text, audio=audio, emotion=style or None, id=audio.stem)
        yield SourceConversation(id=audio.stem, turns=[turn])


def _is_conversation(audio: Path) -> bool:
    return "conversational" in audio.parts


LAYOUT = Layout(
    name="expresso",
    looks_for="read_transcriptions.txt and audio_48khz/ (Expresso)",
    recognise=recognise,
    read=read,
)
