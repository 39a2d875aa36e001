"""What the semantic codes carry beyond text and acoustics: phones, words, and what comes next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from csm.evaluation.core.metric import MetricInfo, Score, Scores
from csm.evaluation.core.report import Missing
from csm.evaluation.metrics.coded_clips import ProbeConfig, named
from csm.evaluation.metrics.phone_probe import phone_scores
from csm.evaluation.metrics.probe_clips import Coded
from csm.evaluation.metrics.text_reader import word_scores
from csm.recipes.run_config import RunConfig
from csm.research.material import Material
from csm.research.next_turn import NEXT_TURN, next_turn_scores, pairs_of
from csm.research.question import Claim, Measured
from csm.system.log import log

SEMANTIC, ACOUSTIC = "semantic codes", "acoustic codes"
TEXT, WITH_SEMANTIC = "text of the turn before", "text and semantic codes"
WITH_ACOUSTIC, PERMUTED = "text and acoustic codes", "text and semantic codes of another turn"
PHONES, WORDS = "phones_read", "words_read"
#: A reader of words learns from half of the clips and passes of `csm evaluate --codes`: a seed then takes 20
#: minutes on one core instead of an hour.
PROBES = ProbeConfig(reader_clips=3_000, reader_epochs=12)


def reading_info(name: str) -> MetricInfo:
    """Describes what a probe reads from codes."""
    phones = name == PHONES
    return MetricInfo(
        name=name,
        title="Phones read from the codes" if phones else "Word errors read from the codes",
        area="reading",
        unit="share of steps of 20 ms" if phones else "errors per word",
        direction="higher" if phones else "lower",
        evaluator="csm.evaluation.metrics." + ("phone_probe" if phones else "text_reader"),
        definition="two-layer probe on the code vectors of three frames, labels by forced alignment"
        if phones
        else "a small convolutional CTC network on the code vectors, by argmax",
    )


class VoiceSemantics:
    """Trains probes on codes, and no conversational model.

    Args:
        probes: Sizes of the probes of phones and words; None for `PROBES`.
    """

    name = "voice_semantics"
    title = "What do the semantic codes carry beyond text and acoustics?"
    summary = (
        "Probes are trained on the train split and tested on other conversations. Two of them read phones "
        "and words from the semantic codes, and from the acoustic codes. The others predict the letters of "
        "the next turn from the text of the turn before it: alone, with the semantic or acoustic codes of "
        "its voice, and, as a control of the same size, with the semantic codes of another turn. What the "
        "voice says beyond its text is the difference between its own codes and those of another turn."
    )
    claims: tuple[Claim, ...] = (
        Claim("More phones can be read from the semantic than from the acoustic codes.",
              PHONES, SEMANTIC, ACOUSTIC, 0.02),
        Claim("Words are read with fewer errors from the semantic than from the acoustic codes.",
              WORDS, SEMANTIC, ACOUSTIC, 0.05),
        Claim("The voice of a turn says more of the next turn's text than its text alone.",
              NEXT_TURN, WITH_SEMANTIC, TEXT, 0.005),
        Claim("It is the turn's own voice that does.", NEXT_TURN, WITH_SEMANTIC, PERMUTED, 0.005),
        Claim("The semantic codes say more of the next turn's text than the acoustic codes.",
              NEXT_TURN, WITH_SEMANTIC, WITH_ACOUSTIC, 0.005),
    )  # fmt: skip

    def __init__(self, probes: ProbeConfig | None = None) -> None:
        self.probes = probes or PROBES

    def arms(self, base: RunConfig) -> dict[str, RunConfig]:
        """Returns no recipe: the question is about codes."""
        return {}

    def measure(self, material: Material, models: Mapping[str, Path]) -> Iterator[Measured | Missing]:
        """Yields what probes read of codes and predict from them."""
        yield from self._next_turn(material)
        if not material.lines:
            return
        try:
            yield from self._reading(material)
        except ValueError as error:
            yield Missing("reading", str(error))

    def _next_turn(self, material: Material) -> Iterator[Measured | Missing]:
        train = pairs_of(material.table_of("train"))
        tested = pairs_of(material.table, material.conversations)
        if not train or not tested:
            yield Missing(NEXT_TURN, "no two turns in a row in the train split, or in the held-out one")
            return
        model = material.recipe.model
        semantic = range(model.semantic_codebooks)
        acoustic = range(model.semantic_codebooks, model.num_codebooks)
        for arm, books, permuted in (
            (TEXT, None, False),
            (WITH_SEMANTIC, semantic, False),
            (WITH_ACOUSTIC, acoustic, False),
            (PERMUTED, semantic, True),
        ):
            log.info("next turn from %s, seed %d", arm, material.seed)
            scores = next_turn_scores(
                train,
                tested,
                books,
                vocab=model.codebook_size,
                steps=material.recipe.training.steps,
                seed=material.seed,
                permuted=permuted,
            )
            yield Measured(arm, material.seed, scores)

    def _reading(self, material: Material) -> Iterator[Measured]:
        config = replace(self.probes, seed=material.seed)
        coded = Coded(material.tokenizer(), material.corpus, config)
        first = coded.vectors.semantic.num_codebooks
        streams = {SEMANTIC: named(0, first - 1)}
        if coded.vectors.acoustic is not None:
            streams[ACOUSTIC] = named(first, first + coded.vectors.acoustic.num_codebooks - 1)
        train, tested = coded.clips(coded.train), coded.clips(coded.tested)
        for arm, stream in streams.items():
            rows = coded.rows(stream)
            phones = phone_scores(train, tested, rows, coded.labels, config, layers=2)
            yield _measured(arm, material, PHONES, phones)
            say = partial(log.info, "%s: %s", arm)
            words = word_scores(coded.clips(coded.read), tested, rows, config, say)
            yield _measured(arm, material, WORDS, words)


def _measured(arm: str, material: Material, name: str, scores: list[Score]) -> Measured:
    return Measured(arm, material.seed, Scores(info=reading_info(name), scores=scores))
