"""Forced alignments of whole corpora, kept by content: every command that needs one shares them.

An alignment is a function of turns, sound, text codec, sample rate and the aligner's own code; the hash of
these names its folder in `$CSM_CACHE` (else `~/.cache/csm`).
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from csm.data import forced_alignment
from csm.data.code_companions import read_alignment, write_alignment
from csm.data.forced_alignment import align_corpus
from csm.data.manifest import Corpus
from csm.system.digests import folder_digests, sha256_of
from csm.system.log import log
from csm.text import ByteCodec


def cache_folder() -> Path:
    """Returns the folder of what commands share."""
    chosen = os.environ.get("CSM_CACHE")
    return (
        Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "csm"
    )


def aligned_corpus(
    corpus: Corpus, sample_rate: int, codec: ByteCodec, name: str
) -> dict[str, Float[Tensor, " L"]]:
    """Returns `align_corpus`, computed once for each content.

    Args:
        corpus, sample_rate, codec: As `align_corpus` takes them.
        name: Name of the text codec.
    """
    key = alignment_key(corpus, sample_rate, f"{name} {codec.max_speakers}")
    folder = cache_folder() / "alignments" / key
    try:
        found = read_alignment(folder, name)
    except ValueError as error:
        log.warning("%s: the corpus is aligned again", error)
        found = None
    if found is not None:
        log.info("alignment of %d turns is taken from %s", len(found), folder)
        return found
    ends = align_corpus(corpus, sample_rate, codec)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_alignment(folder, ends, name)
    except OSError as error:
        log.warning("%s: the alignment is not kept (%s); CSM_CACHE names another folder", folder, error)
    return ends


def alignment_key(corpus: Corpus, sample_rate: int, codec: str) -> str:
    """Returns the hash of all that an alignment depends on."""
    sounds: dict[str, str] = {}
    for turn in corpus.turns():
        if turn.audio not in sounds:
            folder, path = corpus.folder_of(turn), corpus.root / turn.audio
            listed = folder_digests(folder).get(path.relative_to(folder).as_posix())
            sounds[turn.audio] = listed or sha256_of(path)
    turns = [(t.id, t.text, sounds[t.audio], t.start, t.end, t.channel) for t in corpus.turns()]
    code = sha256_of(Path(forced_alignment.__file__))
    return hashlib.sha256(json.dumps([turns, sample_rate, codec, code]).encode()).hexdigest()[:32]
