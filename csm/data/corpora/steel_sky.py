"""Beneath a Steel Sky: about two hours of acted lines of a game of 1994, transcribed by a recogniser.

(C) Revolution Software Ltd, freely redistributable; the Debian package beneath-a-steel-sky holds the speech
as unsigned samples of 8 bits (mono, 11,025 Hz). The game's own texts are not read: words are those of a
recogniser, and speakers are clusters of speaker embeddings. `corpus.json` says both. Lines of neighbouring
numbers make conversations of ten; who answers whom is unknown, so every turn is marked synthetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch

from csm.audio.files import AtomicAudioWriter
from csm.audio.resampling import resample
from csm.audio.voice_activity import SpeechProbabilities, load_detector
from csm.data.corpora.corpus_writer import CorpusWriter
from csm.data.corpora.debian_package import DebianPackage
from csm.data.corpora.steel_sky_files import read_index, speech_files, unpack
from csm.data.corpora.transcription.recogniser import RATE, WordRecogniser
from csm.data.corpora.transcription.resemblyzer_windows import ResemblyzerWindows
from csm.data.manifest import Corpus, Segment, Turn
from csm.system.extras import missing_package
from csm.system.log import progress_of

PACKAGE = DebianPackage(
    name="beneath-a-steel-sky",
    version="0.0372-8",
    pool="pool/main/b/beneath-a-steel-sky",
    sha256="e2a25c880220c26a4dfd42904b878cc655afa1c72895f9c932befbd078622934",
    unpacked_bytes=80_000_000,
)
SAMPLE_RATE = 11_025
LICENCE = "Beneath-a-Steel-Sky-License"
LINES_PER_CONVERSATION = 10
#: Shortest line in seconds, least share of it that is speech, and least that a cluster of a speaker holds.
SHORTEST, LEAST_SPEECH, LEAST_OF_SPEAKER = 0.5, 0.4, 10.0
#: Largest mean cosine distance between the lines of a speaker.
SAME_SPEAKER = 0.3
BATCH = 64  # lines that are transcribed at a time, which an interrupted run keeps
_FOLDER = "usr/share/scummvm/beneath-a-steel-sky/"
_COPYRIGHT = "usr/share/doc/beneath-a-steel-sky/copyright"


class Line(NamedTuple):
    """A line of the game: its file's number and its waveform [S] at `SAMPLE_RATE`."""

    number: int
    waveform: np.ndarray

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.waveform) / SAMPLE_RATE


def prepare_steel_sky(output: str | Path, *, downloads: str | Path) -> Corpus:
    """Builds the corpus from the Debian package; an interrupted run keeps its transcripts.

    Args:
        output: Path of the corpus folder; a finished one is returned unchanged.
        downloads: Folder of the .deb, which is downloaded unless it is there.

    Raises:
        ValueError: The download fails, the package is damaged, faster-whisper, Resemblyzer or silero-vad is
            missing, `output` holds another corpus, or the disk is too full.
    """
    recogniser, windows = WordRecogniser(), ResemblyzerWindows()
    writer = CorpusWriter(
        folder=Path(output),
        identity={"name": "steel_sky", "source": PACKAGE.source, "revision": 1},
        notes={
            "licence": LICENCE,
            "modified": "Modified version: clips stored as FLAC, texts and speakers found by machine.",
            "attribution": "(C) 1994 Revolution Software Ltd, http://www.revolution.co.uk",
            "texts_by": f"transcribed by {recogniser.name}",
            "speakers_by": "clusters of Resemblyzer's embeddings",
        },
        needed_bytes=300_000_000,
    )
    if finished := writer.finished():
        return finished
    files = PACKAGE.read(downloads, lambda path: path.startswith(_FOLDER) or path == _COPYRIGHT)
    named = {PurePosixPath(path).name: content for path, content in files.items()}
    for name in ("sky.dnr", "sky.dsk"):
        if name not in named:
            raise ValueError(f"{PACKAGE.file_name} lacks {name}; get it again")
    writer.start(resume=True)
    lines = _spoken_lines(writer, named["sky.dnr"], named["sky.dsk"])
    texts = _texts(writer, lines, recogniser)
    for line in lines:
        if not texts[line.number]:
            writer.reject(_name(line), "no words are recognised", seconds=line.seconds)
    lines = [line for line in lines if texts[line.number]]
    speakers = speakers_of(_embeddings(lines, windows), [line.seconds for line in lines])
    for place, (line, speaker) in enumerate(zip(lines, speakers, strict=True)):
        if speaker is None:
            writer.reject(_name(line), "its voice is like too few others", seconds=line.seconds)
            continue
        _write_line(writer, place // LINES_PER_CONVERSATION, line, f"SKY {speaker:02d}", texts[line.number])
    (writer.partial / "LICENSE.txt").write_bytes(named.get("copyright", b""))
    return writer.finish()


def speakers_of(embeddings: np.ndarray, seconds: Sequence[float]) -> list[int | None]:
    """Clusters lines to speakers, numbered by the seconds that they speak, most first.

    Args:
        embeddings: Of unit length, [N, E].
        seconds: Length of each line.

    Returns:
        Speaker of each line; None where its cluster holds less than `LEAST_OF_SPEAKER` seconds.

    Raises:
        ValueError: scipy is missing.
    """
    try:
        from scipy.cluster.hierarchy import fcluster, linkage
    except ImportError as error:
        raise ValueError(missing_package("scipy", "--corpus steel_sky")) from error
    if len(embeddings) < 2:
        return [0 if length >= LEAST_OF_SPEAKER else None for length in seconds]
    tree = linkage(embeddings.astype(np.float64), method="average", metric="cosine")
    labels = fcluster(tree, SAME_SPEAKER, criterion="distance")
    spoken = {label: sum(np.asarray(seconds)[labels == label]) for label in np.unique(labels)}
    kept = sorted((label for label in spoken if spoken[label] >= LEAST_OF_SPEAKER), key=lambda x: -spoken[x])
    numbers = {label: number for number, label in enumerate(kept)}
    return [numbers.get(label) for label in labels]


def _spoken_lines(writer: CorpusWriter, index: bytes, archive: bytes) -> list[Line]:
    """Unpacks the lines that are mostly speech; others go to the ledger."""
    try:
        detector = load_detector()
    except ImportError as error:
        raise ValueError(missing_package("silero-vad", "--corpus steel_sky")) from error
    lines = []
    packed = list(speech_files(read_index(index), archive))
    for number, content in progress_of(packed, "unpacked", len(packed), unit="file"):
        samples = np.frombuffer(unpack(content), np.uint8).astype(np.float32)
        line = Line(number, (samples - 128.0) / 128.0)
        if line.seconds < SHORTEST:
            writer.reject(_name(line), f"shorter than {SHORTEST:g} s", seconds=line.seconds)
            continue
        activity = SpeechProbabilities(detector, SAMPLE_RATE)
        activity.push(torch.from_numpy(line.waveform))
        activity.finish()
        spoken = sum(end - start for start, end in activity.intervals())
        if spoken < LEAST_SPEECH * line.seconds:
            writer.reject(_name(line), "music or a sound: hardly any speech", seconds=line.seconds)
        else:
            lines.append(line)
    return lines


def _texts(writer: CorpusWriter, lines: Sequence[Line], recogniser: WordRecogniser) -> dict[int, str]:
    """Transcribes the lines, several in a window of the recogniser."""
    texts: dict[int, str] = {}
    firsts = range(0, len(lines), BATCH)
    for first in progress_of(firsts, "transcribed", len(firsts), unit="batch"):
        part = lines[first : first + BATCH]

        def transcribed(part: Sequence[Line] = part) -> list[str]:
            clips = [resample(torch.from_numpy(one.waveform), SAMPLE_RATE, RATE).numpy() for one in part]
            # One after the other on a clock of their own; each is read whole.
            starts = np.cumsum([0.0, *(len(clip) / RATE + 1.0 for clip in clips)])
            pieces = [
                Segment(speaker="", start=start, end=start + len(clip) / RATE)
                for start, clip in zip(starts[:-1], clips, strict=True)
            ]
            read = {piece.start: clip for piece, clip in zip(pieces, clips, strict=True)}
            found = recogniser.words(pieces, lambda start, end: read[start])
            return [" ".join(word.text for word in words) for words in found]

        known = writer.remembered(f"texts of {[line.number for line in part]}", transcribed)
        texts |= {line.number: text for line, text in zip(part, known, strict=True)}
    return texts


def _embeddings(lines: Sequence[Line], windows: ResemblyzerWindows) -> np.ndarray:
    """Returns the mean embedding of each line, of unit length."""
    means = []
    for line in progress_of(lines, "voices", len(lines), unit="line"):
        clip = resample(torch.from_numpy(line.waveform), SAMPLE_RATE, RATE).numpy()
        found = windows.embed([Segment(speaker="", start=0.0, end=line.seconds)], iter([clip])).embeddings
        mean = found.mean(axis=0)
        means.append(mean / np.linalg.norm(mean))
    return np.stack(means) if means else np.zeros((0, 1))


def _write_line(writer: CorpusWriter, conversation: int, line: Line, speaker: str, text: str) -> None:
    name = f"steel_sky_{conversation:03d}"
    turn = Turn(
        id=_name(line),
        conversation=name,
        index=0,
        speaker=speaker,
        text=text,
        audio=f"audio/{name}/{_name(line)}.flac",
        end=round(line.seconds, 6),
        synthetic=True,
    )
    with AtomicAudioWriter(writer.partial / turn.audio, SAMPLE_RATE, 1) as file:
        file.write(line.waveform[:, None])
    writer.add(turn)


def _name(line: Line) -> str:
    return f"steel_sky_{line.number}"
