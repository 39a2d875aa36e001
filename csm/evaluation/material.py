"""Everything that is judged, loaded once: the spoken versions and the corpus they are held against."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from csm.audio.files import read_audio
from csm.data.manifest import Corpus, Turn, read_corpus
from csm.evaluation.judge import JUDGE_SAMPLE_RATE, Clip
from csm.evaluation.speech_folder import CONDITIONS, SpeechFolder, Utterance, clips_of, read_speech_folder
from csm.system.files import hash_key

LINES, TURNS = "lines", "dialogue turns"


@dataclass(frozen=True, kw_only=True)
class SuiteOptions:
    """How to evaluate.

    Attributes:
        asr: faster-whisper model name or folder; ``None`` for the packaged tiny.en.
        seed: of the bootstrap and of everything drawn.
        repeats: bootstrap repeats.
        workers: judges running at the same time, one thread each; results do not depend on it.
        references: most reference recordings for the mean voice of one speaker.
        probe_pairs: most real (turn, reply) pairs to train the context probe on.
    """

    asr: str | None = None
    seed: int = 0
    repeats: int = 1000
    workers: int = 2
    references: int = 6
    probe_pairs: int = 400

    def __post_init__(self) -> None:
        for name in ("repeats", "workers", "references", "probe_pairs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Material:
    """The run, its clips by subset and condition, the corpus if there is one, and the options.

    ``clips[subset][condition]`` are in the order of ``utterances[subset]`` in every condition.
    """

    run: Path
    folder: SpeechFolder
    utterances: dict[str, tuple[Utterance, ...]]
    clips: dict[str, dict[str, list[Clip]]]
    corpus: Corpus | None
    options: SuiteOptions
    hardware: str
    say: Callable[[str], None] = field(default=lambda _: None)

    def sets(self) -> list[tuple[str, str, list[Clip]]]:
        """(subset, condition, clips) of everything that exists."""
        return [
            (subset, condition, clips)
            for subset, conditions in self.clips.items()
            for condition, clips in conditions.items()
            if clips
        ]


def load_material(run: Path, corpus: Path | None, options: SuiteOptions) -> Material:
    """Reads a run's speech folder and, where given, the corpus manifest.

    Raises:
        ValueError: no speech folder, or a corpus folder that cannot be read.
    """
    folder = read_speech_folder(run / "speech")
    utterances = {LINES: folder.lines, TURNS: folder.turns}
    clips = {
        subset: {condition: clips_of(folder.root, members, condition) for condition in CONDITIONS}
        for subset, members in utterances.items()
    }
    return Material(
        run=run,
        folder=folder,
        utterances=utterances,
        clips=clips,
        corpus=None if corpus is None else read_corpus(corpus),
        options=options,
        hardware=hardware(),
    )


def hardware() -> str:
    """Processor and architecture that the judges run on."""
    name = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux, or a processor without a name there
    return f"CPU {name or 'unknown'}, {platform.machine()}, one thread a judge"


def chosen(turns: Sequence[Turn], count: int, seed: int) -> list[Turn]:
    """``count`` turns drawn by a hash of their id: the same ones whatever else the corpus holds."""
    return sorted(
        sorted(turns, key=lambda turn: hash_key(turn.id, seed))[:count],
        key=lambda turn: turn.id,
    )


def turn_audio(corpus: Corpus, turn: Turn) -> np.ndarray:
    """Mono 16 kHz waveform [S] of one turn of the corpus.

    Raises:
        ValueError: the file is missing or bad.
    """
    waveform = read_audio(
        corpus.root / turn.audio,
        sample_rate=JUDGE_SAMPLE_RATE,
        start=turn.start,
        end=turn.end,
        channel=turn.channel,
    )
    return waveform[0].numpy()
