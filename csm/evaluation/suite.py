"""The whole evaluation of a run: every judge over recordings, resynthesis and generated speech.

Each section is a function of the material that returns report entries; a section whose judge is not
installed is listed as missing, with the extra that brings it, and the others go on.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from csm.evaluation import naturalness, sections
from csm.evaluation.dialogue_section import turns
from csm.evaluation.emotion_section import emotion
from csm.evaluation.findings import Findings
from csm.evaluation.judge import JudgeUnavailable, package_version
from csm.evaluation.material import Material, SuiteOptions, load_material
from csm.evaluation.speech_folder import CONDITIONS
from csm.system.files import write_atomically

SCHEMA_VERSION = 1
PACKAGES = (
    "torch numpy faster-whisper jiwer Resemblyzer speechmos distillmos pesq pystoi silero-vad "
    "praat-parselmouth"
).split()


Section = Callable[[Material], Findings]
# Longest first, so that two workers finish together.
SECTIONS: dict[str, Section] = {
    "intelligibility": sections.intelligibility,
    "DNSMOS": lambda material: sections.opinions(material, "dnsmos", naturalness.Dnsmos),
    "distillMOS": lambda material: sections.opinions(material, "distillmos", naturalness.DistillMos),
    "speaker": sections.speaker,
    "emotion": emotion,
    "prosody": sections.prosody,
    "PESQ-WB": lambda material: sections.codec(material, "pesq_wb"),
    "STOI": lambda material: sections.codec(material, "stoi"),
    "SI-SDR": lambda material: sections.codec(material, "si_sdr"),
    "log-mel distance": lambda material: sections.codec(material, "log_mel_l1"),
    "turn taking": turns,
    "latency": sections.waiting,
    "codebooks": sections.codebooks,
}


def evaluate(
    run: Path,
    corpus: Path | None = None,
    options: SuiteOptions | None = None,
    *,
    say: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Judges everything a run has said and writes ``report.json`` into the run's folder.

    Args:
        run: folder with ``speech/speech.jsonl`` and, where they exist, ``metrics.jsonl`` and
            ``codes/codebooks.json``.
        corpus: corpus folder with the reference recordings; without it what needs them is missing.
        options: see :class:`SuiteOptions`.
        say: told one short line as each section ends.

    Returns:
        The report, as written. The same inputs, options and machine give the same bytes.

    Raises:
        ValueError: the run has no speech folder, or a folder cannot be read.
    """
    options = options or SuiteOptions()
    material = load_material(run, corpus, options)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums of several threads are not added in a fixed order
    try:
        with ThreadPoolExecutor(max_workers=options.workers) as pool:
            work = [pool.submit(_attempt, name, section, material, say) for name, section in SECTIONS.items()]
            outcomes = [job.result() for job in work]
    finally:
        torch.set_num_threads(threads)
    findings = [finding for finding, _ in outcomes if finding is not None]
    report = {
        "schema_version": SCHEMA_VERSION,
        "run": run.resolve().name,
        "corpus": None if material.corpus is None else material.corpus.info.get("name"),
        "seed": options.seed,
        "bootstrap": {"repeats": options.repeats, "resampled": "conversations", "level": 0.95},
        "conditions": list(CONDITIONS),
        "hardware": material.hardware,
        "software": software(),
        "metrics": [entry for finding in findings for entry in finding.entries],
        "missing": [reason for _, reasons in outcomes for reason in reasons],
        "details": {key: value for finding in findings for key, value in finding.details.items()},
    }
    save_report(run, report)
    return report


def software() -> dict[str, str]:
    """Versions of Python and of every package that judges."""
    return {"python": platform.python_version(), **{name: package_version(name) for name in PACKAGES}}


def save_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Writes ``report.json`` into the folder, whole or not at all."""
    text = json.dumps(report, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_atomically(folder / "report.json", text + "\n")


def _attempt(
    name: str, section: Section, material: Material, say: Callable[[str], None]
) -> tuple[Findings | None, list[dict[str, str]]]:
    try:
        finding = section(material)
    except JudgeUnavailable as error:
        say(f"{name}: missing")
        return None, [{"section": name, "reason": str(error)}]
    say(f"{name}: done")
    return finding, [{"section": name, "reason": reason} for reason in finding.missing]
