"""The answer to a question: trained, measured and decided, each part once, and kept as results.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from csm import config as config_files
from csm.data.code_shards import codes_digests
from csm.evaluation.core.evaluators import hardware, software
from csm.evaluation.core.metric import MetricInfo, Score, Scores
from csm.evaluation.core.report import Entry, Missing
from csm.evaluation.core.statistics import entry_of
from csm.network.model_config import CSMConfig
from csm.recipes.run_config import RunConfig
from csm.recipes.run_files import CONFIG, WEIGHTS
from csm.research.equal_sizes import parameters_of
from csm.research.material import Material
from csm.research.question import Measured, Question
from csm.research.trainings import Training, planned, train_all
from csm.research.verdict import RULE, Decision, Verdict, decide, overall
from csm.system.digests import sha256_of
from csm.system.files import write_atomically
from csm.system.log import log

RESULTS_FILE = "results.json"


@dataclass(frozen=True, kw_only=True)
class ResearchOptions:
    """How a question is answered.

    Attributes:
        codes: Folder of `csm encode`, of the base recipe's corpus.
        output: Folder of the trainings, of what was measured, of results.json and of report.html.
        seeds: Seeds of every training.
        lines: Most lines that are spoken, heard or recognised; 0 leaves these measures out.
        asr: Recogniser of what is spoken; None is tiny.en.
        device: Of the trainings.
    """

    codes: Path
    output: Path
    seeds: int = 3
    lines: int = 60
    asr: str | None = None
    device: torch.device = torch.device("cpu")


class Trained(NamedTuple):
    """An arm: its parameters and steps, 0 for an arm that trains no conversational model."""

    arm: str
    parameters: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of a question.

    Attributes:
        question: The question. base: Recipe whose variants were trained. seeds: Number of seeds.
        decision: Of all claims together. verdicts: On each claim.
        entries: Each metric of each arm (`group`), over all seeds.
        trained: The arms. missing: What could not be measured.
    """

    question: Question
    base: RunConfig
    seeds: int
    decision: Decision
    verdicts: Sequence[Verdict]
    entries: Sequence[Entry]
    trained: Sequence[Trained]
    missing: Sequence[Missing]


def answer(question: Question, base: RunConfig, options: ResearchOptions) -> Answer:
    """Trains what is not trained yet, measures what is not measured yet, decides, and writes results.json.

    Raises:
        ValueError: The base lacks what the question varies, codes or corpus are missing, or the output
            belongs to another question or to other trainings.
    """
    require_same_question(question, options.output)
    trainings = planned(question, base, options.seeds, options.output)
    folders = train_all(trainings, options.codes, options.device)
    measured: list[Measured] = []
    missing: list[Missing] = []
    for seed in range(options.seeds):
        material = Material(recipe=base, codes=options.codes, seed=seed, lines=options.lines, asr=options.asr)
        for one in measured_once(question, material, folders.get(seed, {}), options.output):
            if isinstance(one, Missing):
                missing.append(one)
            else:
                measured.append(one)
    verdicts = decide(question.claims, measured)
    found = Answer(
        question=question,
        base=base,
        seeds=options.seeds,
        decision=overall(verdicts),
        verdicts=verdicts,
        entries=summarised(measured),
        trained=arms_of(trainings),
        missing=list(dict.fromkeys(missing)),
    )
    write_atomically(options.output / RESULTS_FILE, json.dumps(as_json(found), indent=1) + "\n")
    return found


def require_same_question(question: Question, output: Path) -> None:
    """Refuses a folder with the results of another question.

    Raises:
        ValueError: It is one.
    """
    path = output / RESULTS_FILE
    found = json.loads(path.read_text(encoding="utf-8"))["question"] if path.is_file() else question.name
    if found != question.name:
        raise ValueError(f"{output} holds the results of {found!r}: choose another --output")


def measured_once(
    question: Question, material: Material, models: Mapping[str, Path], output: Path
) -> Iterator[Measured | Missing]:
    """Yields what is measured at one seed; what was measured of the same models and codes is read again."""
    path = output / "measured" / f"seed{material.seed}.json"
    key = {
        "models": {
            arm: [sha256_of(folder / name) for name in (CONFIG, WEIGHTS)] for arm, folder in models.items()
        },
        "codes": codes_digests(material.codes),
        "base": config_files.to_dict(material.recipe),
        "lines": material.lines,
        "asr": material.asr,
    }
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["key"] == json.loads(json.dumps(key)):
            yield from (_read(row) for row in kept["rows"])
            return
    log.info("measuring %s, seed %d", question.name, material.seed)
    found = list(question.measure(material, models))
    rows = [_row(one) for one in found]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({"key": key, "rows": rows}) + "\n")
    yield from found


def _row(one: Measured | Missing) -> dict[str, Any]:
    if isinstance(one, Missing):
        return {"missing": one._asdict()}
    scores = [asdict(score) for score in one.scores.scores]
    return {"arm": one.arm, "seed": one.seed, "info": asdict(one.scores.info), "scores": scores}


def _read(row: Mapping[str, Any]) -> Measured | Missing:
    if "missing" in row:
        return Missing(**row["missing"])
    scores = Scores(info=MetricInfo(**row["info"]), scores=[Score(**score) for score in row["scores"]])
    return Measured(row["arm"], row["seed"], scores)


def summarised(measured: Sequence[Measured]) -> list[Entry]:
    """Returns each metric of each arm over all seeds, in the order of the arms."""
    pooled: dict[tuple[str, str], Scores] = {}
    for arm, _, scores in measured:
        before = pooled.get((arm, scores.info.name))
        both = [*([] if before is None else before.scores), *scores.scores]
        pooled[arm, scores.info.name] = Scores(info=scores.info, scores=both)
    return [
        entry_of(scores, group=arm, condition="held-out")
        for (arm, _), scores in pooled.items()
        if scores.scores
    ]


def arms_of(trainings: Sequence[Training]) -> list[Trained]:
    """Returns the trained arms once each."""
    recipes = {training.arm: training.recipe for training in trainings}
    counted: dict[CSMConfig, int] = {}
    for recipe in recipes.values():
        counted.setdefault(recipe.model, parameters_of(recipe.model))
    return [Trained(arm, counted[recipe.model], recipe.training.steps) for arm, recipe in recipes.items()]


def as_json(found: Answer) -> dict[str, Any]:
    """Returns an answer as JSON values; scores of clips are in measured/."""
    left_out = {"values", "quantiles", "median_ci95"}
    return {
        "question": found.question.name,
        "title": found.question.title,
        "decision": found.decision,
        "rule": RULE,
        "claims": [{**verdict._asdict(), "claim": verdict.claim._asdict()} for verdict in found.verdicts],
        "figures": [
            {name: value for name, value in asdict(entry).items() if name not in left_out}
            for entry in found.entries
        ],
        "trained": [arm._asdict() for arm in found.trained],
        "seeds": found.seeds,
        "base": config_files.to_dict(found.base),
        "missing": [one._asdict() for one in found.missing],
        "hardware": hardware(),
        "software": software(),
    }
