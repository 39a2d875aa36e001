"""Drascula: The Vampire Strikes Back: 734 acted lines of a game of 1996, 45.9 minutes, 12 roles.

(C) Alcachofa Soft S.L., freely redistributable; the Debian package drascula holds the speech of the English
version as raw unsigned samples of 8 bits (NAME.ALS, mono, 11,025 Hz) and the texts (`drascula_game`).
ScummVM's engine says which clip belongs to which text and role (engines/drascula/talk.cpp). Dialogues and
scenes are conversations in the order of the game, where alternatives follow each other (`drascula_scenes`);
what is left, remarks of one role, is grouped by the role and marked synthetic.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from csm.audio.files import AtomicAudioWriter
from csm.data.corpora.corpus_writer import CorpusWriter
from csm.data.corpora.debian_package import DebianPackage
from csm.data.corpora.drascula_game import CLIP_PREFIXES, read_dialogue, read_sequences, read_texts
from csm.data.corpora.drascula_scenes import Scene, order
from csm.data.corpora.drascula_texts import OTHER_WORDS, SPOKEN, sentence_case
from csm.data.manifest import Corpus, Turn
from csm.system.log import progress_of

PACKAGE = DebianPackage(
    name="drascula",
    version="1.0+ds4-2",
    pool="pool/main/d/drascula",
    sha256="ed4af8e2d41ad446e2f3b73533daa1804e2f13f62f596c0b02b8dc39544f22b4",
    unpacked_bytes=40_000_000,
)
SAMPLE_RATE = 11_025
LICENCE = "Drascula-License"
_FOLDER = "usr/share/scummvm/drascula/en/"
_COPYRIGHT = "usr/share/doc/drascula/copyright"

# Prefix of a clip -> role. "S" are sounds, "F" belongs to no line.
SPEAKERS = {
    "": "JOHN HACKER",
    "D": "DRASCULA",
    "B": "DRUNKARD",
    "BJ": "BILLIE JEAN",
    "E": "DESIDERIO",
    "I": "IGOR",
    "L": "WEREWOLF",
    "P": "PIANIST",
    "T": "BARTENDER",
    "VB": "VON BRAUN",
}
# Numbers in Drascula's table that other roles say.
_IN_D = {
    **dict.fromkeys(range(56, 68), "JOHN HACKER"),
    **dict.fromkeys(range(68, 79), "BLIND MAN"),
    82: "BARTENDER",
    83: "TRUNK",
}


def prepare_drascula(output: str | Path, *, downloads: str | Path) -> Corpus:
    """Builds the corpus from the Debian package.

    Args:
        output: Path of the corpus folder; a finished one is returned unchanged.
        downloads: Folder of the .deb, which is downloaded unless it is there.

    Raises:
        ValueError: The download fails, the package is damaged, `output` holds another corpus, or the disk is
            too full.
    """
    writer = CorpusWriter(
        folder=Path(output),
        identity={"name": "drascula", "source": PACKAGE.source, "revision": 1},
        notes={
            "licence": LICENCE,
            "modified": "Modified version: clips stored as FLAC, texts in sentence case.",
            "attribution": "(C) 1996-2008 Alcachofa Soft S.L., https://www.scummvm.org",
        },
        needed_bytes=100_000_000,
    )
    if finished := writer.finished():
        return finished
    files = PACKAGE.read(downloads, _is_wanted)
    clips = {PurePosixPath(path).stem: content for path, content in files.items() if path.endswith(".ALS")}
    named = {PurePosixPath(path).name: content for path, content in files.items()}
    if "drascula.dat" not in named:
        raise ValueError(f"{PACKAGE.file_name} lacks drascula.dat; get it again")
    texts = read_texts(named["drascula.dat"]) | SPOKEN
    writer.start()
    for clip in sorted(clips, key=_place):
        if reason := _reason_against(clip, texts):
            writer.reject(clip, reason)
    usable = [clip for clip in sorted(clips, key=_place) if not _reason_against(clip, texts)]
    scenes = _scenes(usable, named)
    for scene in progress_of(scenes, "drascula", len(scenes), unit="scene"):
        for clip in scene.clips:
            _write_clip(writer, scene, clip, texts[clip], clips[clip])
    (writer.partial / "LICENSE.txt").write_bytes(named.get("copyright", b""))
    return writer.finish()


def speaker_of(clip: str) -> str | None:
    """Returns the role that says a clip, None for sounds."""
    prefix, number = _split(clip)
    if prefix == "D" and number in _IN_D:
        return _IN_D[number]
    return SPEAKERS.get(prefix)


def _scenes(clips: list[str], named: Mapping[str, bytes]) -> list[Scene]:
    dialogues = {
        name.removesuffix(".CAL"): read_dialogue(content, name)
        for name, content in sorted(named.items())
        if name.endswith(".CAL")
    }
    speakers = {clip: speaker_of(clip) or "" for clip in clips}
    return order(speakers, read_sequences(named["drascula.dat"]), dialogues)


def _reason_against(clip: str, texts: Mapping[str, str]) -> str:
    if speaker_of(clip) is None:
        return "no line of a role: a sound"
    if clip in OTHER_WORDS:
        return f"its words are not its text: {OTHER_WORDS[clip]}"
    return "" if clip in texts else "the game has no text for it"


def _write_clip(writer: CorpusWriter, scene: Scene, clip: str, text: str, content: bytes) -> None:
    samples = (np.frombuffer(content, np.uint8).astype(np.float32) - 128.0) / 128.0
    if not len(samples) or np.abs(samples - samples.mean()).max() < 0.02:
        writer.reject(clip, "silent")
        return
    conversation = f"drascula_{scene.name}"
    turn = Turn(
        id=f"drascula_{clip}",
        conversation=conversation,
        index=0,
        speaker=speaker_of(clip) or "",
        text=sentence_case(text),
        audio=f"audio/{conversation}/drascula_{clip}.flac",
        end=round(len(samples) / SAMPLE_RATE, 6),
        synthetic=scene.composed,
    )
    with AtomicAudioWriter(writer.partial / turn.audio, SAMPLE_RATE, 1) as file:
        file.write(samples[:, None])
    writer.add(turn)


def _is_wanted(path: str) -> bool:
    speech = path.startswith(_FOLDER) and path.endswith((".ALS", ".CAL", "/drascula.dat"))
    return speech or path == _COPYRIGHT


def _split(clip: str) -> tuple[str, int]:
    prefix = re.sub(r"\d+$", "", clip)
    return prefix, int(clip[len(prefix) :] or 0)


def _place(clip: str) -> tuple[int, str, int]:
    prefix, number = _split(clip)
    known = CLIP_PREFIXES.index(prefix) if prefix in CLIP_PREFIXES else len(CLIP_PREFIXES)
    return known, prefix, number
