"""A folder of one's own recordings: audio files with a text or a JSON beside each.

    NAME.wav + NAME.txt    one channel, one speaker (named after the folder), the text of all of it
    NAME.wav + NAME.json   {"turns": [{"speaker", "start", "end", "text", "channel", "emotion"}, ...]}: s
                           from the beginning; "channel" (from 0) is needed with two channels, "emotion" never
                           {"speaker", "text"}: one channel, one speaker, the text of all of it
                           {"speakers": ["ANN", "BEN"]}: two channels without times: speech is found
                           {"turns": [{"speaker", "channel", "text"}, ...]}: two channels, no times: texts
                           are laid on the stretches of speech found, when these are as many
    NAME.wav               two channels: one nameless speaker each, speech is found, texts stay empty

Any format that libsndfile reads, 8 to 192 kHz; subfolders are searched. Two-channel recordings stay two
channels. Everything in the folder that is not used stands in the reject ledger.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from csm.data.audio import AudioInfo, check_audio, copy_audio
from csm.data.corpus_writer import CorpusWriter
from csm.data.manifest import Corpus, Recording, Segment, Turn, file_safe
from csm.data.segmentation import SegmentationConfig, detect_segments, merge_units, to_turns
from csm.system.files import file_sha256

AUDIO_SUFFIXES = frozenset(
    ".wav .flac .mp3 .ogg .opus .oga .aif .aiff .aifc .au .snd .caf .w64 .rf64".split()
)
TEXT_SUFFIXES = (".json", ".txt")
LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000


def prepare_folder(output: str | Path, *, source: str | Path) -> Corpus:
    """Builds a corpus folder from a folder of recordings.

    Args:
        output: The corpus folder to be; a finished one of the same files is returned as it is.
        source: The recordings; read only. `output` must not lie inside.

    Raises:
        ValueError: No such folder, nothing in it that can be used, another corpus in `output`, or too
            little disk.
    """
    root = Path(source).absolute()
    if not root.is_dir():
        raise ValueError(f"--source {_shown(root)}: no such folder")
    if Path(output).absolute().is_relative_to(root):
        raise ValueError(f"--output {output} lies inside --source {_shown(root)}; choose a folder outside")
    files = find_files(root)
    writer = CorpusWriter(
        folder=Path(output),
        identity={"name": "folder", "source": f"{len(files)} files, SHA-256 {_fingerprint(root, files)}"},
        needed_bytes=sum(path.stat().st_size for path in files if _readable(path)),
    )
    if finished := writer.finished():
        return finished
    writer.start()
    texts = {path for path in files if path.suffix.lower() in TEXT_SUFFIXES and _readable(path)}
    taken: set[str] = set()
    used: set[Path] = set()
    for path in tqdm(files, desc="folder", unit="file", ascii=True, dynamic_ncols=True):
        if path in texts:
            continue
        name = path.relative_to(root).with_suffix("").as_posix()
        try:
            if not _readable(path):
                raise ValueError("is no plain file that can be read (links to folders are not entered)")
            if path.suffix.lower() not in AUDIO_SUFFIXES:
                raise ValueError("is neither audio nor .txt nor .json by its name")
            if name.casefold() in taken:
                raise ValueError("another recording has the same name; rename one")
            sidecar = next((p for s in TEXT_SUFFIXES if (p := path.with_suffix(s)) in texts), None)
            _add_recording(writer, root, path, name, sidecar)
        except ValueError as error:
            writer.reject(_shown(path.relative_to(root)), str(error), unit="file")
            continue
        taken.add(name.casefold())
        used.update({path, sidecar} if sidecar else {path})
    for path in sorted(texts - used, key=os.fsencode):
        writer.reject(_shown(path.relative_to(root)), "no recording beside it was used with it", unit="file")
    for _ in used:
        writer.use_file()
    return writer.finish()


def find_files(root: Path) -> list[Path]:
    """All under a folder that is no folder (links to folders are listed), ordered by the paths' bytes."""
    found = []
    for folder, subfolders, names in os.walk(root):
        links = [name for name in subfolders if os.path.islink(os.path.join(folder, name))]
        found += [Path(folder) / name for name in names + links]
    return sorted(found, key=os.fsencode)


def _add_recording(writer: CorpusWriter, root: Path, path: Path, name: str, sidecar: Path | None) -> None:
    """Adds one recording with all its turns, or raises ValueError with the reason and adds nothing."""
    info = check_audio(path)
    if info.channels > 2:
        raise ValueError(f"has {info.channels} channels; expected one speaker on each of at most two")
    if not LOWEST_RATE <= info.sample_rate <= HIGHEST_RATE:
        raise ValueError(
            f"has a sample rate of {info.sample_rate} Hz; expected {LOWEST_RATE} to {HIGHEST_RATE}"
        )
    recording = Recording(
        id=file_safe(name),
        audio=f"audio/{file_safe(name)}.flac",
        sample_rate=info.sample_rate,
        channels=info.channels,
        duration=info.duration,
    )
    rejects: list[tuple[str, str]] = []
    turns = _turns_of(path, info, recording, _read_sidecar(sidecar), path.parent.name or root.name, rejects)
    if turns:
        copy_audio(path, writer.partial / recording.audio, info)
    for turn in turns:
        writer.add(turn)
    for what, reason in rejects:
        writer.reject(what, reason)
    if not turns:
        raise ValueError("no turn of it could be used")


def _turns_of(
    path: Path,
    info: AudioInfo,
    recording: Recording,
    described: dict[str, Any],
    folder_name: str,
    rejects: list[tuple[str, str]],
) -> list[Turn]:
    by_machine = False
    if "turns" in described and _lacks_times(described["turns"]):
        segments = _segments_without_times(path, info, described["turns"])
    elif "turns" in described:
        segments = _segments_with_times(described["turns"], recording, rejects)
    elif "text" in described and info.channels == 1:
        text = " ".join(str(described["text"]).split())
        if not text:
            raise ValueError("the text beside it is empty")
        speaker = _clean(str(described.get("speaker") or folder_name))
        segments = [Segment(speaker=speaker, start=0.0, end=info.duration, text=text)]
    elif info.channels == 2 and "text" not in described:
        by_machine = True
        segments = _segments_found(path, info, recording, described.get("speakers"))
    elif info.channels == 1:
        raise ValueError("nothing beside it says what is spoken; add NAME.txt or NAME.json")
    else:
        raise ValueError("two channels need a .json with turns or speakers, not one text")
    return to_turns(recording, segments, join=by_machine)


def _segments_found(path: Path, info: AudioInfo, recording: Recording, names: Any) -> list[Segment]:
    names = names or [f"{recording.id}-{channel}" for channel in range(2)]
    if not isinstance(names, list) or len(set(map(str, names))) != 2 or len(names) != 2:
        raise ValueError('"speakers" in the .json must be two different names, one per channel')
    segments = detect_segments(path, info, [_clean(str(name)) for name in names])
    if not segments:
        raise ValueError("no speech was found on either channel")
    return segments


def _segments_with_times(
    entries: list[Any], recording: Recording, rejects: list[tuple[str, str]]
) -> list[Segment]:
    segments = []
    for number, entry in enumerate(entries):
        try:
            segments.append(_segment(entry, recording))
        except (ValueError, TypeError, KeyError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            rejects.append((f"{recording.id}, turn {number}", reason))
    return segments


def _segment(entry: Any, recording: Recording) -> Segment:
    if not isinstance(entry, dict):
        raise ValueError(f"is {type(entry).__name__}; expected an object with speaker, start, end, text")
    channel = entry["channel"] if recording.channels == 2 else entry.get("channel", 0)
    if channel not in range(recording.channels):
        raise ValueError(f"channel={channel!r}; the recording has {recording.channels}, counted from 0")
    text = " ".join(str(entry["text"]).split())
    if not text:
        raise ValueError("the text is empty")
    start, end = float(entry["start"]), float(entry["end"])
    if end > recording.duration + 0.05:
        raise ValueError(f"end={end} s lies past the end of the recording ({recording.duration:.3f} s)")
    return Segment(
        speaker=_clean(str(entry["speaker"])),
        start=start,
        end=min(end, recording.duration),
        text=text,
        channel=int(channel),
        emotion=str(entry["emotion"]) if entry.get("emotion") else None,
    )


def _segments_without_times(path: Path, info: AudioInfo, entries: list[Any]) -> list[Segment]:
    """Lays texts in order on the stretches of speech of their channel."""
    if info.channels != 2:
        raise ValueError("turns without start and end need two channels, one speaker each")
    names, texts = [], []
    for channel in range(2):
        spoken = [entry for entry in entries if isinstance(entry, dict) and entry.get("channel") == channel]
        speakers = {_clean(str(entry.get("speaker") or "")) for entry in spoken}
        if len(speakers) != 1:
            raise ValueError(
                f"channel {channel} needs turns of exactly one named speaker, found {len(speakers)}"
            )
        names.append(speakers.pop())
        texts.append([" ".join(str(entry.get("text") or "").split()) for entry in spoken])
    if sum(map(len, texts)) != len(entries):
        raise ValueError("each turn without start and end needs speaker, channel (0 or 1) and text")
    if names[0] == names[1]:
        raise ValueError(f"{names[0]} speaks on both channels; expected one speaker each")
    found = merge_units(detect_segments(path, info, names), SegmentationConfig().merge_gap)
    laid = []
    for channel in range(2):
        stretches = [segment for segment in found if segment.channel == channel]
        if len(texts[channel]) != len(stretches) or not all(texts[channel]):
            raise ValueError(
                f"channel {channel}: {len(stretches)} stretches of speech, {len(texts[channel])} texts; "
                "give start and end of each turn"
            )
        laid += [replace(s, text=text) for s, text in zip(stretches, texts[channel], strict=True)]
    return laid


def _lacks_times(entries: Any) -> bool:
    if not isinstance(entries, list) or not entries:
        raise ValueError('"turns" in the .json must be a list with at least one turn')
    return not any(isinstance(entry, dict) and ("start" in entry or "end" in entry) for entry in entries)


def _read_sidecar(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if path.suffix.lower() == ".json" else {"text": text}
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, brackets without end
        raise ValueError(f"the {path.suffix} beside it cannot be read ({error})") from error
    if isinstance(content, list):
        return {"turns": content}
    if not isinstance(content, dict):
        raise ValueError("the .json beside it holds no object and no list of turns")
    return content


def _clean(speaker: str) -> str:
    """A speaker's name in valid UTF-8 without stray spaces."""
    name = " ".join(os.fsencode(speaker).decode("utf-8", "backslashreplace").split())
    if not name:
        raise ValueError("the speaker has no name")
    return name


def _readable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK)


def _shown(path: Path) -> str:
    """A path that can be printed and written, whatever its bytes."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _fingerprint(root: Path, files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        content = file_sha256(path) if _readable(path) else "unreadable"
        digest.update(os.fsencode(path.relative_to(root).as_posix()) + b"\0" + content.encode() + b"\n")
    return digest.hexdigest()
