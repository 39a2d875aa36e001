"""Writes moshi-finetune's stereo layout: data.jsonl, data_stereo/NAME.wav and NAME.json with alignments.

The first speaker of a conversation is SPEAKER_MAIN, the left channel. A conversation that lies in one file of
two channels keeps its audio and times. Speakers who share a channel are put on two, silence elsewhere; turns
in files of their own are laid end to end. An alignment is a word of a turn whose words words.jsonl has, else
the whole turn. `csm_turns` says which alignments are a turn, and what the layout has no field for: its text
where the words are spelled otherwise, id and emotion. `csm_speakers` has the names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from csm.audio.files import iter_blocks, read_audio, sample_rate_of, write_audio
from csm.data.corpora.layouts.moshi_finetune import MAIN, OTHER
from csm.data.manifest import Conversation, Corpus, Turn, file_safe
from csm.data.word_times import Word, read_words
from csm.system.log import log, progress_of

GAP = 0.3  # seconds between turns that are laid end to end


def write_moshi_finetune(corpus: Corpus, folder: Path) -> list[tuple[str, str]]:
    """Writes the corpus into an existing folder.

    Returns:
        (conversation, reason) of each one that the layout cannot hold.
    """
    (folder / "data_stereo").mkdir()
    words = read_words(corpus.root)
    left_out, lines, whole, total_turns = [], [], 0, 0
    total = len(corpus.conversations)
    for conversation in progress_of(corpus.conversations, "moshi", total, unit="conversation"):
        speakers = list(dict.fromkeys(turn.speaker for turn in conversation.turns))
        if len(speakers) > 2:
            left_out.append((conversation.id, f"has {len(speakers)} speakers: the layout holds 2"))
            continue
        placed, waveform, rate = _stereo(corpus, conversation, speakers)
        path = folder / "data_stereo" / f"{file_safe(conversation.id)}.wav"
        write_audio(path, waveform, rate)
        content = _content(conversation, placed, words)
        whole += sum(not turn["words"] for turn in content["csm_turns"])
        total_turns += len(content["csm_turns"])
        path.with_suffix(".json").write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
        lines.append({"path": f"data_stereo/{path.name}", "duration": waveform.shape[1] / rate})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "data.jsonl").write_text(text, encoding="utf-8")
    if whole:
        log.warning("%d of %d turns have no times of words: each is one alignment", whole, total_turns)
    return left_out


def _content(
    conversation: Conversation,
    placed: list[tuple[Turn, int, float]],
    words: dict[str, tuple[Word, ...]],
) -> dict[str, Any]:
    """Returns the content of NAME.json of (turn, channel, seconds by which it moved)."""
    placed = [part for part in placed if part[0].text]  # of a turn without a text there is only the sound
    entries: list[tuple[list[Any], int]] = []  # alignment, number of its turn
    for number, (turn, channel, moved) in enumerate(placed):
        for unit in words.get(turn.id) or (Word(turn.text, turn.start, turn.end),):
            times = [round(unit.start + moved, 6), round(unit.end + moved, 6)]
            entries.append(([unit.text, times, MAIN if channel == 0 else OTHER], number))
    entries.sort(key=lambda entry: entry[0][1])
    places: list[list[int]] = [[] for _ in placed]
    for place, (_, owner) in enumerate(entries):
        places[owner].append(place)
    turns = [
        {
            "id": turn.id,
            "start": round(turn.start + moved, 6),
            "end": round(turn.end + moved, 6),
            "text": turn.text,
            "emotion": turn.emotion,
            "words": bool(words.get(turn.id)),
            "alignments": places[number],
        }
        for number, (turn, _, moved) in enumerate(placed)
    ]
    return {
        "alignments": [entry for entry, _ in entries],
        "csm_conversation": conversation.id,
        "csm_split": conversation.split,
        "csm_speakers": {MAIN if channel == 0 else OTHER: turn.speaker for turn, channel, _ in placed},
        "csm_turns": turns,
    }


def _stereo(
    corpus: Corpus, conversation: Conversation, speakers: list[str]
) -> tuple[list[tuple[Turn, int, float]], Tensor, int]:
    """Returns (turn, channel, seconds by which it moved), waveform [2, S], and its rate in Hz."""
    turns = conversation.turns
    files = {turn.audio for turn in turns}
    rate = sample_rate_of(corpus.root / turns[0].audio)
    if len(files) > 1:
        return _laid_end_to_end(corpus, turns, speakers, rate)
    whole = torch.cat([torch.from_numpy(b) for b in iter_blocks(corpus.root / turns[0].audio)]).T
    placed = [(turn, turn.channel, 0.0) for turn in turns]
    if whole.shape[0] == 2 and len({(turn.speaker, turn.channel) for turn in turns}) == len(speakers):
        return placed, whole, rate
    stereo = torch.zeros(2, whole.shape[1])
    placed = [(turn, speakers.index(turn.speaker), 0.0) for turn in turns]
    for turn, channel, _ in placed:
        inside = slice(round(turn.start * rate), round(turn.end * rate))
        stereo[channel, inside] = whole[turn.channel, inside]
    return placed, stereo, rate


def _laid_end_to_end(
    corpus: Corpus, turns: tuple[Turn, ...], speakers: list[str], rate: int
) -> tuple[list[tuple[Turn, int, float]], Tensor, int]:
    placed, parts, position = [], [], 0
    for turn in turns:
        sound = read_audio(
            corpus.root / turn.audio, sample_rate=rate, start=turn.start, end=turn.end, channel=turn.channel
        )
        channel = speakers.index(turn.speaker)
        both = torch.zeros(2, sound.shape[1] + round(GAP * rate))
        both[channel, : sound.shape[1]] = sound[0]
        placed.append((turn, channel, position / rate - turn.start))
        parts.append(both)
        position += both.shape[1]
    return placed, torch.cat(parts, dim=1), rate
