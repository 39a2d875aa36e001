"""Audio samples during training: clips of every validation, and a page that plays them side by side.

OUTPUT/samples holds original/, a folder per validation (step_00000250/) and index.html. Each appears whole or
not at all. A folder that is there is left alone: a resumed run would write the same into it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import quote

from torch import Tensor

from csm.audio.files import write_audio
from csm.system.files import new_folder, write_atomically
from csm.training.metrics import read_metrics
from csm.training.samples_page import samples_page

# By name: waveform [channels, samples], full scale = 1, and Hz.
Clips = dict[str, tuple[Tensor, int]]


@runtime_checkable
class Audible(Protocol):
    """A task whose progress can be listened to."""

    def originals(self) -> Clips:
        """Returns the recordings that `samples` are made from; called on rank 0."""
        ...

    def samples(self, step: int) -> Clips:
        """Returns clips under the names of `originals`, the same ones after every validation.

        Called like the task's `validate`, right after it: without gradients, modules in eval mode, and under
        ZeRO-3 on every rank.
        """
        ...


def write_samples(output: Path, step: int, clips: Clips, originals: Clips) -> None:
    """Writes the clips of one validation and the page again. Rank 0 calls this.

    Args:
        output: The run's folder.
        step: After which it was.
        clips, originals: By name; any text will do.

    Raises:
        OSError: The disk takes no more.
        ValueError: A clip is empty or not finite; nothing of this step is written.
    """
    folder = output / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    _write_folder(folder / "original", originals)
    _write_folder(folder / f"step_{step:08d}", clips)
    validations = [line for line in read_metrics(output / "metrics.jsonl") if line["split"] == "validation"]
    write_atomically(folder / "index.html", samples_page(folder, output.name, validations))


def _write_folder(folder: Path, clips: Clips) -> None:
    """All of the clips or none, unless they are there."""
    if folder.is_dir():
        return
    with new_folder(folder) as partial:
        for name, (waveform, sample_rate) in clips.items():
            # Quoted: a name may hold a slash, and two names must not become one file.
            write_audio(partial / f"{quote(name, safe='')}.wav", waveform, sample_rate)
