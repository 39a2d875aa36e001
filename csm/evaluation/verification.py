"""Are two clips one voice? Equal error rates of two speaker embeddings on the same trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from csm.data.corpora.amazon_queen import HELD_OUT_SPEAKERS
from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn
from csm.evaluation.codec_ladder import ExtraTable
from csm.evaluation.judge import JudgeUnavailable, at_rate
from csm.evaluation.speaker import SHORTEST_RELIABLE, SpeakerEncoder
from csm.evaluation.statistics import bootstrap_repeats, interval, seed_for
from csm.system.threads import one_thread
from csm.tokenizer.conversational_rvq import ConversationalRVQ

TITLE = "Are two clips one voice? (unheard speakers)"
HEADER = ("speaker embedding", "equal error rate [95 % CI]", "pairs of one voice", "of two")
OWN = "the tokenizer's own"


@dataclass(frozen=True, kw_only=True)
class VerificationConfig:
    """Which pairs of clips are asked about.

    Attributes:
        speakers: Voices that neither embedding was trained on; clips of all splits count.
        shortest: Seconds; embeddings of shorter clips are weak.
        clips_per_speaker: At most so many clips of a voice, drawn by the seed.
        trials: At most so many pairs, half of one voice and half of two.
        repeats: Of the bootstrap. seed: Of every draw.
    """

    speakers: tuple[str, ...] = HELD_OUT_SPEAKERS
    shortest: float = SHORTEST_RELIABLE
    clips_per_speaker: int = 30
    trials: int = 3600
    repeats: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if len(set(self.speakers)) < 2 or self.clips_per_speaker < 2:
            raise ValueError(
                f"speakers={self.speakers}, clips_per_speaker={self.clips_per_speaker}: expected two "
                f"different speakers and two clips of each at least, or there is nothing to tell apart"
            )
        if self.trials < 2 or self.repeats < 1:
            raise ValueError(f"trials={self.trials}, repeats={self.repeats}: expected at least 2 and 1")


class Trials(NamedTuple):
    """Pairs of clips, N of them.

    Attributes:
        left, right: int64 [N], the two clips. same: bool [N], whether one voice speaks both.
        weight: float64 [N]: every voice counts alike among the same, every pair of voices among the others.
    """

    left: np.ndarray
    right: np.ndarray
    same: np.ndarray
    weight: np.ndarray


def draw_trials(speakers: Sequence[str], *, trials: int = 3600, seed: int = 0) -> Trials:
    """Pairs of clips, half of one voice and half of two, no pair twice, spread evenly over the voices.

    Args:
        speakers: Of each clip.
        trials: At most so many; a voice with few clips has fewer pairs, which then count more.
        seed: Of the draw.

    Raises:
        ValueError: Fewer than two voices with two clips each.
    """
    names = sorted(set(speakers))
    places = {name: [i for i, other in enumerate(speakers) if other == name] for name in names}
    kinds = {(name, name): list(combinations(places[name], 2)) for name in names if len(places[name]) > 1}
    if len(kinds) < 2:
        raise ValueError(
            f"{len(kinds)} voices with two clips or more among {len(speakers)} clips: expected two voices at "
            f"least; name other speakers or lower `shortest`"
        )
    ones = len(kinds)
    for first, second in combinations(names, 2):
        kinds[first, second] = [(a, b) for a in places[first] for b in places[second]]
    generator = np.random.default_rng(seed)
    rows = []
    for (first, second), pairs in kinds.items():
        share = ones if first == second else len(kinds) - ones
        count = min(len(pairs), max(1, trials // 2 // share))
        chosen = generator.choice(len(pairs), size=count, replace=False)
        rows += [(*pairs[i], first == second, 1.0 / (share * count)) for i in chosen]
    left, right, same, weight = (np.array(column) for column in zip(*rows, strict=True))
    return Trials(left, right, same, weight)


def equal_error_rate(scores: np.ndarray, same: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Error at the threshold where as many pairs of one voice are missed as pairs of two are taken for one.

    Between two thresholds the rates are joined by a line; equal scores fall on the same side, so that a
    constant score has 0.5 and not 0.

    Args:
        scores: [N], higher where the voices sound alike.
        same: bool [N], whether they are one.
        weight: [N] of the pairs, not negative. None: all alike.

    Returns:
        0 where a threshold separates them, 0.5 for guessing, 1 where all are told the wrong way round.

    Raises:
        ValueError: A score that is not a number, or pairs of one kind only.
    """
    weight = np.ones(len(scores)) if weight is None else weight
    if not np.isfinite(scores).all():
        raise ValueError("a score is not a number: leave out the clips that could not be embedded")
    if not (weight[same].sum() > 0 and weight[~same].sum() > 0):
        raise ValueError("expected pairs of one voice and pairs of two, got one kind only")
    order = np.argsort(scores, kind="stable")
    last = np.append(np.diff(scores[order]) > 0, True)
    below = [np.cumsum(np.where(kind, weight, 0.0)[order])[last] for kind in (same, ~same)]
    missed, refused = (np.concatenate([[0.0], part / part[-1]]) for part in below)
    excess = missed - (1.0 - refused)
    after = int(np.argmax(excess >= 0))
    step = -excess[after - 1] / (excess[after] - excess[after - 1])
    return float(missed[after - 1] + step * (missed[after] - missed[after - 1]))


def speaker_verification(
    tokenizer: ConversationalRVQ,
    corpus: Corpus,
    config: VerificationConfig | None = None,
    *,
    encoder: SpeakerEncoder | None = None,
) -> ExtraTable:
    """The tokenizer's speaker embedding beside Resemblyzer's, on the same pairs of clips of unheard voices.

    Args:
        tokenizer: In eval mode. corpus: Its recordings.
        config: Which pairs.
        encoder: The other embedding. None: Resemblyzer; where it is not installed its row says so.

    Raises:
        ValueError: The corpus has fewer than two of the voices with two clips each.
    """
    config = config or VerificationConfig()
    turns = _draw_turns(corpus, config)
    draw_trials([turn.speaker for turn in turns])  # Refused before anything is computed.
    missing = ""
    try:
        encoder = encoder or SpeakerEncoder()
    except JudgeUnavailable as error:
        missing = f" Not judged: {error}."
    kept, own, other, failures = [], [], [], []
    with one_thread(), torch.no_grad():
        device = next(tokenizer.parameters()).device
        for turn in tqdm(turns, desc="verification", unit="clip", ascii=True, dynamic_ncols=True):
            waveform = read_turn(corpus, turn, tokenizer.config.sample_rate)
            try:
                if encoder is not None:
                    other.append(encoder.embed(at_rate(waveform.numpy(), tokenizer.config.sample_rate)))
            except ValueError as error:
                failures.append(f"{turn.id} ({error})")
                continue
            own.append(tokenizer.encode(waveform[None].to(device))[1].speaker[0].cpu().numpy())
            kept.append(turn)
    names = [OWN] if encoder is None else [OWN, encoder.evaluator]
    rows, trials = _rows(dict(zip(names, (own, other), strict=False)), kept, config)
    if encoder is None:
        rows.append(("Resemblyzer", "not judged", "-", "-"))
    voices = ", ".join(sorted({turn.speaker for turn in kept}))
    note = (
        f"Cosine of two clips' embeddings; {len(kept)} clips of {config.shortest} s or more of {voices}, "
        f"{len(failures)} left out{': ' + ', '.join(failures) if failures else ''}. {len(trials.same)} pairs "
        f"drawn with seed {config.seed}, the same in every row; each voice and each pair of voices counts "
        f"alike, guessing has 0.5. Intervals resample conversations, not voices. The telephone recipes "
        f"leave the default voices out, but their actors may speak other roles.{missing}"
    )
    return ExtraTable(TITLE, HEADER, rows, note)


def with_interval(value: float, ci95: list[float] | None) -> str:
    """A cell: the value and its 95 % interval, where there is one."""
    return f"{value:.3f}" + (f" [{ci95[0]:.3f}, {ci95[1]:.3f}]" if ci95 else "")


def _draw_turns(corpus: Corpus, config: VerificationConfig) -> list[Turn]:
    generator = np.random.default_rng([config.seed, 1])
    chosen = []
    for name in sorted(set(config.speakers)):
        own = [t for t in corpus.turns() if t.speaker == name and t.duration >= config.shortest]
        chosen += [own[i] for i in generator.permutation(len(own))[: config.clips_per_speaker]]
    return chosen


def _rows(
    embeddings: dict[str, list[np.ndarray]], turns: Sequence[Turn], config: VerificationConfig
) -> tuple[list[tuple[str, ...]], Trials]:
    """A row of each embedding and, of two, one of their difference on the same resamples."""
    trials = draw_trials([turn.speaker for turn in turns], trials=config.trials, seed=config.seed)
    names = sorted({turn.conversation for turn in turns})
    places = np.array([names.index(turn.conversation) for turn in turns])
    first, second = places[trials.left], places[trials.right]
    counts = (str(int(trials.same.sum())), str(int((~trials.same).sum())))

    def judged(error: Callable[[np.ndarray], float]) -> str:
        def statistic(picked: list[int]) -> float | None:
            drawn = np.bincount(picked, minlength=len(names))
            # A pair across conversations is there as often as both are drawn together, one inside a
            # conversation as often as that one (the bootstrap of crossed factors of Owen 2007).
            weight = trials.weight * drawn[first] * np.where(first == second, 1, drawn[second])
            usable = weight[trials.same].sum() > 0 and weight[~trials.same].sum() > 0
            return error(weight) if usable else None

        seed = seed_for(config.seed, "verification")
        draws = bootstrap_repeats(range(len(names)), statistic, repeats=config.repeats, seed=seed)
        return with_interval(error(trials.weight), interval(draws) if len(names) > 1 else None)

    def error_of(vectors: list[np.ndarray]) -> Callable[[np.ndarray], float]:
        unit = np.array([vector / max(np.linalg.norm(vector), 1e-12) for vector in vectors])
        scores = (unit[trials.left] * unit[trials.right]).sum(axis=1)
        return lambda weight: equal_error_rate(scores, trials.same, weight)

    errors = {name: error_of(vectors) for name, vectors in embeddings.items()}
    rows: list[tuple[str, ...]] = [(name, judged(error), *counts) for name, error in errors.items()]
    if len(errors) == 2:
        own, other = errors.values()
        rows.append(("difference", judged(lambda weight: own(weight) - other(weight)), *counts))
    return rows, trials
