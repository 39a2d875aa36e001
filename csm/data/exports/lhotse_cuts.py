"""Writes lhotse's manifests: cuts.jsonl, recordings.jsonl and supervisions.jsonl.

A cut is a whole recording with its turns as supervisions. Paths are absolute and lead into the corpus folder,
whose audio is not copied. What lhotse has no field for stands in `custom`: conversation, split, emotion,
overlap, backchannel, synthetic.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import soundfile

from csm.data.manifest import Conversation, Corpus, Turn, file_safe, write_jsonl
from csm.data.word_times import Word, read_words


def write_lhotse(corpus: Corpus, folder: Path) -> list[tuple[str, str]]:
    """Writes the corpus into an existing folder.

    Returns:
        (conversation, reason) of what the layout cannot hold: nothing.
    """
    words = read_words(corpus.root)
    by_file: dict[str, list[tuple[Conversation, Turn]]] = defaultdict(list)
    for conversation in corpus.conversations:
        for turn in conversation.turns:
            by_file[turn.audio].append((conversation, turn))
    recordings, supervisions, cuts = [], [], []
    for audio, spoken in by_file.items():
        recording = _recording(corpus.root.absolute() / audio, audio)
        own = [_supervision(c, turn, recording, words.get(turn.id, ())) for c, turn in spoken]
        recordings.append(recording)
        supervisions += own
        cuts.append(_cut(recording, own))
    write_jsonl(folder / "recordings.jsonl", recordings)
    write_jsonl(folder / "supervisions.jsonl", supervisions)
    write_jsonl(folder / "cuts.jsonl", cuts)
    return []


def _recording(path: Path, audio: str) -> dict[str, Any]:
    info = soundfile.info(str(path))
    channels = list(range(info.channels))
    return {
        "id": file_safe(audio.removeprefix("audio/").removesuffix(".flac")),
        "sources": [{"type": "file", "channels": channels, "source": str(path)}],
        "sampling_rate": info.samplerate,
        "num_samples": info.frames,
        "duration": info.frames / info.samplerate,
        "channel_ids": channels,
    }


def _supervision(
    conversation: Conversation, turn: Turn, recording: dict[str, Any], words: tuple[Word, ...]
) -> dict[str, Any]:
    # The manifest rounds to microseconds: a turn may end half of one after the last sample.
    end = min(turn.end, recording["duration"])
    entry: dict[str, Any] = {
        "id": turn.id,
        "recording_id": recording["id"],
        "start": turn.start,
        "duration": round(end - turn.start, 9),
        "channel": turn.channel,
        "text": turn.text,
        "speaker": turn.speaker,
        "custom": {
            "conversation": conversation.id,
            "split": conversation.split,
            "emotion": turn.emotion,
            "overlap": turn.overlap,
            "backchannel": turn.backchannel,
            "synthetic": turn.synthetic,
        },
    }
    if words:
        entry["alignment"] = {
            "word": [[w.text, w.start, round(w.end - w.start, 9), None] for w in words],
        }
    return entry


def _cut(recording: dict[str, Any], supervisions: list[dict[str, Any]]) -> dict[str, Any]:
    channels = recording["channel_ids"]
    return {
        "id": recording["id"],
        "start": 0,
        "duration": recording["duration"],
        "channel": channels[0] if len(channels) == 1 else channels,
        "supervisions": supervisions,
        "recording": recording,
        "type": "MonoCut" if len(channels) == 1 else "MultiCut",
    }
