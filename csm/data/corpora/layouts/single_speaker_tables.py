"""Tables of read sentences: LJSpeech's and Common Voice's.

    LJSpeech       metadata.csv: id|text|normalised text, without a line of names; wavs/ID.wav
    Common Voice   NAME.tsv with client_id, path, sentence; clips/PATH

LJSpeech's lines of one chapter (ID up to its last "-") are one conversation of one speaker, the folder; a
sentence of Common Voice is a conversation of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from csm.data.corpora.layouts.fields import field, speaker_of, text_of
from csm.data.corpora.layouts.source import Layout, SourceConversation, SourceTurn
from csm.data.corpora.layouts.tree import Tree

COMMON_VOICE_FILES = ("validated.tsv", "train.tsv", "dev.tsv", "test.tsv")
SPLIT_OF_FILE = {"train.tsv": "train", "dev.tsv": "validation", "test.tsv": "test"}


def recognise_ljspeech(tree: Tree) -> str | None:
    """Names the metadata.csv beside a folder wavs."""
    found = [
        path
        for path in _metadata(tree)
        if (text := tree.text_or_none(path)) and not text.lower().startswith(("path", "id|text"))
    ]
    return ", ".join(tree.shown(path) for path in found) or None


def read_ljspeech(tree: Tree) -> Iterator[SourceConversation]:
    """Yields one conversation for each chapter."""
    for path in _metadata(tree):
        tree.used.add(path)
        chapters: dict[str, SourceConversation] = {}
        lines: dict[str, str] = {}
        for where, line in tree.lines(path):
            try:
                parts = line.split("|")
                if len(parts) < 2:
                    raise ValueError("has one column: expected id|text or id|text|normalised text")
                name = parts[0].strip()
                # The third column spells numbers and abbreviations out.
                text = text_of(parts[2] if len(parts) > 2 and parts[2].strip() else parts[1])
                audio = _clip(tree, path, name)
                if name in lines:
                    raise ValueError(f"{name} has a text already: expected it once, found {lines[name]} too")
            except ValueError as error:
                tree.reject_turn(where, error)
                continue
            lines[name] = where
            tree.used.add(audio)
            chapter = name.rpartition("-")[0] or name
            conversation = chapters.setdefault(chapter, SourceConversation(id=chapter))
            speaker = speaker_of(path.parent.name)
            conversation.turns.append(SourceTurn(speaker=speaker, text=text, audio=audio, id=name))
        yield from chapters.values()


def recognise_common_voice(tree: Tree) -> str | None:
    """Names the tables with client_id, path and sentence."""
    found = [path for path in tree.ending(".tsv") if _is_common_voice(tree, path)]
    return ", ".join(tree.shown(path) for path in found[:3]) or None


def read_common_voice(tree: Tree) -> Iterator[SourceConversation]:
    """Yields one conversation for each sentence; clips of several tables count once."""
    tables = [
        path
        for path in tree.ending(".tsv")
        if path.name in COMMON_VOICE_FILES or _is_common_voice(tree, path)
    ]
    tables.sort(key=lambda path: (path.name not in SPLIT_OF_FILE, path.name))
    taken: dict[Path, tuple[str, str]] = {}
    for path in tables:
        if path.name not in COMMON_VOICE_FILES:
            tree.reject_file(
                path, f"expected one of {', '.join(COMMON_VOICE_FILES)}: its clips are not validated"
            )
            continue
        tree.used.add(path)
        for where, row in tree.table(path):
            try:
                text = text_of(field(row, "sentence"), "sentence")
                speaker = speaker_of(field(row, "client_id"), "client_id")
                audio = tree.find(f"clips/{text_of(field(row, 'path'), 'path')}", beside=path)
            except ValueError as error:
                tree.reject_turn(where, error)
                continue
            if audio in taken:  # validated.tsv repeats the clips of the splits
                before, known = taken[audio]
                if known != text:
                    tree.reject_turn(
                        where, f"its clip says {known!r} in {before}: expected the same sentence"
                    )
                continue
            taken[audio] = where, text
            tree.used.add(audio)
            turn = SourceTurn(speaker=speaker, text=text, audio=audio, id=audio.stem)
            yield SourceConversation(id=audio.stem, turns=[turn], split=SPLIT_OF_FILE.get(path.name))


def _clip(tree: Tree, path: Path, name: str) -> Path:
    if Path(name).suffix:
        return tree.find(name if "/" in name else f"wavs/{name}", beside=path)
    return tree.audio_beside(path.parent / "wavs" / name, name)


def _metadata(tree: Tree) -> list[Path]:
    return [
        path
        for path in tree.ending(".csv", ".txt")
        if path.stem.lower() == "metadata"
        and (path.parent / "wavs").is_dir()
        and ((text := tree.text_or_none(path)) is None or "|" in text[:1000])
    ]


def _is_common_voice(tree: Tree, path: Path) -> bool:
    names = (tree.text_or_none(path) or "").split("\n", 1)[0].strip("\r").split("\t")
    return {"client_id", "path", "sentence"} <= set(names)


LJSPEECH = Layout(
    name="ljspeech",
    looks_for="metadata.csv of id|text beside a folder wavs",
    recognise=recognise_ljspeech,
    read=read_ljspeech,
)
COMMON_VOICE = Layout(
    name="common_voice",
    looks_for="a .tsv with client_id, path, sentence beside a folder clips",
    recognise=recognise_common_voice,
    read=read_common_voice,
)
