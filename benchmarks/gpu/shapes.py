"""Shapes that the GPU day times and docs/GPU.md predicts."""

from __future__ import annotations

from typing import NamedTuple


class SearchShape(NamedTuple):
    """Residual search of N rows of width D over Q levels of V codes; the update that follows has the same."""

    rows: int
    width: int
    size: int
    levels: int

    @property
    def title(self) -> str:
        return f"N{self.rows} D{self.width} V{self.size} Q{self.levels}"


class AttentionShape(NamedTuple):
    """Attention of `batch` sequences of L queries to L / ratio keys, a head of 64 channels."""

    batch: int
    heads: int
    length: int
    ratio: int
    window: int | None = None

    @property
    def keys(self) -> int:
        return self.length // self.ratio

    @property
    def title(self) -> str:
        reach = "" if self.window is None else f" window {self.window}"
        return f"B*H {self.batch * self.heads} L{self.length} Tk{self.keys}{reach}"


HEAD = 64
SEARCHES = (
    *(SearchShape(rows, 128, 1024, 32) for rows in (1, 13, 4095, 4096, 16384, 65536)),
    SearchShape(16384, 256, 2048, 8),
    SearchShape(16384, 8, 1024, 9),
)
UPDATES = (SearchShape(65536, 128, 1024, 32), SearchShape(16384, 256, 2048, 8))
RATIOS = (1, 2, 4, 8, 16, 64)
ATTENTIONS = (
    *(AttentionShape(8, 12, 2048, ratio) for ratio in RATIOS),
    *(AttentionShape(8, 12, 2048, ratio, 12) for ratio in (1, 8)),
)
# The same operations where there is no device: they show that the script runs, and no speed.
SMALL_SEARCHES = (SearchShape(70, 16, 32, 3),)
SMALL_ATTENTIONS = (AttentionShape(1, 2, 64, 4), AttentionShape(1, 2, 64, 1, 3))
