"""Forced alignments of whole corpora, kept by content: every command that needs one shares them.

An alignment is a function of turns, sound, text codec, sample rate and the code of aligner and text codecs;
the hash of these names its folder in `$CSM_CACHE` (else `~/.cache/csm`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from torch import Tensor

from csm import pronunciation, text, text_normalisation, text_numbers, text_tables
from csm.data import forced_alignment
from csm.data.code_companions import read_alignment, write_alignment
from csm.data.forced_alignment import align_corpus
from csm.data.manifest import Corpus
from csm.data.turn_audio import audio_digests
from csm.system.digests import sha256_of, sha256_of_json
from csm.system.log import log
from csm.text import ByteCodec


def cache_folder() -> Path:
    """Returns the folder of what commands share."""
    chosen = os.environ.get("CSM_CACHE")
    return (
        Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "csm"
    )


def aligned_corpus(corpus: Corpus, sample_rate: int, codec: ByteCodec, name: str) -> Mapping[str, Tensor]:
    """Returns the ends of `align_corpus` by turn id, computed once for each content and mapped from its file.

    Args:
        corpus, sample_rate, codec: As `align_corpus` takes them.
        name: Name of the text codec.
    """
    key = alignment_key(corpus, sample_rate, f"{name} {codec.max_speakers}")
    folder = cache_folder() / "alignments" / key
    if (found := _kept(folder, name)) is not None:
        log.info("alignment of %d turns is taken from %s", len(found), folder)
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_alignment(folder, align_corpus(corpus, sample_rate, codec), name)
        found = read_alignment(folder, name)
        assert found is not None, "it was written"
        return found
    except OSError as error:
        log.warning("%s: the alignment is not kept (%s); CSM_CACHE names another folder", folder, error)
        return dict(align_corpus(corpus, sample_rate, codec))


def _kept(folder: Path, name: str) -> Mapping[str, Tensor] | None:
    try:
        return read_alignment(folder, name)
    except ValueError as error:
        log.warning("%s: the corpus is aligned again", error)
        return None


def alignment_key(corpus: Corpus, sample_rate: int, codec: str) -> str:
    """Returns the hash of all that an alignment depends on."""
    return sha256_of_json(iter([_turns(corpus), sample_rate, codec, code_digest()]))[:32]


def _turns(corpus: Corpus) -> Iterator[tuple[object, ...]]:
    for conversation in corpus.conversations_of():
        sounds = audio_digests(corpus, conversation)
        for t in conversation.turns:
            yield t.id, t.text, sounds[t.audio], t.start, t.end, t.channel


@cache
def code_digest() -> str:
    """Returns the hash of the code that symbols and their times depend on: other rules, other phones."""
    modules = (forced_alignment, text, pronunciation, text_normalisation, text_numbers, text_tables)
    digests = [sha256_of(Path(str(module.__file__))) for module in modules]
    return hashlib.sha256("".join(digests).encode()).hexdigest()
