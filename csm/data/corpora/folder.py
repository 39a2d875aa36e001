"""A corpus from a folder of recordings with their transcripts.

Audio in any format that libsndfile reads, 8 to 192 kHz, one or two channels, also in subfolders; the
transcript of NAME.wav is NAME.txt or NAME.json beside it (`folder_transcripts`). Two-channel recordings stay
two-channel. Every file that is left out is in the reject ledger.
"""

from __future__ import annotations

import os
from pathlib import Path

from csm.audio.containers import length_of
from csm.audio.files import check_audio
from csm.data.corpora.corpus_writer import CorpusWriter
from csm.data.corpora.folder_transcripts import read_turns
from csm.data.corpora.layouts import dailytalk, messages, turn_table
from csm.data.corpora.layouts.tree import Tree
from csm.data.corpora.source_files import (
    SOUNDFILE_SUFFIXES,
    find_files,
    fingerprint,
    readable,
    shown,
    source_root,
)
from csm.data.corpora.split_choice import SplitChoice
from csm.data.manifest import Corpus, Recording, file_safe
from csm.system.log import progress_of

TEXT_SUFFIXES = (".json", ".txt")
LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000


def prepare_folder(output: str | Path, *, source: str | Path, splits: SplitChoice | None = None) -> Corpus:
    """Builds a corpus folder from a folder of recordings.

    Args:
        output: Path of the corpus folder; a finished one of the same files is returned unchanged.
        source: Folder of the recordings, which is only read; `output` must lie outside.
        splits: What is held out; None is a function of the names.

    Raises:
        ValueError: `source` is missing or has no usable recording, `output` lies inside it or holds another
            corpus, or the disk is too full.
    """
    root = source_root(source, output)
    files = find_files(root)
    writer = CorpusWriter(
        folder=Path(output),
        identity={
            "name": "folder",
            "source": f"{len(files)} files, SHA-256 {fingerprint(root, files)}",
            **(splits or SplitChoice()).identity(),
        },
        splits=splits or SplitChoice(),
        needed_bytes=sum(path.stat().st_size for path in files if readable(path)),
    )
    if finished := writer.finished():
        return finished
    tree = Tree(root, writer.partial)
    # Layouts of one file a turn: each turn would be a conversation here.
    for layout in (dailytalk.LAYOUT, turn_table.LAYOUT, messages.LAYOUT):
        if found := layout.recognise(tree):
            raise ValueError(
                f"--source holds the layout {layout.name} ({found}): expected recordings with .txt or .json "
                "beside them; use --corpus recordings"
            )
    writer.start(resume=True)
    texts = {path for path in files if path.suffix.lower() in TEXT_SUFFIXES and readable(path)}
    taken: set[str] = set()
    used: set[Path] = set()
    for path in progress_of(files, "folder", len(files), unit="file"):
        if path in texts:
            continue
        name = path.relative_to(root).with_suffix("").as_posix()
        try:
            if not readable(path):
                raise ValueError("is no plain readable file (links to folders are not followed)")
            if path.suffix.lower() not in SOUNDFILE_SUFFIXES:
                raise ValueError("its name ends like neither audio nor .txt nor .json")
            if name.casefold() in taken:
                raise ValueError("another recording has the same name; rename one")
            sidecar = next((p for s in TEXT_SUFFIXES if (p := tree.beside(path, s)) in texts), None)
            _add_recording(writer, root, path, name, sidecar)
        except ValueError as error:
            reason = str(error)
            writer.reject(shown(path.relative_to(root)), reason, unit="file", seconds=length_of(path))
            continue
        taken.add(name.casefold())
        used.update({path, sidecar} if sidecar else {path})
    for path in sorted(texts - used, key=os.fsencode):
        writer.reject(shown(path.relative_to(root)), "no usable recording has this name", unit="file")
    for _ in used:
        writer.use_file()
    return writer.finish()


def _add_recording(writer: CorpusWriter, root: Path, path: Path, name: str, sidecar: Path | None) -> None:
    """Adds one recording with its turns, or adds nothing and raises ValueError with the reason."""
    info = check_audio(path)
    if info.channels > 2:
        raise ValueError(f"has {info.channels} channels: expected at most two with one speaker each")
    if not LOWEST_RATE <= info.sample_rate <= HIGHEST_RATE:
        raise ValueError(
            f"has a sample rate of {info.sample_rate} Hz: expected {LOWEST_RATE} to {HIGHEST_RATE}"
        )
    recording = Recording(
        id=file_safe(name),
        audio=f"audio/{file_safe(name)}.flac",
        sample_rate=info.sample_rate,
        channels=info.channels,
        duration=info.duration,
    )
    rejects: list[tuple[str, str, float | None]] = []
    turns = read_turns(sidecar, path, info, recording, path.parent.name or root.name, rejects)
    if turns:
        writer.copy(path, recording.audio, info)
    for turn in turns:
        writer.add(turn)
    for what, reason, seconds in rejects:
        writer.reject(what, reason, seconds=seconds)
    if not turns:
        raise ValueError("none of its turns could be used")
