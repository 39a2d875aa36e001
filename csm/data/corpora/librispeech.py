"""LibriSpeech: read English, 1,000 hours (V. Panayotov et al., 2015; CC BY 4.0), https://www.openslr.org/12.

The recordings are monologues. Chapters of two different readers are paired and their utterances alternate, so
that training on dialogues can be tried on a large corpus; every turn is marked synthetic, because neither
turn-taking nor answers can be learned from it.
"""

from __future__ import annotations

import shutil
from collections import defaultdict, deque
from pathlib import Path

from csm.audio.files import AudioInfo, check_audio
from csm.data.corpora.corpus_writer import CorpusWriter
from csm.data.corpora.downloads import download, unpack
from csm.data.manifest import Corpus, Turn
from csm.system.files import hash_key
from csm.system.log import progress_of

ADDRESS = "https://www.openslr.org/resources/12/{subset}.tar.gz"

# Subset -> SHA-256 of SUBSET.tar.gz (from torchaudio.datasets.librispeech) and hours.
SUBSETS = {
    "dev-clean": ("76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3", 5.4),
    "dev-other": ("12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365", 5.3),
    "test-clean": ("39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23", 5.4),
    "test-other": ("d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29", 5.1),
    "train-clean-100": ("d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2", 100.6),
    "train-clean-360": ("146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf", 363.6),
    "train-other-500": ("ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2", 496.7),
}
_BYTES_PER_HOUR = 130_000_000  # upper bound for FLAC at 16 kHz

# Id "READER-CHAPTER-NUMBER", text, path of the FLAC.
Utterance = tuple[str, str, Path]


def prepare_librispeech(output: str | Path, *, downloads: str | Path, subset: str = "dev-clean") -> Corpus:
    """Builds a corpus folder from one subset.

    Args:
        output: Path of the corpus folder; a finished one is returned unchanged.
        downloads: Folder of the archive and its extracted files. An existing folder
            SUBSET/LibriSpeech/SUBSET is used without a download.
        subset: Name of the subset, a key of SUBSETS.

    Raises:
        ValueError: The subset is unknown, the download fails, the checksum differs, `output` holds another
            corpus, or there is no utterance.
    """
    if subset not in SUBSETS:
        raise ValueError(f"subset is {subset!r}: expected one of {', '.join(SUBSETS)}; choose one")
    sha256, hours = SUBSETS[subset]
    unpacked = Path(downloads) / subset
    writer = CorpusWriter(
        folder=Path(output),
        identity={"name": "librispeech", "source": f"{subset} of https://www.openslr.org/12"},
        notes={
            "licence": "CC BY 4.0",
            "modified": "Texts in lower case; chapters of two readers made into synthetic conversations.",
        },
    )
    if finished := writer.finished():
        return finished
    if not unpacked.is_dir():
        archive = download(ADDRESS.format(subset=subset), Path(downloads) / f"{subset}.tar.gz", sha256=sha256)
        unpack(archive, unpacked, most_bytes=int(hours * _BYTES_PER_HOUR) + 10**9)
    writer.start()
    chapters = read_chapters(unpacked / "LibriSpeech" / subset, writer)
    pairs = pair_chapters(sorted(chapters))
    for pair in progress_of(pairs, "librispeech", len(pairs), unit="pair"):
        queues = [deque(chapters[name]) for name in pair]
        while any(queues):
            for queue in queues:
                if queue:
                    _use(writer, "_".join(pair), queue.popleft())
    return writer.finish()


def read_chapters(root: Path, writer: CorpusWriter) -> dict[str, list[Utterance]]:
    """Reads the transcripts READER/CHAPTER/READER-CHAPTER.trans.txt.

    Args:
        root: Folder of the subset.
        writer: Receives a reject for each text without a FLAC and each FLAC without a text.

    Returns:
        "READER-CHAPTER" -> utterances in reading order.
    """
    chapters: dict[str, list[Utterance]] = {}
    with_text: set[Path] = set()
    for transcript in sorted(root.glob("*/*/*.trans.txt")):
        name = transcript.name.removesuffix(".trans.txt")
        chapters[name] = []
        for line in transcript.read_text(encoding="utf-8", errors="replace").splitlines():
            utterance, _, text = line.strip().partition(" ")
            audio = transcript.parent / f"{utterance}.flac"
            if not utterance:
                continue
            with_text.add(audio)
            if not text.strip():
                writer.reject(utterance, "the transcript is empty")
            elif not audio.is_file():
                writer.reject(utterance, "its FLAC is missing")
            else:
                chapters[name].append((utterance, " ".join(text.lower().split()), audio))
    for audio in sorted(set(root.glob("*/*/*.flac")) - with_text):
        writer.reject(audio.stem, "its transcript is missing")
    return {name: utterances for name, utterances in chapters.items() if utterances}


def pair_chapters(names: list[str]) -> list[tuple[str, ...]]:
    """Pairs "READER-CHAPTER" names of different readers deterministically.

    Readers with most remaining chapters come first, so that as few chapters as possible stay unpaired; the
    SHA-256 of the names orders the rest. Chapters of the last remaining reader stay unpaired.
    """
    readers: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names, key=hash_key):
        readers[name.split("-")[0]].append(name)
    pairs: list[tuple[str, ...]] = []
    while readers:
        order = sorted(readers, key=lambda reader: (-len(readers[reader]), hash_key(reader)))[:2]
        pairs.append(tuple(readers[reader].pop() for reader in order))
        readers = {reader: left for reader, left in readers.items() if left}
    return pairs


def _use(writer: CorpusWriter, conversation: str, utterance: Utterance) -> None:
    name, text, source = utterance
    try:
        info: AudioInfo = check_audio(source)
    except ValueError as error:
        writer.reject(name, str(error))
        return
    turn = Turn(
        id=name,
        conversation=conversation,
        index=0,
        speaker=name.split("-")[0],
        text=text,
        audio=f"audio/{conversation}/{name}.flac",
        end=round(info.duration, 6),
        synthetic=True,
    )
    target = writer.partial / turn.audio
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    writer.add(turn)
