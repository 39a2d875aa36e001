"""Speaker verification: equal error rates of two speaker embeddings on the same pairs of clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn
from csm.evaluation.core.clips import at_rate
from csm.evaluation.core.draws import held_out_speakers
from csm.evaluation.core.evaluators import EvaluatorUnavailable
from csm.evaluation.core.report import Cell, Table
from csm.evaluation.core.statistics import bootstrap_repeats, interval, seed_for
from csm.evaluation.metrics.speaker import SHORTEST_RELIABLE, SpeakerEncoder
from csm.evaluation.metrics.trials import Trials, draw_trials, equal_error_rate
from csm.system.log import progress_of
from csm.system.threads import one_thread
from csm.tokenizer.conversational_rvq import ConversationalRVQ

TITLE = "Speaker verification (held-out speakers)"
HEADER = ("speaker embedding", "equal error rate", "pairs of one voice", "of two")
OWN = "the tokenizer's own"


@dataclass(frozen=True, kw_only=True)
class VerificationConfig:
    """Which pairs of clips are compared.

    Attributes:
        speakers: Speakers that neither embedding was trained on, whose clips of all splits count; empty for
            those that the corpus names as held out.
        shortest: Seconds; embeddings of shorter clips are weak.
        clips_per_speaker: Most clips of a speaker, drawn by the seed.
        trials: Most pairs, half of one voice and half of two.
        repeats: Repeats of the bootstrap. seed: Seed of every draw.
    """

    speakers: tuple[str, ...] = ()
    shortest: float = SHORTEST_RELIABLE
    clips_per_speaker: int = 30
    trials: int = 3600
    repeats: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if len(set(self.speakers)) == 1 or self.clips_per_speaker < 2:
            raise ValueError(
                f"speakers={self.speakers}, clips_per_speaker={self.clips_per_speaker}: expected two "
                f"different speakers and two clips of each at least"
            )
        if self.trials < 2 or self.repeats < 1:
            raise ValueError(f"trials={self.trials}, repeats={self.repeats}: expected at least 2 and 1")


def speaker_verification(
    tokenizer: ConversationalRVQ,
    corpus: Corpus,
    config: VerificationConfig | None = None,
    *,
    encoder: SpeakerEncoder | None = None,
) -> Table:
    """Compares the tokenizer's speaker embedding with Resemblyzer's on the same pairs of clips.

    Args:
        tokenizer: Tokenizer in eval mode. corpus: Corpus with the recordings.
        config: Which pairs.
        encoder: The other embedding; None for Resemblyzer. Where it is not installed, its row says so.

    Raises:
        ValueError: The corpus has fewer than two of the speakers with two clips each, or no speakers are
            named.
    """
    config = config or VerificationConfig()
    speakers = config.speakers or held_out_speakers(corpus)
    if not speakers:
        raise ValueError(
            f"{corpus.root} names no held_out_speakers in its corpus.json: name speakers that the training "
            f"left out with --speakers"
        )
    config = replace(config, speakers=speakers)
    turns = _draw_turns(corpus, config)
    draw_trials([turn.speaker for turn in turns])  # Refused before anything is computed.
    missing = ""
    try:
        encoder = encoder or SpeakerEncoder()
    except EvaluatorUnavailable as error:
        missing = f" Not measured: {error}."
    kept, own, other, failures = [], [], [], []
    with one_thread(), torch.no_grad():
        device = next(tokenizer.parameters()).device
        for turn in progress_of(turns, "verification", len(turns), unit="clip"):
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
        rows.append((Cell("Resemblyzer"), Cell("not measured"), Cell("-"), Cell("-")))
    voices = ", ".join(sorted({turn.speaker for turn in kept}))
    note = (
        f"Cosine of two clips' embeddings; {len(kept)} clips of {config.shortest} s or more of {voices}, "
        f"{len(failures)} left out{': ' + ', '.join(failures) if failures else ''}. {len(trials.same)} pairs "
        f"drawn with seed {config.seed}, the same in every row; each voice and each pair of voices counts "
        f"alike, guessing has 0.5. Intervals resample conversations, not voices. The recipe of the training "
        f"says whether it left these speakers out.{missing}"
    )
    return Table(TITLE, HEADER, rows, note)


def empty_table(reason: str) -> Table:
    """Makes the table of a verification that could not be measured."""
    return Table(TITLE, HEADER, [], f"Not measured: {reason}.")


def with_interval(value: float, ci95: list[float] | None) -> Cell:
    """Makes a cell of a value and its 95 % interval, where there is one."""
    return Cell(f"{value:.3f}", f"{ci95[0]:.3f} to {ci95[1]:.3f}" if ci95 else "")


def _draw_turns(corpus: Corpus, config: VerificationConfig) -> list[Turn]:
    generator = np.random.default_rng([config.seed, 1])
    chosen = []
    for name in sorted(set(config.speakers)):
        own = [t for t in corpus.turns() if t.speaker == name and t.duration >= config.shortest]
        chosen += [own[i] for i in generator.permutation(len(own))[: config.clips_per_speaker]]
    return chosen


def _rows(
    embeddings: dict[str, list[np.ndarray]], turns: Sequence[Turn], config: VerificationConfig
) -> tuple[list[tuple[Cell, ...]], Trials]:
    """Makes a row for each embedding and, for two, one of their difference on the same resamples."""
    trials = draw_trials([turn.speaker for turn in turns], trials=config.trials, seed=config.seed)
    names = sorted({turn.conversation for turn in turns})
    places = np.array([names.index(turn.conversation) for turn in turns])
    first, second = places[trials.left], places[trials.right]
    counts = Cell(str(int(trials.same.sum()))), Cell(str(int((~trials.same).sum())))

    def measured(error: Callable[[np.ndarray], float]) -> Cell:
        def statistic(picked: list[int]) -> float | None:
            drawn = np.bincount(picked, minlength=len(names))
            # A pair across conversations counts as often as both are drawn together, one inside a
            # conversation as often as that one is (the bootstrap of crossed factors of Owen 2007).
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
    rows: list[tuple[Cell, ...]] = [(Cell(name), measured(error), *counts) for name, error in errors.items()]
    if len(errors) == 2:
        own, other = errors.values()
        rows.append((Cell("difference"), measured(lambda weight: own(weight) - other(weight)), *counts))
    return rows, trials
