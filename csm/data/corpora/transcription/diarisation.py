"""Who speaks when on one channel: windows' speaker embeddings, clustered, decoded on a grid of 0.1 s.

Embeddings are taken relative to their mean over the recording, which removes what all of it shares (room,
microphone, noise), reduced to their principal components, and clustered by Ward's method; then means and the
best paths through the windows are found in turn. The number of speakers is that of the largest silhouette
(Rousseeuw 1987), of the embeddings and of their components on average, for which only windows of different
stretches of speech are compared: those of one stretch are alike whoever speaks. Each cell of the grid scores
its cosine to each cluster's mean over the windows around it; the best path has a penalty for each change of
speaker (Viterbi).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from csm.data.corpora.transcription.speaker_windows import Windows
from csm.data.manifest import Segment
from csm.system.extras import missing_package

CELL = 0.1  # seconds
CHANGE_COST = 0.5  # cosine that a change of speaker costs
MOST_SPEAKERS = 6
COMPONENTS = 20  # of the embeddings of one recording
# There is one speaker if no number of clusters has a silhouette of the embeddings above this. Found on 56
# conversations of one to four people (docs/LOG.md, 2026-12-01).
ONE_SPEAKER = 0.16
APART = 8.0  # seconds; windows of one stretch of speech this far apart are compared, too
REFINEMENTS = 8
CLUSTERED = 3_000  # windows at most; the others take the nearest cluster


class Attributed(NamedTuple):
    """An interval in seconds with its speaker, from 0. `overlap`: two people speak."""

    start: float
    end: float
    speaker: int
    overlap: bool = False


def diarise(
    regions: list[Segment],
    windows: Windows,
    speakers: int | None = None,
    overlaps: Sequence[tuple[float, float]] = (),
) -> list[Attributed]:
    """Attributes regions of speech to speakers.

    Args:
        regions: Intervals of speech, in order.
        windows: Their windows.
        speakers: Number of speakers; None finds it.
        overlaps: Where two people speak, (start, end) in seconds, in order; the likelier one gets it.

    Returns:
        Intervals in order, which cover every region; speakers are numbered by their first word.
    """
    if len(windows.embeddings) == 0:
        return [Attributed(region.start, region.end, 0) for region in regions]
    count = len(windows.embeddings)
    chosen = np.linspace(0, count - 1, min(count, CLUSTERED)).astype(int)
    relative = _relative(windows.embeddings)
    labels = _clusters(Windows(*(part[chosen] for part in windows)), relative[chosen], speakers)
    scores = _unit(relative) @ _unit(_means(relative[chosen], labels)).T
    if labels.max() == 0:
        scores = np.ones_like(scores)
    starts, ends = np.array(overlaps, float).reshape(-1, 2).T
    attributed: list[Attributed] = []
    for index, region in enumerate(regions):
        own = windows.regions == index
        if own.any():
            near = slice(int(np.searchsorted(ends, region.start)), int(np.searchsorted(starts, region.end)))
            attributed += _decoded(region, windows.spans[own], scores[own], overlaps[near])
        else:  # too short for a window: as the speech before it
            previous = attributed[-1].speaker if attributed else 0
            attributed.append(Attributed(region.start, region.end, previous))
    return _numbered(attributed)


def _relative(embeddings: np.ndarray) -> np.ndarray:
    """Returns the principal components of embeddings [N, C]."""
    centred = embeddings - embeddings.mean(0)
    return centred @ np.linalg.eigh(centred.T @ centred)[1][:, -COMPONENTS:]


def _clusters(windows: Windows, relative: np.ndarray, speakers: int | None) -> np.ndarray:
    """Returns the cluster of each window, from 0."""
    try:
        from scipy.cluster.hierarchy import fcluster, linkage
    except ImportError as error:
        raise ValueError(missing_package("scipy", "clustering speakers")) from error
    if len(relative) < 2 or speakers == 1:
        return np.zeros(len(relative), int)
    tree = linkage(_unit(relative), "ward")

    def labelled(count: int) -> np.ndarray:
        return _refined(relative, windows.regions, fcluster(tree, count, "maxclust") - 1)

    if speakers:
        return labelled(speakers)
    apart = _apart(windows)
    spaces = [_distances(points, apart) for points in (windows.embeddings, relative)]
    found = [labelled(count) for count in range(2, MOST_SPEAKERS + 1)]
    values = np.array([[_silhouette(space, apart, labels) for space in spaces] for labels in found])
    if values[:, 0].max() < ONE_SPEAKER:
        return np.zeros(len(relative), int)
    return found[int(values.mean(1).argmax())]


def _refined(relative: np.ndarray, regions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns labels after steps of k-means on the sphere, in which a change inside a region has its cost."""
    for _ in range(REFINEMENTS):
        scores = _unit(relative) @ _unit(_means(relative, labels)).T
        parts = [_best_path(scores[regions == region]) for region in np.unique(regions)]
        found = np.unique(np.concatenate(parts), return_inverse=True)[1]
        if np.array_equal(found, labels):
            break
        labels = found
    return labels


def _apart(windows: Windows) -> np.ndarray:
    """Returns the pairs of windows [N, N] that lie in different stretches of speech, or far apart in one."""
    middle = windows.spans.mean(1)
    different = windows.regions[:, None] != windows.regions
    return (different | (np.abs(middle[:, None] - middle) > APART)).astype(np.float32)


def _distances(points: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Returns cosine distances [N, N], 0 for pairs that are not compared."""
    unit = _unit(points)
    return (1 - unit @ unit.T) * apart


def _means(embeddings: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.stack([embeddings[labels == k].mean(0) for k in range(labels.max() + 1)])


def _silhouette(distances: np.ndarray, apart: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean silhouette of the pairs that are compared, -1 of a single cluster.

    A window whose cluster has no other stretch of speech counts as 0: nothing shows that it is a speaker.
    """
    if labels.max() == 0:
        return -1.0
    one_hot = np.eye(labels.max() + 1, dtype=np.float32)[labels]
    pairs = apart @ one_hot  # [N, K]
    means = np.where(pairs > 0, distances @ one_hot / np.maximum(pairs, 1), np.nan)
    own = means[np.arange(len(labels)), labels]
    others = np.where((one_hot > 0) | np.isnan(means), np.inf, means).min(1)
    known = ~np.isnan(own) & np.isfinite(others)
    gains = (others - own)[known] / np.maximum(np.maximum(own, others)[known], 1e-9)
    return float(gains.sum() / len(labels))


def _decoded(
    region: Segment, spans: np.ndarray, scores: np.ndarray, overlaps: Sequence[tuple[float, float]]
) -> list[Attributed]:
    cells = max(1, round(region.duration / CELL))
    width = region.duration / cells
    times = region.start + (np.arange(cells) + 0.5) * width
    middle, half = spans.mean(1), (spans[:, 1] - spans[:, 0]) / 2
    distance = np.abs(times[:, None] - middle) / np.maximum(half, CELL)
    weights = np.clip(1 - distance, 1e-3, None) * (distance <= 1.0 + CELL)
    grid = (weights + 1e-9) @ scores / (weights + 1e-9).sum(1, keepdims=True)
    path = _best_path(grid)
    both = np.zeros(cells, bool)
    for start, end in overlaps:
        both |= (times >= start) & (times < end)
    labels = list(zip(path.tolist(), both.tolist(), strict=True))
    parts, first = [], 0
    for cell in range(1, cells + 1):
        if cell == cells or labels[cell] != labels[first]:
            start, end = region.start + first * width, region.start + cell * width
            parts.append(Attributed(start, region.end if cell == cells else end, *labels[first]))
            first = cell
    return parts


def _best_path(grid: np.ndarray) -> np.ndarray:
    best, back = grid[0].copy(), []
    for scores in grid[1:]:
        changed = best.max() - CHANGE_COST
        stays = best >= changed
        back.append(np.where(stays, np.arange(len(best)), best.argmax()))
        best = np.where(stays, best, changed) + scores
    path = [int(best.argmax())]
    for pointers in reversed(back):
        path.append(int(pointers[path[-1]]))
    return np.array(path[::-1])


def _numbered(attributed: list[Attributed]) -> list[Attributed]:
    order = list(dict.fromkeys(a.speaker for a in attributed))
    return [a._replace(speaker=order.index(a.speaker)) for a in attributed]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
