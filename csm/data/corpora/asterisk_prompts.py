"""Asterisk's prompts: 551 announcements of a telephone exchange by one voice, 24.3 minutes at 16 kHz.

Recorded by Allison Smith for Digium, CC BY-SA 3.0. The Debian package asterisk-core-sounds-en-g722 holds them
as G.722 of 64 kbit/s (16 kHz, a sample for each 4 bits), asterisk-core-sounds-en the texts:
core-sounds-en.txt, a line "NAME: text" for each prompt, where brackets hold what is not spoken. Tones,
silence and monkeys are left out. Prompts of one kind, e.g. vm-... of the mailbox, make conversations of ten;
they are single announcements, so every turn is marked synthetic.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from csm.audio.files import AtomicAudioWriter
from csm.data.corpora.corpus_writer import CorpusWriter
from csm.data.corpora.debian_package import DebianPackage
from csm.data.manifest import Corpus, Turn
from csm.system.extras import missing_package
from csm.system.log import progress_of

SOUNDS = DebianPackage(
    name="asterisk-core-sounds-en-g722",
    version="1.6.1-1",
    pool="pool/main/a/asterisk-core-sounds",
    sha256="38c5261820b406dcb0ecb37675720da2b0864850690690352ca52707eb623806",
    unpacked_bytes=20_000_000,
)
TEXTS = DebianPackage(
    name="asterisk-core-sounds-en",
    version="1.6.1-1",
    pool="pool/main/a/asterisk-core-sounds",
    sha256="973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
    unpacked_bytes=1_000_000,
)
SAMPLE_RATE = 16_000
SPEAKER = "ALLISON"
LICENCE = "CC-BY-SA-3.0"
PROMPTS_PER_CONVERSATION = 10
# Slips of the list, signs, and numbers that are read digit by digit.
CORRECTIONS = {
    "#": "pound",
    "*": "star",
    "fourtieth": "fortieth",
    "umute": "unmute",
    "represenatives": "representatives",
    "Un-indentified or witheld": "Unidentified or withheld",
    "dial 500": "dial five zero zero",
    "1234": "one two three four",
}
_SOUND_FOLDER = "usr/share/asterisk/sounds/en_US_f_Allison/"
_TEXT_FILE = "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
_COPYRIGHT = "usr/share/doc/asterisk-core-sounds-en/copyright"


def prepare_asterisk_prompts(output: str | Path, *, downloads: str | Path) -> Corpus:
    """Builds the corpus from the two Debian packages.

    Args:
        output: Path of the corpus folder; a finished one is returned unchanged.
        downloads: Folder of the .deb files, which are downloaded unless they are there.

    Raises:
        ValueError: A download fails, a package is damaged, PyAV is missing, `output` holds another corpus,
            or the disk is too full.
    """
    writer = CorpusWriter(
        folder=Path(output),
        identity={"name": "asterisk_prompts", "source": f"{SOUNDS.source}; {TEXTS.source}", "revision": 1},
        notes={
            "licence": LICENCE,
            "modified": "Modified version: G.722 decoded to FLAC, marks in brackets removed from the texts.",
            "attribution": "Recorded by Allison Smith, http://www.theivrvoice.com, for Digium, Inc.",
        },
        needed_bytes=100_000_000,
    )
    if finished := writer.finished():
        return finished
    av = _pyav()
    sounds = SOUNDS.read(downloads, lambda path: path.startswith(_SOUND_FOLDER) and path.endswith(".g722"))
    documents = TEXTS.read(downloads, lambda path: path in (_TEXT_FILE, _COPYRIGHT))
    prompts = {path[len(_SOUND_FOLDER) : -len(".g722")]: content for path, content in sounds.items()}
    texts = read_texts(documents.get(_TEXT_FILE, b""))
    writer.start()
    spoken = []
    for name in sorted(prompts):
        if reason := _reason_against(name, texts):
            writer.reject(name, reason)
        else:
            spoken.append(name)
    for name in sorted(set(texts) - set(prompts)):
        writer.reject(name, "the package holds no such prompt")
    for conversation, names in progress_of(
        groups := list(_groups(spoken)), "prompts", len(groups), unit="group"
    ):
        for name in names:
            _write_prompt(writer, av, conversation, name, texts[name], prompts[name])
    (writer.partial / "LICENSE.txt").write_bytes(documents.get(_COPYRIGHT, b""))
    return writer.finish()


def read_texts(compressed: bytes) -> dict[str, str]:
    """Reads core-sounds-en.txt.gz.

    Returns:
        Prompt -> what is spoken, "" where nothing is.

    Raises:
        ValueError: The file is missing, damaged, or has a line without ": ".
    """
    try:
        content = gzip.decompress(compressed).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"core-sounds-en.txt.gz cannot be read ({error}); get the package again") from error
    texts = {}
    for number, line in enumerate(content.splitlines(), 1):
        name, found, text = line.partition(":")
        if line.startswith(";") or not line.strip():
            continue
        if not found:
            raise ValueError(f"core-sounds-en.txt, line {number} is {line!r}: expected NAME: text")
        texts[name.strip()] = clean_text(text)
    if not texts:
        raise ValueError("core-sounds-en.txt.gz holds no text: expected a line for each prompt")
    return texts


def clean_text(text: str) -> str:
    """Returns what is spoken of a text: without brackets and the dots of an open end, a capital first.

    Beginnings and ends of sentences are prompts of their own ("Press ..."), as are single letters and names.
    """
    text = re.sub(r"\[[^]]*\]|<[^>]*>|\([^)]*\)", " ", text)
    for written, spoken in CORRECTIONS.items():
        text = text.replace(written, spoken)
    text = re.sub(r"^\s*\.\.\.\s*|\s*\.\.\.\s*$", "", text)
    text = re.sub(r"\bi\b", "I", re.sub(r"\s+", " ", text).strip())
    return text[:1].upper() + text[1:]


def decode_g722(av: Any, content: bytes) -> np.ndarray:
    """Decodes a raw stream of G.722 of 64 kbit/s.

    Args:
        av: The package PyAV.
        content: The stream; it has no header.

    Returns:
        Samples [S] at 16 kHz, full scale 1.

    Raises:
        ValueError: The stream holds no sample, or the decoder refuses it.
    """
    try:
        with av.open(io.BytesIO(content), format="g722") as container:
            stream = container.streams.audio[0]
            if stream.rate != SAMPLE_RATE:
                raise ValueError(f"the decoder's rate is {stream.rate}: expected {SAMPLE_RATE}")
            blocks = [frame.to_ndarray().reshape(-1) for frame in container.decode(stream)]
    except av.FFmpegError as error:
        raise ValueError(f"cannot be decoded: {error}") from error
    if not blocks:
        raise ValueError("holds no audio")
    return np.concatenate(blocks).astype(np.float32) / 32768.0


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise ValueError(missing_package("av", "--corpus asterisk_prompts")) from error
    return av


def _reason_against(name: str, texts: dict[str, str]) -> str:
    if name not in texts:
        return "core-sounds-en.txt has no text for it"
    return "" if texts[name] else "nothing is spoken"


def _groups(names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yields conversations of neighbours of one kind: a folder, or the word before the first "-"."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kind = re.split("[/-]", name)[0] if re.search("[/-]", name) else "words"
        kinds.setdefault(kind, []).append(name)
    single = [
        name
        for kind in [kind for kind, found in kinds.items() if len(found) == 1]
        for name in kinds.pop(kind)
    ]
    kinds["words"] = sorted(kinds.get("words", []) + single)
    for kind, found in kinds.items():
        for number, first in enumerate(range(0, len(found), PROMPTS_PER_CONVERSATION)):
            yield f"asterisk_{kind}_{number:02d}", found[first : first + PROMPTS_PER_CONVERSATION]


def _write_prompt(
    writer: CorpusWriter, av: Any, conversation: str, name: str, text: str, content: bytes
) -> None:
    try:
        samples = decode_g722(av, content)
    except ValueError as error:
        writer.reject(name, str(error))
        return
    if np.abs(samples).max() < 1e-3:
        writer.reject(name, "silent")
        return
    identity = f"asterisk_{name.replace('/', '_')}"
    turn = Turn(
        id=identity,
        conversation=conversation,
        index=0,
        speaker=SPEAKER,
        text=text,
        audio=f"audio/{conversation}/{identity}.flac",
        end=round(len(samples) / SAMPLE_RATE, 6),
        synthetic=True,
    )
    with AtomicAudioWriter(writer.partial / turn.audio, SAMPLE_RATE, 1) as file:
        file.write(samples[:, None])
    writer.add(turn)
