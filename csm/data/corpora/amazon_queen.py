"""Flight of the Amazon Queen: 6,544 acted lines of conversation, 270.8 minutes, 55 speakers.

The talkie of a 1995 adventure game (C) John Passfield and Steven Stamatiadis, freely redistributable
(csm/data/excerpt/LICENSE.txt). The Debian package flight-of-the-amazon-queen 1.0.0-9 holds it: an `ar`
archive with data.tar.xz, inside it queen.1c, a bundle of MP3 clips (mono, 11,025 Hz, 16 kbit/s). After the
bytes "QTBL" stand a big-endian count of entries at byte 13 and, from byte 15, entries of 21 bytes: name
(12 bytes, zero-padded), bundle (1), offset (4), size (4). Clip CLIP is the entry "CLIP.SB".

Conversations branch: their turns follow the script's order, alternatives follow each other. A turn of this
corpus is one clip; several clips in a row of one speaker stay separate turns. The script's 66 role names are
55 speakers once aliases are joined. The package carries an excerpt of whole conversations, so that training
needs no download.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import re
import shutil
import struct
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from csm.data.audio import AtomicAudioWriter
from csm.data.corpus_writer import CorpusWriter
from csm.data.manifest import Conversation, Corpus, Turn, read_manifest, split_of, write_manifest

PACKAGE = "flight-of-the-amazon-queen"
ARCHIVE_SHA256 = "40c08fd258d6fe95c46c1eaf5e9137f84ba330657995a281bd887c94a560a0f1"
BUNDLE_MEMBER = "usr/share/scummvm/flight-of-the-amazon-queen/queen.1c"
BUNDLE_BYTES = 54_108_887
BUNDLE_SHA256 = "cc91960d133fcd4173eda4bac304e80d2bbdbaa085640287ab9e0507bd603f67"
CLIP_BYTES_PER_SECOND = 2000
LICENCE = "Flight-of-the-Amazon-Queen-License"
EXCERPT_FOLDER = Path(__file__).resolve().parent.parent / "excerpt"

#: One role under several names in the script, joined: the same voice too (cosine of mean Resemblyzer
#: embeddings 0.94-0.98; those with few lines are joined by name alone). Roles that merely
#: share an actor stay apart.
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

#: Left out by trainings that report on unseen voices: 23 minutes, 48 to 119 lines each, two women among them,
#: pitch from 76 (KLUNK) to 224 Hz (NAOMI). The lines stay in the corpus. The game's actors spoke several
#: roles, so a held-out voice is an unheard role, not always an unheard human being (LOLA and PRINCESS AZURA
#: sound alike: 0.96; the others reach at most 0.95 with any role that is trained on).
HELD_OUT_SPEAKERS = ("APE", "IAN", "KLUNK", "LARIS", "LOLA", "NAOMI")

#: The excerpt: SPARKY, FAYE and BOB talking to JOE, with test and validation conversations as `split_of`
#: gives them, one held-out voice (LARIS), and remarks of JOE alone (DESC...) so that he speaks over half.
EXCERPT_CONVERSATIONS = tuple(
    "FAYE2 BOB2 C8A C3H C69E DESC019 LARIS3 "  # test
    "C20A C103H C69N DESC002 DESC004 DESC007 "  # validation
    "SPARKY1 SPARKY2 SPARKY3 SPARKY4 SPARKY5 SPARKY6 SPARKY7 SPARKY8 C1A C2A C3A C3C "
    "FAYE3 FAYE4 FAYE5 FAYE6 BOB1 BOB3 "
    "DESC001 DESC003 DESC005 DESC006 DESC009 DESC010 DESC012 DESC013 DESC014 DESC018 DESC020 DESC021 "
    "DESC022 DESC025 DESC026 DESC028 DESC029 DESC031 DESC032".split()
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the script: which clip, who, where in the conversation, the text as written there."""

    clip: str
    speaker: str
    conversation: str
    turn: int
    segment: int
    text: str


def prepare_amazon_queen(output: str | Path, *, archive: str | Path | None = None) -> Corpus:
    """Builds the whole corpus from the Debian package.

    Args:
        output: The corpus folder to be; a finished one is returned as it is.
        archive: The .deb; None gets it by ``apt-get download`` (Debian, Ubuntu).

    Raises:
        ValueError: No archive, wrong SHA-256, another corpus in `output`, too little disk.
    """
    writer = CorpusWriter(
        folder=Path(output),
        identity={
            "name": "amazon_queen",
            "source": f"{PACKAGE} 1.0.0-9, SHA-256 {ARCHIVE_SHA256}",
            "revision": 2,
        },
        notes={
            "licence": LICENCE,
            "modified": "Modified version: MP3 clips decoded to FLAC, texts cleaned of marks.",
            "held_out_speakers": list(HELD_OUT_SPEAKERS),
        },
        needed_bytes=300_000_000,
    )
    if finished := writer.finished():
        return finished
    bundle = _bundle(archive)
    entries = read_entries(bundle)
    writer.start()
    for line in tqdm(read_lines(), desc="amazon_queen", unit="clip", ascii=True, dynamic_ncols=True):
        if entry := entries.get(line.clip):
            offset, size = entry
            _write_clip(writer, line, bundle[offset : offset + size])
        else:
            writer.reject(line.clip, "the bundle holds no such clip")
    return _finish(writer)


def prepare_excerpt(output: str | Path) -> Corpus:
    """Builds the excerpt that the package carries; needs no network.

    Args:
        output: The corpus folder to be; a finished one is returned as it is.

    Raises:
        ValueError: A damaged installation, another corpus in `output`, too little disk.
    """
    archive = EXCERPT_FOLDER / "clips.tar"
    if not archive.is_file():
        raise ValueError(f"{archive} is missing; install the package again, it carries the excerpt")
    manifest = EXCERPT_FOLDER / "manifest.jsonl"
    digest = hashlib.sha256(archive.read_bytes() + manifest.read_bytes()).hexdigest()
    writer = CorpusWriter(
        folder=Path(output),
        identity={"name": "amazon_queen_excerpt", "source": f"clips.tar + manifest.jsonl, SHA-256 {digest}"},
        notes={
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
        for turn in tqdm(turns.values(), desc="excerpt", unit="clip", ascii=True, dynamic_ncols=True):
            if member := clips.get(f"{turn.id}.mp3"):
                stream = tar.extractfile(member)
                _write_clip(writer, _line_of(turn), stream.read() if stream else b"")
            else:
                writer.reject(turn.id, "the excerpt holds no such clip")
    return _finish(writer)


def make_excerpt(folder: str | Path | None = None, *, archive: str | Path | None = None) -> Path:
    """Writes the excerpt (clips.tar, manifest.jsonl) from the Debian package; the same bytes every time.

    Args:
        folder: Where to write; None is the package's own folder.
        archive: The .deb; None gets it by ``apt-get download``.

    Returns:
        The tar file.
    """
    folder = Path(folder or EXCERPT_FOLDER)
    bundle = _bundle(archive)
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
                member = tarfile.TarInfo(
                    f"{line.clip}.mp3"
                )  # time 0, owner 0: the bytes depend on the clips alone
                member.size = size
                tar.addfile(member, io.BytesIO(stream))
                turns.append(_turn(line, len(turns), _decode(stream)))
            conversations.append(Conversation(id=name, split=split_of(name), turns=tuple(turns)))
    (folder / "clips.tar.part").replace(folder / "clips.tar")
    write_manifest(folder / "manifest.jsonl", conversations)
    return folder / "clips.tar"


def read_lines() -> list[Line]:
    """The script that the package carries: all 6,544 lines, ordered by conversation."""
    with gzip.open(EXCERPT_FOLDER / "lines.tsv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [
            Line(
                clip=row["clip"],
                speaker=row["speaker"],
                conversation=row["conversation"],
                turn=int(row["turn"]),
                segment=int(row["segment"]),
                text=row["text"],
            )
            for row in rows
        ]


def clean_text(text: str) -> str:
    """The text as it is spoken.

    The script holds a few marks for its fonts, not for the actors: ``^_`` (a trademark sign), ``@`` (a
    heart) and a row of symbols for a curse, taken out. Sounds, written ``<gulp>`` or ``(sigh)``, become
    ``(gulp)``, ``(sigh)``: lower case in round brackets, also where a text holds nothing else.
    """
    text = text.replace("^_", "").replace("@", "")
    text = re.sub(r"[(!]*[#$&][#$&(!]*\s*,?\s*", "", text)
    text = re.sub(r"[<(]([A-Za-z]+)[>)]", lambda match: f"({match[1].lower()})", text)
    return re.sub(r"\s+", " ", text).strip()


def read_bundle(archive: str | Path) -> bytes:
    """The clip bundle queen.1c out of the .deb.

    Raises:
        ValueError: No such file, no .deb, or another SHA-256 than the published one.
    """
    path = Path(archive)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; get it by `apt-get download {PACKAGE}`")
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
        if digest != ARCHIVE_SHA256:
            raise ValueError(
                f"{path}: SHA-256 is {digest}, expected {ARCHIVE_SHA256}; get version 1.0.0-9 again"
            )
        _seek_ar_member(file, b"data.tar.xz")
        with tarfile.open(fileobj=file, mode="r|xz") as tar:
            for member in tar:
                if member.name.removeprefix("./") == BUNDLE_MEMBER and member.size == BUNDLE_BYTES:
                    stream = tar.extractfile(member)
                    bundle = stream.read() if stream else b""
                    break
            else:
                raise ValueError(f"{path}: holds no {BUNDLE_MEMBER} of {BUNDLE_BYTES} bytes")
    if hashlib.sha256(bundle).hexdigest() != BUNDLE_SHA256:
        raise ValueError(f"{path}: {BUNDLE_MEMBER} has another SHA-256 than {BUNDLE_SHA256}")
    return bundle


def read_entries(bundle: bytes) -> dict[str, tuple[int, int]]:
    """The table of a bundle: clip name -> (offset, size) in bytes, for the entries that are speech.

    Raises:
        ValueError: It does not begin as a bundle does, or an entry points outside.
    """
    if bundle[:4] != b"QTBL" or len(bundle) < 15:
        raise ValueError("the bundle does not begin with QTBL; it is no queen.1c")
    (count,) = struct.unpack_from(">H", bundle, 13)
    if 15 + 21 * count > len(bundle):
        raise ValueError(f"the bundle ends inside its table of {count} entries")
    entries = {}
    for index in range(count):
        raw, _, offset, size = struct.unpack_from(">12sBII", bundle, 15 + 21 * index)
        name = raw.rstrip(b"\0").decode("ascii", "replace")
        if offset + size > len(bundle):
            raise ValueError(f"the bundle's entry {name} points past its end")
        if name.endswith(".SB"):
            entries[name.removesuffix(".SB")] = (offset, size)
    return entries


def _bundle(archive: str | Path | None) -> bytes:
    if archive is not None:
        return read_bundle(archive)
    with tempfile.TemporaryDirectory() as folder:
        return read_bundle(_apt_download(Path(folder)))


def _apt_download(folder: Path) -> Path:
    apt = shutil.which("apt-get")
    advice = f"get the file {PACKAGE}_1.0.0-9_all.deb from a Debian mirror and pass it with --archive"
    if apt is None:
        raise ValueError(f"apt-get is not on this system; {advice}")
    done = subprocess.run([apt, "download", PACKAGE], cwd=folder, capture_output=True, text=True, check=False)
    found = sorted(folder.glob("*.deb"))
    if done.returncode or not found:
        message = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"`apt-get download {PACKAGE}` failed ({message}); {advice}")
    return found[0]


def _seek_ar_member(file: io.BufferedReader, wanted: bytes) -> None:
    file.seek(0)
    if file.read(8) != b"!<arch>\n":
        raise ValueError("the archive is no .deb (no ar header)")
    while len(header := file.read(60)) == 60:
        if header[:16].rstrip(b" /") == wanted:
            return
        size = int(header[48:58])
        file.seek(size + size % 2, 1)
    raise ValueError(f"the archive holds no {wanted.decode()}")


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
