"""Judges a voice: speaks held-out lines in all versions, lets every judge hear them, and reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from csm.data.manifest import Corpus
from csm.evaluation import voice_judges
from csm.evaluation.judge import JudgeUnavailable
from csm.evaluation.material import hardware
from csm.evaluation.suite import SCHEMA_VERSION, software
from csm.evaluation.voice_ablations import NOTE
from csm.evaluation.voice_changes import changes
from csm.evaluation.voice_folder import SpokenLines, origin_of
from csm.evaluation.voice_judges import Opinions
from csm.evaluation.voice_lines import CONVERSATION, ChosenLines, choose_lines
from csm.evaluation.voice_material import VoiceMaterial, clip_sets
from csm.evaluation.voice_measures import lengths, waits
from csm.evaluation.voice_speech import IN_CONTEXT, SEMANTIC, Speaker, speak_all, versions_of
from csm.generation.talker import Talker
from csm.system.threads import one_thread

KIND = "voice"  # of a report of this sort; a run's report has none
SPEECH_FOLDER = "speech"


@dataclass(frozen=True, kw_only=True)
class VoiceOptions:
    """How a voice is judged.

    Attributes:
        lines: Most lines of a group.
        ablations: Whether the main voice's lines are also spoken in context, and with parts switched off.
        int8: Whether they are also spoken with rounded weights.
        asr: faster-whisper model name or folder; None for the packaged tiny.en.
        seed: Of the draws and of the bootstrap.
        repeats: Bootstrap repeats.
        workers: Judges running at the same time, one thread each; results do not depend on it.
        players: Most lines of a group that can be heard on the page.
    """

    lines: int = 60
    ablations: bool = True
    int8: bool = False
    asr: str | None = None
    seed: int = 0
    repeats: int = 1000
    workers: int = 2
    players: int = 12

    def __post_init__(self) -> None:
        for name in ("lines", "repeats", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("seed", "players"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")


class JudgedVoice(NamedTuple):
    """What an evaluation leaves: the report, and the clips for the page."""

    report: dict[str, Any]
    material: VoiceMaterial


def judge_voice(
    talker: Talker,
    corpus: Corpus,
    folder: Path,
    options: VoiceOptions | None = None,
    *,
    name: str = "voice",
    say: Callable[[str], None] = lambda message: None,
) -> JudgedVoice:
    """Speaks what is not in the folder yet, judges everything and reports.

    Args:
        talker: On the CPU.
        corpus: Whose held-out lines are spoken.
        folder: Generated lines are kept in its folder "speech".
        options: See :class:`VoiceOptions`.
        name: Of the voice, for the report.
        say: Told one short line as each step ends.

    Returns:
        The report and the clips. Of the same speech, options and machine the report is the same.

    Raises:
        ValueError: The corpus has no line of the main voice, or the folder holds speech of other weights or
            settings.
    """
    options = options or VoiceOptions()
    chosen = choose_lines(corpus, list(talker.voices), options.lines)
    with one_thread():  # sums of several threads are not added in a fixed order
        kept = SpokenLines(folder / SPEECH_FOLDER, origin_of(talker, corpus, options.lines, options.seed))
        versions, absent = _speak(talker, corpus, chosen, kept, options)
        say("all lines are spoken")
        groups = len(chosen.groups) + bool(chosen.conversation)
        with tqdm(total=groups, desc="resynthesise", ascii=True, unit="group") as bar:
            sets = clip_sets(talker, corpus, chosen, kept, versions, bar.update)
        material = VoiceMaterial(
            sets=sets,
            corpus=corpus,
            known=tuple(talker.voices),
            prompts=chosen.prompts,
            asr=options.asr,
            seed=options.seed,
            repeats=options.repeats,
        )
        say("recordings resynthesised")
        opinions, missing = _all_judges(material, options.workers, say)
    missing += [{"section": reason.split(":")[0], "reason": reason} for reason in (*chosen.absent, *absent)]
    entries = [entry for one in opinions for entry in one.entries]
    entries += lengths(material) + waits(material)
    report = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "run": name,
        "corpus": corpus.info.get("name"),
        "seed": options.seed,
        "bootstrap": {"repeats": options.repeats, "resampled": "conversations", "level": 0.95},
        "conditions": list(dict.fromkeys(one.version for one in material.sets)),
        "hardware": hardware(),
        "software": software(),
        "metrics": entries + changes(entries, repeats=options.repeats, seed=options.seed),
        "missing": missing,
        "details": {key: value for one in opinions for key, value in one.details.items()}
        | {"voice": _described(talker, chosen, material), "ablations": NOTE if options.ablations else ""},
    }
    return JudgedVoice(report, material)


def refuse_other_report(folder: Path) -> None:
    """A report of anything else must not be overwritten by that of a voice.

    Raises:
        ValueError: ``report.json`` in `folder` is of another kind.
    """
    path = folder / "report.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("kind") != KIND:
        raise ValueError(f"{path} is the report of something else; name another --output for that of a voice")


def _speak(
    talker: Talker, corpus: Corpus, chosen: ChosenLines, kept: SpokenLines, options: VoiceOptions
) -> tuple[list[str], list[str]]:
    """Speaks; returns the versions of the main voice's lines beside "generated", and what cannot be had."""
    others, absent = versions_of(talker, ablations=options.ablations, int8=options.int8)
    lines = sum(map(len, chosen.groups.values())) + len(others) * len(chosen.main) + len(chosen.conversation)
    with tqdm(total=lines, desc="speak", ascii=True, unit="line") as bar:
        speak_all(Speaker.of(talker, corpus, options.seed), chosen, others, kept, bar.update)
    versions = [*others]
    if options.ablations:
        if talker.model.config.semantic_codebooks < talker.model.config.num_codebooks:
            versions.append(SEMANTIC)
        else:
            absent.append("semantic codebooks: the model has no others")
    return versions, absent


def _all_judges(
    material: VoiceMaterial, workers: int, say: Callable[[str], None]
) -> tuple[list[Opinions], list[dict[str, str]]]:
    """What the judges found, and what could not be had."""

    def attempt(name: str) -> Opinions | str:
        try:
            opinions = voice_judges.JUDGES[name](material, bar.update)
        except JudgeUnavailable as error:
            say(f"{name}: missing")
            return str(error)
        say(f"{name}: done")
        return opinions

    total = len(voice_judges.JUDGES) * len(material.sets)
    with (
        tqdm(total=total, desc="judge", ascii=True, unit="set") as bar,
        ThreadPoolExecutor(max_workers=workers) as pool,
    ):
        outcomes = dict(zip(voice_judges.JUDGES, pool.map(attempt, voice_judges.JUDGES), strict=True))
    missing = []
    for name, outcome in outcomes.items():
        reasons = [outcome] if isinstance(outcome, str) else outcome.missing
        missing += [{"section": name, "reason": reason} for reason in reasons]
    return [outcome for outcome in outcomes.values() if not isinstance(outcome, str)], missing


def _described(talker: Talker, chosen: ChosenLines, material: VoiceMaterial) -> dict[str, Any]:
    config = talker.model.config
    context = next((one.facts for one in material.spoken if one.version == IN_CONTEXT), ())
    return {
        "main": material.known[0],
        "voices": len(material.known),
        "codebooks": config.num_codebooks,
        "semantic_codebooks": config.semantic_codebooks,
        "parameters": sum(parameter.numel() for parameter in talker.model.parameters()),
        "max_context": config.max_context,
        "lines": {group: len(lines) for group, lines in chosen.groups.items()}
        | {CONVERSATION: len(chosen.conversation)},
        "prompts": {
            name: {"turns": len(turns), "seconds": round(sum(turn.duration for turn in turns), 2)}
            for name, turns in chosen.prompts.items()
        },
        "lines_with_memory": sum(facts.get("remembered", 0) > 0 for facts in context),
        "lines_in_context": len(context),
    }
