"""How much of speech each number of codebooks keeps: a tokenizer beside classical codecs, in one run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from csm.data.manifest import Corpus
from csm.evaluation import codec_judges
from csm.evaluation.classical_codecs import ANCHORS
from csm.evaluation.codec import codebook_summary
from csm.evaluation.codec_versions import Version, by_anchor, by_codebooks, held_out_clips, recordings
from csm.evaluation.judge import JudgeUnavailable
from csm.evaluation.material import hardware
from csm.evaluation.suite import SCHEMA_VERSION, software
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.usage import codebook_statistics

KIND = "tokenizer"  # of a report of this sort; a run's report has none


class ExtraTable(NamedTuple):
    """A further table of the page, under the heading "What the codes carry".

    Attributes:
        title: What the table shows.
        header: One name a column.
        rows: Finished cells, as many a row as `header` has.
        note: How it was measured, and what it does not show.
    """

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str


@dataclass(frozen=True, kw_only=True)
class LadderOptions:
    """How a tokenizer is judged.

    Attributes:
        codebooks: Numbers of first codebooks to decode.
        clips: Most clips that are judged.
        conditioned: Hand the decoder each clip's own speaker and emotion embedding.
        asr: faster-whisper model name or folder; None for the packaged tiny.en.
        seed: Of the draw of clips and of the bootstrap.
        repeats: Bootstrap repeats.
        workers: Judges running at the same time, one thread each; results do not depend on it.
        players: Most clips that can be heard on the page.
    """

    codebooks: tuple[int, ...] = (4, 10, 16, 32)
    clips: int = 120
    conditioned: bool = False
    asr: str | None = None
    seed: int = 0
    repeats: int = 1000
    workers: int = 2
    players: int = 8

    def __post_init__(self) -> None:
        for name in ("clips", "repeats", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not self.codebooks or len(set(self.codebooks)) < len(self.codebooks) or min(self.codebooks) < 1:
            raise ValueError(
                f"codebooks is {self.codebooks}; expected different numbers from 1, as in 4,10,16,32"
            )


class Judged(NamedTuple):
    """What an evaluation leaves: the report, and the versions with their audio for the page."""

    report: dict[str, Any]
    versions: list[Version]


def judge_tokenizer(
    tokenizer: ConversationalRVQ,
    corpus: Corpus,
    options: LadderOptions | None = None,
    *,
    name: str = "tokenizer",
    extra: Sequence[ExtraTable] = (),
    say: Callable[[str], None] = lambda message: None,
) -> Judged:
    """Judges the recordings, each number of codebooks and the classical codecs by the same judges.

    Args:
        tokenizer: In eval mode, on the CPU.
        corpus: Where the held-out clips are taken from.
        options: See :class:`LadderOptions`.
        name: Of the tokenizer, for the report.
        extra: Further tables for the page.
        say: Told one short line as each step ends.

    Returns:
        The report and the versions. The same inputs, options and machine give the same report.

    Raises:
        ValueError: The tokenizer has fewer codebooks than asked for, no clip can be had, or an extra table
            has a row of another width than its header.
    """
    options = options or LadderOptions()
    _check(tokenizer, options, extra)
    turns, origin = held_out_clips(corpus, options.clips, seed=options.seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums of several threads are not added in a fixed order
    try:
        original = recordings(corpus, turns)
        decoded, codes = by_codebooks(
            tokenizer, corpus, turns, options.codebooks, original, conditioned=options.conditioned
        )
        say(f"{len(turns)} clips resynthesised")
        versions = [original, *decoded, *(by_anchor(anchor, original) for anchor in ANCHORS)]
        say("classical codecs: done")
        panel = codec_judges.Panel(
            versions=versions, asr=options.asr, repeats=options.repeats, seed=options.seed
        )
        entries, missing = _all_judges(panel, options.workers, say)
    finally:
        torch.set_num_threads(threads)
    books = codebook_statistics(codes, tokenizer.config.codebook_size)
    report = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "run": name,
        "corpus": corpus.info.get("name"),
        "clips": {
            "origin": origin,
            "count": len(turns),
            "conversations": len({turn.conversation for turn in turns}),
            "seconds": sum(clip.duration for clip in original.clips),
            "heard": [clip.id for clip in original.clips[: options.players]],
        },
        "conditioned": options.conditioned,
        "seed": options.seed,
        "bootstrap": {"repeats": options.repeats, "resampled": "conversations", "level": 0.95},
        "conditions": [version.name for version in versions],
        "versions": [_described(version) for version in versions],
        "hardware": hardware(),
        "software": software(),
        "metrics": entries,
        "missing": missing,
        "details": {
            "codebooks": {
                **books,
                "semantic": tokenizer.config.semantic_codebooks,
                "frames": codes.shape[-1],
                "summary": codebook_summary(books, tokenizer.config.frame_rate),
            }
        },
        "extra_tables": [table._asdict() for table in extra],
    }
    return Judged(report, versions)


def refuse_other_report(folder: Path) -> None:
    """The report of a run must not be overwritten by that of a tokenizer.

    Raises:
        ValueError: ``report.json`` in `folder` is of another kind.
    """
    path = folder / "report.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("kind") != KIND:
        raise ValueError(f"{path} is the report of a run; name another --output for that of a tokenizer")


def _check(tokenizer: ConversationalRVQ, options: LadderOptions, extra: Sequence[ExtraTable]) -> None:
    known = tokenizer.config.n_codebooks
    if max(options.codebooks) > known:
        raise ValueError(
            f"codebooks {max(options.codebooks)}: the tokenizer has {known}; name numbers from 1 to {known}"
        )
    for table in extra:
        for row in table.rows:
            if len(row) != len(table.header):
                raise ValueError(
                    f"table {table.title!r}: a row has {len(row)} cells, expected {len(table.header)} as in "
                    f"its header"
                )


def _described(version: Version) -> dict[str, Any]:
    return {
        "name": version.name,
        "title": version.title,
        "codebooks": version.codebooks,
        "kbits": version.kbits,
        "bits": version.bits,
        "delay_ms": 1000 * version.delay,
        "missing": version.missing,
    }


def _all_judges(
    panel: codec_judges.Panel, workers: int, say: Callable[[str], None]
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Entries of all judges, and what could not be had: judges that are not installed, and codecs."""

    def attempt(name: str) -> list[dict[str, Any]] | str:
        try:
            entries = codec_judges.JUDGES[name](panel)
        except JudgeUnavailable as error:
            say(f"{name}: missing")
            return str(error)
        say(f"{name}: done")
        return entries

    with ThreadPoolExecutor(max_workers=workers) as pool:
        outcomes = list(pool.map(attempt, codec_judges.JUDGES))
    entries = [entry for outcome in outcomes if not isinstance(outcome, str) for entry in outcome]
    missing = [
        {"section": version.title, "reason": f"{version.title} {version.missing}"}
        for version in panel.versions
        if version.missing
    ]
    for name, outcome in zip(codec_judges.JUDGES, outcomes, strict=True):
        if isinstance(outcome, str):
            missing.append({"section": name, "reason": outcome})
    return entries, missing
