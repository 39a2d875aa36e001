"""Writes a speech folder: evaluation lines and dialogues as recording, resynthesis and generated speech.

speech.jsonl describes the folder, one JSON object a line; `csm.evaluation` reads it. Finished items are kept
in speech.jsonl.part, so that a stopped call can be resumed; speech.jsonl appears when all items are there.

The turns of a generated dialogue follow each other after a constant gap of 0.2 s, and those of the recorded
one without a gap. The model predicts no gaps, so these files say nothing about turn-taking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from csm.audio.files import write_audio
from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn
from csm.generation.evaluation_lines import held_out_dialogues, held_out_lines
from csm.generation.session import Session
from csm.generation.speech import Speech
from csm.generation.speech_rows import SPEECH_FILE, Row, read_rows, require_same_origin, write_rows
from csm.generation.talker import Talker
from csm.system.log import progress
from csm.tokenizer.opening import VoiceTokenizer

PART_FILE = "speech.jsonl.part"
CONDITIONS = ("recording", "resynthesis", "generated")
# Silence between the turns of a generated dialogue: the commonest gap between speakers (Stivers et al. 2009).
GAP_SECONDS = 0.2
LINES = 8


def write_speech_folder(
    talker: Talker,
    corpus: Corpus,
    output: Path,
    origin: Mapping[str, Any],
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """Speaks eight held-out lines of the main voice and two dialogues; returns the number of new items.

    Args:
        talker: Talker whose main voice is evaluated.
        corpus: Corpus with the lines and their recordings.
        output: Speech folder; its finished items are kept.
        origin: Description of model, tokenizer, corpus and settings, as JSON values; a folder with another
            description is refused.
        say: Receives a message for each kind of item that the corpus lacks.

    Raises:
        ValueError: The folder holds speech of another origin, or the corpus has no fitting turns.
    """
    items = _chosen_items(talker, corpus)
    require_same_origin(output, origin)
    for message in _missing(items, talker.voice().name):
        say(message)
    kept = finished_items(output, items)
    if len(kept) == len(items) and (output / SPEECH_FILE).is_file():
        return 0
    with progress("speak", sum(map(len, items.values())), unit="turn") as bar:
        writer = ItemWriter(talker=talker, corpus=corpus, output=output, done=bar.update)
        for number, (item, turns) in enumerate(items.items()):
            if item in kept:
                bar.update(len(turns))
                continue
            write = writer.line if item.startswith("line") else writer.dialogue
            kept[item] = write(item, turns, talker.session(talker.sampling.seed + number))
            write_rows(output / PART_FILE, [row for rows in kept.values() for row in rows])
    write_rows(output / SPEECH_FILE, [row for item in items for row in kept[item]])
    (output / PART_FILE).unlink(missing_ok=True)
    return len(items)


def _chosen_items(talker: Talker, corpus: Corpus) -> dict[str, tuple[Turn, ...]]:
    name = talker.voice().name
    lines = held_out_lines(corpus, name, LINES)
    dialogues = held_out_dialogues(corpus, name, voices=talker.voices)
    if not lines and not dialogues:
        raise ValueError(
            f"{corpus.root} has no test turns of {name} (1.2 to 6 s, four words or more) to speak: "
            f"speak a line of your own with --text"
        )
    items: dict[str, tuple[Turn, ...]] = {f"line_{i:02d}": (line,) for i, line in enumerate(lines)}
    return items | {f"dialogue_{i:02d}": turns for i, turns in enumerate(dialogues)}


def _missing(items: Mapping[str, Sequence[Turn]], name: str) -> Iterator[str]:
    """Yields what the corpus lacks, one sentence each."""
    lines = sum(item.startswith("line") for item in items)
    if lines < LINES:
        yield f"the test split has {lines} fitting lines of {name}, not {LINES}: these are spoken"
    if lines == len(items):
        yield "no dialogues: no test conversation has six consecutive turns of two speakers with a voice"


class SpokenTurnFiles(NamedTuple):
    """Files of one turn.

    Attributes:
        names: File name of each condition.
        recording: Recording [1, S] at the tokenizer's sample rate.
        speech: Generated speech.
    """

    names: dict[str, str]
    recording: Tensor
    speech: Speech


@dataclass(frozen=True, kw_only=True)
class ItemWriter:
    """Speaks items of a speech folder and writes their WAV files.

    Attributes:
        talker: Talker that speaks.
        corpus: Corpus with the recordings.
        output: Speech folder.
        done: Is called after each turn.
    """

    talker: Talker
    corpus: Corpus
    output: Path
    done: Callable[[], Any]

    def line(self, item: str, turns: Sequence[Turn], session: Session) -> list[Row]:
        """Speaks one line in a session of its own and writes its WAV files; returns its row."""
        (turn,) = turns
        files = self._turn(item, turn, session)
        identity = {"kind": "line", "id": item, "conversation": turn.conversation, "turn": turn.index}
        return [identity | _spoken_row(turn, files)]

    def dialogue(self, item: str, turns: Sequence[Turn], session: Session) -> list[Row]:
        """Speaks turns in one session and writes their WAV files; returns their rows and the dialogue's row.

        The whole dialogue is written too, with a channel per speaker and a constant gap of 0.2 s between its
        generated turns.
        """
        rate = self.talker.tokenizer.config.sample_rate
        main = self.talker.voice().name
        speakers = sorted({turn.speaker for turn in turns}, key=lambda name: (name != main, name))
        generated, recorded = Track(gap=round(GAP_SECONDS * rate)), Track()
        rows: list[Row] = []
        for number, turn in enumerate(turns):
            name = f"{item}.turn_{number:02d}"
            files = self._turn(name, turn, session)
            channel = speakers.index(turn.speaker)
            start, end = generated.append(channel, files.speech.waveform)
            recording_start, recording_end = recorded.append(channel, files.recording)
            rows.append(
                {"kind": "turn", "id": name, "dialogue": item, "turn": number}
                | _spoken_row(turn, files)
                | {"start": round(start / rate, 6), "end": round(end / rate, 6)}
                | {"recording_start": round(recording_start / rate, 6)}
                | {"recording_end": round(recording_end / rate, 6)}
            )
        tracks = {"generated": generated, "recording": recorded}
        names = {condition: f"{item}.{condition}.wav" for condition in tracks}
        for condition, track in tracks.items():
            write_audio(self.output / names[condition], track.mixed(len(speakers)), rate)
        gap = f"constant {GAP_SECONDS} s"
        return [*rows, {"kind": "dialogue", "id": item, "speakers": speakers, "gap": gap, **names}]

    def _turn(self, name: str, turn: Turn, session: Session) -> SpokenTurnFiles:
        """Writes a turn in all conditions."""
        tokenizer = self.talker.tokenizer
        rate = tokenizer.config.sample_rate
        recording = read_turn(self.corpus, turn, rate)
        speech = self.talker.speak_turn(turn.text, turn.speaker, session=session)
        waveforms = (recording, resynthesised(tokenizer, recording), speech.waveform)
        names = {condition: f"{name}.{condition}.wav" for condition in CONDITIONS}
        for condition, waveform in zip(CONDITIONS, waveforms, strict=True):
            write_audio(self.output / names[condition], waveform, rate)
        self.done()
        return SpokenTurnFiles(names, recording, speech)


class Track:
    """Waveforms of a dialogue, one after another, each in the channel of its speaker.

    Args:
        gap: Samples of silence between two waveforms.
    """

    def __init__(self, gap: int = 0) -> None:
        self._gap = gap
        self._parts: list[tuple[int, int, Tensor]] = []

    def append(self, channel: int, waveform: Tensor) -> tuple[int, int]:
        """Appends a waveform [1, S]; returns its first sample and the one after its last."""
        start = 0
        if self._parts:
            _, previous, before = self._parts[-1]
            start = previous + before.shape[1] + self._gap
        self._parts.append((channel, start, waveform))
        return start, start + waveform.shape[1]

    def mixed(self, channels: int) -> Tensor:
        """Returns the dialogue, float32 [channels, S]."""
        whole = torch.zeros(channels, max(start + waveform.shape[1] for _, start, waveform in self._parts))
        for channel, start, waveform in self._parts:
            whole[channel, start : start + waveform.shape[1]] += waveform[0]
        return whole


@torch.no_grad()
def resynthesised(tokenizer: VoiceTokenizer, waveform: Tensor) -> Tensor:
    """Returns a waveform [1, S] encoded and decoded with its own speaker and emotion embedding."""
    device = tokenizer.device
    codes, info = tokenizer.encode(waveform.unsqueeze(0).to(device))
    decoded = tokenizer.decode(codes, speaker=info.speaker, emotion=info.emotion)
    return decoded[0, :, : waveform.shape[1]].cpu()


def finished_items(output: Path, items: Mapping[str, Sequence[Turn]]) -> dict[str, list[Row]]:
    """Returns the rows of the items whose files an earlier call has finished, in the order of `items`."""
    found: dict[str, list[Row]] = {}
    for name in (PART_FILE, SPEECH_FILE):
        if (output / name).is_file():
            for row in read_rows(output / name):
                found.setdefault(str(row.get("dialogue", row["id"])), []).append(row)
            break
    return {
        item: found[item]
        for item in items
        if item in found
        and all((output / row[f]).is_file() for row in found[item] for f in CONDITIONS if f in row)
    }


def _spoken_row(turn: Turn, files: SpokenTurnFiles) -> Row:
    text = {"speaker": turn.speaker, "text": turn.text}
    return text | files.names | {"timing": files.speech.timing._asdict()}
