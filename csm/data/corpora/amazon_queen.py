"""Flight of the Amazon Queen: 6,544 acted lines of conversation, 270.8 minutes, 55 speakers.

The voice recordings of a 1995 adventure game, (C) John Passfield and Steven Stamatiadis, freely
redistributable (csm/data/excerpt/LICENSE.txt). The whole corpus is built from a Debian package
(`amazon_queen_bundle`). This package contains an excerpt of whole conversations, so that a first training
needs no download.

The conversations branch: their turns follow the order of the script, where alternatives follow each other.
One clip is one turn, also where several clips in a row have the same speaker. The script's 66 role names are
55 speakers once aliases are merged.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import soundfile

from csm.audio.files import AtomicAudioWriter
from csm.data.corpora.amazon_queen_bundle import ARCHIVE_SHA256, PACKAGE, get_bundle, read_entries
from csm.data.corpora.amazon_queen_script import EXCERPT_FOLDER, Line, clean_text, read_lines
from csm.data.corpora.corpus_writer import CorpusWriter
from csm.data.manifest import (
    HELD_OUT_KEY,
    Conversation,
    Corpus,
    Turn,
    read_manifest,
    split_of,
    write_manifest,
)
from csm.system.log import progress_of

LICENCE = "Flight-of-the-Amazon-Queen-License"

# Names in the script -> the role that they stand for. The voices agree (cosine of mean Resemblyzer embeddings
# 0.94-0.98; roles with few lines are merged by name alone). Different roles of one actor stay separate.
SPEAKER_ALIASES = {
    "AND": "ANDERSON",
    "AZURA OBJ": "PRINCESS AZURA",
    "JIMMY": "JIM",
    "JOE KING": "JOE",
    "PRIN": "PRINCESS AZURA",
    "SEC": "SECRETARY",
    "SHOWERING AMAZON": "SHOWERAM",
    "TRADER BOB": "BOB",
    "WEDGEWOOD": "WEDGE",
    "WITCH DOCTOR": "WITCH",
    "ZOMBIE WOMAN": "ZOMBIE",
}

# Speakers that a training leaves out to report on unseen voices: 23 minutes, 48 to 119 lines each, two of
# them women, pitch from 76 (KLUNK) to 224 Hz (NAOMI). Their lines stay in the corpus. The actors played
# several roles, so an unseen voice is an unseen role, not always an unseen person (cosine similarity of LOLA
# and PRINCESS AZURA: 0.96; of the others with any training role: at most 0.95).
HELD_OUT_SPEAKERS = ("APE", "IAN", "KLUNK", "LARIS", "LOLA", "NAOMI")

# The excerpt: SPARKY, FAYE and BOB talk to JOE; some conversations are in the test and validation splits of
# `split_of`; LARIS is held out; JOE's monologues (DESC...) give him more than half of the speech.
EXCERPT_CONVERSATIONS = tuple(
    "FAYE2 BOB2 C8A C3H C69E DESC019 LARIS3 "  # test
    "C20A C103H C69N DESC002 DESC004 DESC007 "  # validation
    "SPARKY1 SPARKY2 SPARKY3 SPARKY4 SPARKY5 SPARKY6 SPARKY7 SPARKY8 C1A C2A C3A C3C "
    "FAYE3 FAYE4 FAYE5 FAYE6 BOB1 BOB3 "
    "DESC001 DESC003 DESC005 DESC006 DESC009 DESC010 DESC012 DESC013 DESC014 DESC018 DESC020 DESC021 "
    "DESC022 DESC025 DESC026 DESC028 DESC029 DESC031 DESC032".split()
)


def prepare_amazon_queen(output: str | Path, *, archive: str | Path | None = None) -> Corpus:
    """Builds the whole corpus from the Debian package.

    Args:
        output: Path of the corpus folder; a finished one is returned unchanged.
        archive: Path of the .deb; None downloads it with `apt-get download` (Debian, Ubuntu).

    Raises:
        ValueError: The archive is missing or has another SHA-256, `output` holds another corpus, or the disk
            is too full.
    """
    writer = CorpusWriter(
        folder=Path(output),
        identity={
            "name": "amazon_queen",
            "source": f"{PACKAGE} 1.0.0-9, SHA-256 {ARCHIVE_SHA256}",
            "revision": 3,
        },
        notes={
            HELD_OUT_KEY: list(HELD_OUT_SPEAKERS),
            "licence": LICENCE,
            "modified": "Modified version: MP3 clips decoded to FLAC, texts cleaned of marks.",
        },
        needed_bytes=300_000_000,
    )
    if finished := writer.finished():
        return finished
    bundle = get_bundle(archive)
    entries = read_entries(bundle)
    writer.start()
    lines = read_lines()
    for line in progress_of(lines, "amazon_queen", len(lines), unit="clip"):
        if entry := entries.get(line.clip):
            offset, size = entry
            _write_clip(writer, line, bundle[offset : offset + size])
        else:
            writer.reject(line.clip, "the bundle holds no such clip")
    return _finish(writer)


def prepare_excerpt(output: str | Path) -> Corpus:
    """Builds the corpus of the packaged excerpt without a network.

    Args:
        output: Path of the corpus folder; a finished one is returned unchanged.

    Raises:
        ValueError: The installation is damaged, `output` holds another corpus, or the disk is too full.
    """
    archive = EXCERPT_FOLDER / "clips.tar"
    if not archive.is_file():
        raise ValueError(f"{archive} is missing: expected the packaged excerpt; install the package again")
    manifest = EXCERPT_FOLDER / "manifest.jsonl"
    digest = hashlib.sha256(archive.read_bytes() + manifest.read_bytes()).hexdigest()
    writer = CorpusWriter(
        folder=Path(output),
        identity={"name": "amazon_queen_excerpt", "source": f"clips.tar + manifest.jsonl, SHA-256 {digest}"},
        notes={
            HELD_OUT_KEY: list(HELD_OUT_SPEAKERS),
            "licence": LICENCE,
            "modified": "Excerpt of the game's speech: a modified version, see NOTICE.md.",
        },
        needed_bytes=80_000_000,
    )
    if finished := writer.finished():
        return finished
    writer.start()
    turns = {turn.id: turn for c in read_manifest(manifest) for turn in c.turns}
    with tarfile.open(archive) as tar:
        clips = {member.name: member for member in tar.getmembers() if member.isfile()}
        for turn in progress_of(turns.values(), "excerpt", len(turns), unit="clip"):
            if member := clips.get(f"{turn.id}.mp3"):
                stream = tar.extractfile(member)
                _write_clip(writer, _line_of(turn), stream.read() if stream else b"")
            else:
                writer.reject(turn.id, "the excerpt holds no such clip")
    return _finish(writer)


def make_excerpt(folder: str | Path | None = None, *, archive: str | Path | None = None) -> Path:
    """Writes the excerpt (clips.tar, manifest.jsonl) from the Debian package; the bytes are reproducible.

    Args:
        folder: Folder of the files; None is the folder inside the package.
        archive: Path of the .deb; None downloads it with `apt-get download`.

    Returns:
        Path of clips.tar.
    """
    folder = Path(folder or EXCERPT_FOLDER)
    bundle = get_bundle(archive)
    entries = read_entries(bundle)
    spoken = [line for line in read_lines() if clean_text(line.text) and line.clip in entries]
    conversations = []
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "clips.tar.part", "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in EXCERPT_CONVERSATIONS:
            turns: list[Turn] = []
            for line in (line for line in spoken if line.conversation == name):
                offset, size = entries[line.clip]
                stream = bundle[offset : offset + size]
                # TarInfo defaults to time 0 and owner 0: the bytes depend on the clips alone.
                member = tarfile.TarInfo(f"{line.clip}.mp3")
                member.size = size
                tar.addfile(member, io.BytesIO(stream))
                turns.append(_turn(line, len(turns), _decode(stream)))
            conversations.append(Conversation(id=name, split=split_of(name), turns=tuple(turns)))
    (folder / "clips.tar.part").replace(folder / "clips.tar")
    write_manifest(folder / "manifest.jsonl", conversations)
    return folder / "clips.tar"


def _decode(stream: bytes) -> tuple[np.ndarray, int]:
    samples, rate = soundfile.read(io.BytesIO(stream), dtype="float32", always_2d=True)
    return samples, rate


def _write_clip(writer: CorpusWriter, line: Line, stream: bytes) -> None:
    try:
        samples, rate = _decode(stream)
        turn = _turn(line, 0, (samples, rate))
    except (soundfile.SoundFileError, ValueError) as error:
        writer.reject(line.clip, f"cannot be used: {error}")
        return
    if not turn.text:
        writer.reject(line.clip, "nothing is spoken")
    elif not np.isfinite(samples).all() or np.abs(samples).max() < 1e-3:
        writer.reject(line.clip, "silent or not finite")
    else:
        with AtomicAudioWriter(writer.partial / turn.audio, rate, 1) as file:
            file.write(samples)
        writer.add(turn)


def _turn(line: Line, index: int, audio: tuple[np.ndarray, int]) -> Turn:
    samples, rate = audio
    return Turn(
        id=line.clip,
        conversation=line.conversation,
        index=index,
        speaker=SPEAKER_ALIASES.get(line.speaker, line.speaker),
        text=clean_text(line.text),
        audio=f"audio/{line.conversation}/{line.clip}.flac",
        end=round(len(samples) / rate, 6),
    )


def _line_of(turn: Turn) -> Line:
    return Line(
        clip=turn.id,
        speaker=turn.speaker,
        conversation=turn.conversation,
        turn=turn.index,
        segment=0,
        text=turn.text,
    )


def _finish(writer: CorpusWriter) -> Corpus:
    for name in ("LICENSE.txt", "NOTICE.md"):
        shutil.copyfile(EXCERPT_FOLDER / name, writer.partial / name)
    return writer.finish()
