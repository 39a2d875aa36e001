"""csm-hf's layout: a .jsonl of conversations as messages, one file a turn.

{"messages": [{"role": "speaker_0", "content": [{"type": "text", "text": "Hi."},
                                                {"type": "audio", "url": "clips/0.wav"}]}, ...]}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from csm.data.corpora.layouts.fields import field, speaker_of, text_of
from csm.data.corpora.layouts.source import Layout, SourceConversation, SourceTurn
from csm.data.corpora.layouts.tree import MALFORMED, Tree


def recognise(tree: Tree) -> str | None:
    """Names the .jsonl with messages."""
    found = _tables(tree)
    return ", ".join(tree.shown(path) for path in found[:3]) or None


def read(tree: Tree) -> Iterator[SourceConversation]:
    """Yields one conversation for each line."""
    for path in _tables(tree):
        tree.used.add(path)
        for number, (where, entry) in enumerate(tree.json_lines(path)):
            conversation = SourceConversation(id=f"{tree.shown(path.with_suffix(''))}-{number:06d}")
            try:
                messages = field(entry, "messages")
                if not isinstance(messages, list):
                    raise ValueError(f"messages are {type(messages).__name__}: expected a list")
            except ValueError as error:
                tree.reject_turn(where, error)
                continue
            for place, message in enumerate(messages):
                try:
                    turn = _turn(tree, path, message, conversation.id)
                    tree.used.add(turn.audio)
                    conversation.turns.append(turn)
                except MALFORMED as error:
                    tree.reject_turn(f"{where}, message {place}", error)
            yield conversation


def _turn(tree: Tree, path: Path, message: Any, conversation: str) -> SourceTurn:
    content = field(message, "content")
    parts: dict[str, list[Any]] = {}
    for part in content if isinstance(content, list) else []:
        parts.setdefault(speaker_of(field(part, "type"), "type"), []).append(part)
    if set(parts) != {"text", "audio"}:
        raise ValueError(f"content has {', '.join(sorted(parts)) or 'nothing'}: expected text and audio")
    if (count := len(parts["audio"])) > 1:
        raise ValueError(f"content has {count} parts of audio: expected one; split the message")
    name = text_of(field(parts["audio"][0], "url", "path", "audio"), "url")
    # Roles are positions ("speaker_0"), not people: the same role elsewhere is another voice.
    return SourceTurn(
        speaker=f"{conversation}-{speaker_of(field(message, 'role'), 'role')}",
        text=" ".join(text_of(field(part, "text")) for part in parts["text"]),
        audio=tree.find(name.removeprefix("file://"), beside=path),
    )


def _tables(tree: Tree) -> list[Path]:
    return [path for path in tree.ending(".jsonl") if "messages" in tree.keys(path)]


LAYOUT = Layout(
    name="messages",
    looks_for='a .jsonl with "messages" of role and content, text and audio (csm-hf)',
    recognise=recognise,
    read=read,
)
