"""What a trained model shows: held-out lines and short dialogues beside their recordings, as WAV files.

The folder it writes is described by speech.jsonl, one JSON object a line; `csm.evaluation.subjects.speech_folder`
reads it. Finished items are kept in speech.jsonl.part, so that a demonstration that was cut off goes on where
it was; speech.jsonl appears when everything is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from csm.data.audio import write_audio
from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn
from csm.generation.held_out import held_out_dialogues, held_out_lines
from csm.generation.sampling import SamplingConfig
from csm.generation.session import Session
from csm.generation.streaming import Spoken, speak_aloud
from csm.generation.voices import Voice, main_speaker
from csm.network.csm_model import CSMModel
from csm.tokenizer.conversational_rvq import ConversationalRVQ

SPEECH_FILE, PART_FILE, ORIGIN_FILE = "speech.jsonl", "speech.jsonl.part", "origin.json"
# Silence between the turns of a generated dialogue: the commonest gap between speakers (Stivers et al. 2009).
GAP_SECONDS = 0.2

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Cast:
    """Everything that is needed to speak.

    Attributes:
        model, tokenizer: Trained, in eval mode, on one device.
        corpus: Whose held-out turns are spoken.
        voice: The voice of a speaker's name.
        sampling: How codes are drawn.
    """

    model: CSMModel
    tokenizer: ConversationalRVQ
    corpus: Corpus
    voice: Callable[[str], Voice]
    sampling: SamplingConfig

    def session(self, number: int) -> Session:
        """A new conversation; its number goes into the seed."""
        return Session(self.model, replace(self.sampling, seed=self.sampling.seed + number))


def demonstrate(
    cast: Cast, output: Path, origin: Mapping[str, Any], say: Callable[[str], None] = lambda line: None
) -> int:
    """Speaks eight held-out lines of the main voice and two dialogues; returns how many items were made now.

    Args:
        output: The speech folder; what is finished in it is kept.
        origin: Names what the speech is of, as JSON values; a folder with speech of anything else is refused.
        say: Told in a line what is left out and why.

    Raises:
        ValueError: The folder holds speech of another origin, or the corpus has nothing to speak.
    """
    name = main_speaker(cast.corpus)
    lines = held_out_lines(cast.corpus, name)
    dialogues = held_out_dialogues(cast.corpus, name)
    if not lines and not dialogues:
        raise ValueError(
            f"{cast.corpus.root} has no test turns of {name} (1.2 to 6 s, four words or more) to speak: "
            f"say lines of your own with --text"
        )
    require_same_origin(output, origin)
    if len(lines) < 8:
        say(f"the test split has {len(lines)} fitting lines of {name}, not 8: these are spoken")
    if not dialogues:
        say("no dialogues: no test conversation has six turns in a row of two speakers that were trained on")
    items: dict[str, tuple[Turn, ...]] = {f"line_{i:02d}": (line,) for i, line in enumerate(lines)}
    items |= {f"dialogue_{i:02d}": turns for i, turns in enumerate(dialogues)}
    kept = finished_items(output, items)
    if len(kept) == len(items) and (output / SPEECH_FILE).is_file():
        return 0
    with tqdm(total=sum(map(len, items.values())), desc="speak", ascii=True, unit="turn") as bar:
        for number, (item, turns) in enumerate(items.items()):
            if item not in kept:
                make = make_line if item.startswith("line") else make_dialogue
                kept[item] = make(cast, output, item, turns, cast.session(number), bar.update)
                write_rows(output / PART_FILE, [row for rows in kept.values() for row in rows])
            else:
                bar.update(len(turns))
    write_rows(output / SPEECH_FILE, [row for item in items for row in kept[item]])
    (output / PART_FILE).unlink(missing_ok=True)
    return len(items)


def make_line(
    cast: Cast, output: Path, item: str, turns: Sequence[Turn], session: Session, done: Callable[[], Any]
) -> list[Row]:
    """Speaks one line in a conversation of its own and writes its three WAVs; returns its row."""
    (turn,) = turns
    audio, _, spoken = _three_versions(cast, output, item, turn, session)
    done()
    identity = {"kind": "line", "id": item, "conversation": turn.conversation, "turn": turn.index}
    return [identity | _what(turn) | audio | {"timing": spoken.timing._asdict()}]


def make_dialogue(
    cast: Cast, output: Path, item: str, turns: Sequence[Turn], session: Session, done: Callable[[], Any]
) -> list[Row]:
    """Speaks turns in one conversation, each hearing those before it; returns the turns' rows and its own."""
    rate = cast.tokenizer.config.sample_rate
    speakers = sorted(
        {turn.speaker for turn in turns}, key=lambda name: (name != main_speaker(cast.corpus), name)
    )
    gap = round(GAP_SECONDS * rate)
    rows: list[Row] = []
    parts: dict[str, list[tuple[int, int, Tensor]]] = {"generated": [], "recording": []}
    start = recording_start = 0
    for number, turn in enumerate(turns):
        name = f"{item}.turn_{number:02d}"
        audio, recording, spoken = _three_versions(cast, output, name, turn, session)
        end = start + spoken.waveform.shape[1]
        recording_end = recording_start + recording.shape[1]
        channel = speakers.index(turn.speaker)
        parts["generated"].append((channel, start, spoken.waveform))
        parts["recording"].append((channel, recording_start, recording))
        times = {
            "start": start / rate,
            "end": end / rate,
            "recording_start": recording_start / rate,
            "recording_end": recording_end / rate,
        }
        rows.append(
            {"kind": "turn", "id": name, "dialogue": item, "turn": number}
            | _what(turn)
            | audio
            | {key: round(value, 6) for key, value in times.items()}
            | {"timing": spoken.timing._asdict()}
        )
        start, recording_start = end + gap, recording_end
        done()
    names = {condition: f"{item}.{condition}.wav" for condition in parts}
    for condition, name in names.items():
        write_audio(output / name, mixed(parts[condition], len(speakers)), rate)
    return [*rows, {"kind": "dialogue", "id": item, "speakers": speakers, **names}]


def mixed(parts: Sequence[tuple[int, int, Tensor]], channels: int) -> Tensor:
    """Waveforms [1, S] laid out by (channel, first sample): float32 [channels, S]."""
    whole = torch.zeros(channels, max(start + waveform.shape[1] for _, start, waveform in parts))
    for channel, start, waveform in parts:
        whole[channel, start : start + waveform.shape[1]] += waveform[0]
    return whole


@torch.no_grad()
def resynthesised(tokenizer: ConversationalRVQ, waveform: Tensor) -> Tensor:
    """A waveform [1, S] through the tokenizer and back, with its own speaker and emotion embedding."""
    device = tokenizer.decoder.embed.weight.device
    codes, info = tokenizer.encode(waveform.unsqueeze(0).to(device))
    decoded = tokenizer.decode(codes, speaker=info.speaker, emotion=info.emotion)
    return decoded[0, :, : waveform.shape[1]].cpu()


def require_same_origin(output: Path, origin: Mapping[str, Any]) -> None:
    """Takes a speech folder for speech of this origin, or makes sure that it is already.

    Raises:
        ValueError: It holds speech of another one; the differing fields are listed.
    """
    path = output / ORIGIN_FILE
    here = json.loads(json.dumps(dict(origin)))
    if path.is_file():
        there = json.loads(path.read_text(encoding="utf-8"))
        differing = [key for key in sorted({*here, *there}) if here.get(key) != there.get(key)]
        if differing:
            listed = ", ".join(f"{key} ({there.get(key)} there, {here.get(key)} here)" for key in differing)
            raise ValueError(
                f"{output} holds other speech: {listed} differ; choose another --output or delete it"
            )
        return
    if (output / SPEECH_FILE).is_file():
        raise ValueError(
            f"{output} has {SPEECH_FILE} but no {ORIGIN_FILE}: choose another --output or delete it"
        )
    output.mkdir(parents=True, exist_ok=True)
    _replace(path, json.dumps(here, indent=1, ensure_ascii=False) + "\n")


def finished_items(output: Path, items: Mapping[str, Sequence[Turn]]) -> dict[str, list[Row]]:
    """Rows of the items that an earlier call finished and whose files are there, in the order of `items`."""
    found: dict[str, list[Row]] = {}
    for name in (PART_FILE, SPEECH_FILE):
        if (output / name).is_file():
            for text in (output / name).read_text(encoding="utf-8").splitlines():
                row = json.loads(text)
                found.setdefault(row.get("dialogue", row["id"]), []).append(row)
            break
    files = ("recording", "resynthesis", "generated")
    return {
        item: found[item]
        for item in items
        if item in found
        and all((output / row[f]).is_file() for row in found[item] for f in files if f in row)
    }


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes one JSON object a line, whole or not at all."""
    _replace(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    temporary.replace(path)


def _three_versions(
    cast: Cast, output: Path, name: str, turn: Turn, session: Session
) -> tuple[dict[str, str], Tensor, Spoken]:
    """Writes recording, resynthesis and generated WAV of a turn; returns file names, recording and speech."""
    rate = cast.tokenizer.config.sample_rate
    recording = read_turn(cast.corpus, turn, rate)
    spoken = speak_aloud(session, cast.tokenizer, turn.text, cast.voice(turn.speaker))
    waveforms = {
        "recording": recording,
        "resynthesis": resynthesised(cast.tokenizer, recording),
        "generated": spoken.waveform,
    }
    names = {condition: f"{name}.{condition}.wav" for condition in waveforms}
    for condition, waveform in waveforms.items():
        write_audio(output / names[condition], waveform, rate)
    return names, recording, spoken


def _what(turn: Turn) -> Row:
    return {"speaker": turn.speaker, "text": turn.text}
