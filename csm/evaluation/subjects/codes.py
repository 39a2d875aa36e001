"""Evaluation of codes: what can be read from those of a tokenizer, whole or its semantic half alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from csm.data.manifest import read_corpus
from csm.data.recogniser_models import tiny_model
from csm.evaluation.core.report import Missing, Report, refuse_other_report, save_report
from csm.evaluation.core.runner import Results, RunnerOptions
from csm.evaluation.metrics.coded_clips import UNQUANTIZED, ProbeConfig
from csm.evaluation.metrics.probe_clips import Tokenizer
from csm.evaluation.metrics.probes import what_the_codes_carry
from csm.evaluation.metrics.verification import VerificationConfig
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.semantic.semantic_heads import SemanticHeads
from csm.tokenizer.semantic.semantic_tokenizer import SemanticTokenizer

KIND = "codes"


@dataclass(frozen=True, kw_only=True)
class CodesOptions:
    """How codes are evaluated.

    Attributes:
        tokenizer: Folder of a tokenizer, or of a semantic tokenizer.
        corpus: Folder of the corpus; probes are trained on its train split.
        output: Folder of the report.
        speakers: Held-out speakers of the verification; empty for those that the corpus names.
        probes: Sizes of the probes.
        recogniser: Folder of the recogniser whose unquantized features are the ceiling; None for the
            packaged one.
        runner: Seed and bootstrap.
    """

    tokenizer: Path = Path()
    corpus: Path = Path()
    output: Path = Path()
    speakers: tuple[str, ...] = ()
    probes: ProbeConfig = field(default_factory=ProbeConfig)
    recogniser: Path | None = None
    runner: RunnerOptions = field(default_factory=RunnerOptions)


def evaluate_codes(options: CodesOptions) -> Report:
    """Evaluates the codes of a folder's tokenizer and writes report.json into the output folder.

    Raises:
        ValueError: A folder cannot be read, or the output holds another report.
    """
    refuse_other_report(options.output, KIND)
    corpus, tokenizer = read_corpus(options.corpus).held(), read_any_tokenizer(options.tokenizer)
    results, recogniser = Results(), options.recogniser
    if recogniser is None:
        try:
            recogniser = tiny_model("words by the recogniser's decoder")
        except ValueError as error:
            results.missing.append(Missing(UNQUANTIZED, str(error)))
    tables = what_the_codes_carry(
        tokenizer,
        corpus,
        probes=options.probes,
        verification=VerificationConfig(speakers=options.speakers),
        recogniser=recogniser,
        heads=SemanticHeads.read(options.tokenizer),
    )
    folder = options.tokenizer.resolve()
    # The tokenizers of runs are all called "tokenizer", so the folder above is part of the name.
    name = f"{folder.parent.name}/{folder.name}"
    report = results.report(
        KIND, name, corpus.info.get("name"), options.runner, conditions=[], tables=tuple(tables)
    )
    save_report(options.output, report)
    return report


def read_any_tokenizer(folder: Path) -> Tokenizer:
    """Reads a tokenizer or a semantic tokenizer, in eval mode.

    Raises:
        ValueError: The folder holds neither.
    """
    try:
        return ConversationalRVQ.from_pretrained(folder)
    except ValueError:
        return SemanticTokenizer.from_pretrained(folder)
