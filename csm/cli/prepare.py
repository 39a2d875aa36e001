"""Makes a corpus folder of recorded conversations: audio, manifest, log of rejects, totals.

    csm prepare --corpus amazon_queen_excerpt --output data/amazon_queen_excerpt
    csm prepare --corpus folder --source my_recordings --output corpora/mine
    csm prepare --stats corpora/mine --codes runs/mine/codes

What is not used stands in OUTPUT/rejects.jsonl with its reason, totals in OUTPUT/corpus.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from csm.data.code_shards import read_code_shards
from csm.data.consent import parsed_consents, record_consents
from csm.data.corpora import amazon_queen
from csm.data.corpora.asterisk_prompts import prepare_asterisk_prompts
from csm.data.corpora.drascula import prepare_drascula
from csm.data.corpora.folder import prepare_folder
from csm.data.corpora.layouts.recognition import BY_NAME, PUBLIC
from csm.data.corpora.librispeech import prepare_librispeech
from csm.data.corpora.recordings import prepare_recordings
from csm.data.corpora.split_choice import SplitChoice, held_out
from csm.data.corpora.steel_sky import prepare_steel_sky
from csm.data.corpora.synthetic_dialogues.corpus import prepare_synthetic_dialogues
from csm.data.corpora.transcription.recogniser import WordRecogniser
from csm.data.corpora.transcription.transcriber import RecordingTranscriber
from csm.data.funnel import Training, funnel_lines
from csm.data.manifest import Corpus, read_corpus
from csm.data.speakers import speaker_numbers
from csm.recipes.named import recipe
from csm.text import text_codec

LONGEST_TURN = 30.0  # seconds
ROWS_PER_SECOND = 32.0  # of a turn: 12.5 frames and up to 19 phones of fast speech
PUBLIC_NAMES = tuple(layout.name for layout in PUBLIC)
DEBIAN = {
    "drascula": prepare_drascula,
    "steel_sky": prepare_steel_sky,
    "asterisk_prompts": prepare_asterisk_prompts,
}
NAMES = (
    *("amazon_queen_excerpt", "amazon_queen", *DEBIAN, "librispeech"),
    *("synthetic_dialogues", "recordings", "folder"),
    *PUBLIC_NAMES,
)
EPILOG = """corpora:
  amazon_queen_excerpt   52 minutes of acted dialogue in the package; no download, seconds
  amazon_queen           the whole of it (271 minutes) from the Debian package: --archive FILE, or apt-get
  drascula               46 minutes of acted dialogue, 12 roles, 8 bits at 11 kHz: a Debian package that is
                         downloaded to --source
  steel_sky              two hours of acted lines, 8 bits at 11 kHz, words and speakers found by machine: a
                         Debian package that is downloaded to --source; an hour on one core
  asterisk_prompts       24 minutes of telephone announcements by one voice, 16 kHz: two Debian packages,
                         downloaded to --source
  librispeech            read speech, --subset dev-clean ... train-other-500; made-up, synthetic turns
  synthetic_dialogues    --hours of conversations at 24 kHz, 70 voices: packaged texts spoken by Kokoro-82M on
                         the CPU, about 0.8 core hours each; needs espeak-ng (apt), pip and npm
  recordings             anything you have in --source: the layout is recognised, or named with --layout;
                         --transcribe finds speakers and words where there is no transcript (docs/data.md)
  ami, candor, dailytalk, expresso, fisher, switchboard
                         these corpora as they are published, from --source
  folder                 your own recordings in --source: NAME.wav (any format) with NAME.txt (what the one
                         speaker says) or NAME.json ({"turns": [{"speaker", "start", "end", "text"}, ...]});
                         two channels: one speaker each, found by voice activity where no times are given"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("--corpus", choices=NAMES, help="name of the corpus (below)")
    parser.add_argument(
        "--stats",
        metavar="FOLDER",
        help="print what became of the files and turns of a corpus, make nothing; with --codes down to the "
        "frames that --recipe trains on",
    )
    parser.add_argument(
        "--codes", type=Path, metavar="FOLDER", help="--stats: folder of the codes of the corpus"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="folder of the corpus; a finished one is kept"
    )
    parser.add_argument(
        "--archive", type=Path, metavar="FILE", help="amazon_queen: the .deb (default: apt-get downloads it)"
    )
    parser.add_argument(
        "--source",
        type=Path,
        metavar="FOLDER",
        help="folder of your recordings; drascula, steel_sky, asterisk_prompts, librispeech: folder of "
        "downloads",
    )
    parser.add_argument(
        "--layout", metavar="NAME", help=f"recordings: one of {', '.join(BY_NAME)} (default: recognised)"
    )
    for name in ("validation", "test"):
        parser.add_argument(
            f"--{name}",
            metavar="SHARE|FILE",
            help="recordings, folder: share of the conversations, or a file of their ids, one a line",
        )
    add_transcription(parser)
    parser.add_argument(
        "--subset",
        default="dev-clean",
        metavar="NAME",
        help="librispeech: name of the part (default: %(default)s)",
    )
    parser.add_argument(
        "--hours",
        type=float,
        default=12.0,
        metavar="H",
        help="synthetic_dialogues: hours of speech (default: 12)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="synthetic_dialogues: number of processes (default: one a core)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="FOLDER",
        help="synthetic_dialogues: folder of the spoken texts",
    )
    parser.add_argument(
        "--consent",
        action="append",
        default=[],
        metavar="SPEAKER=STATEMENT",
        help="speaker's consent to a voice made of these recordings; may be given several times",
    )
    parser.add_argument(
        "--make-excerpt", action="store_true", help="amazon_queen: write the packaged excerpt again"
    )


def add_transcription(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of --transcribe."""
    parser.add_argument(
        "--transcribe", action="store_true", help="recordings: find speakers and words where they are unknown"
    )
    parser.add_argument(
        "--asr",
        metavar="MODEL",
        help="--transcribe: recogniser: base (Whisper base, fetched once), or another model of faster-"
        "whisper by name or folder (default: tiny.en of the wheel)",
    )
    parser.add_argument(
        "--language", default="en", metavar="CODE", help="--transcribe: language (default: %(default)s)"
    )
    parser.add_argument(
        "--speakers",
        type=int,
        metavar="N",
        help="--transcribe: number of people on one channel (default: found)",
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="--transcribe: recipe to whose model's context turns are cut at pauses; --stats: recipe whose "
        "training frames are counted",
    )


def run(options: argparse.Namespace) -> None:
    """Prepares the corpus and prints its totals."""
    if options.stats is not None:
        print("\n".join(stats_lines(options)))
        return
    corpus = prepared(options)
    if corpus and options.consent:
        record_consents(corpus, parsed_consents(options.consent, corpus.speakers()))
    if corpus and (info := corpus.info):
        minutes = 60 * info["hours"]
        print(f"{corpus.root}: {info['turns_used']} turns, {minutes:.1f} minutes of {info['name']}")
        minutes = f"{info['minutes_rejected']:.1f} minutes of " if "minutes_rejected" in info else ""
        files = f"{info['files_rejected']} files (rejects.jsonl)"
        print(f"rejected: {minutes}{info['turns_rejected']} turns, {files}")


def stats_lines(options: argparse.Namespace) -> list[str]:
    """Returns the funnel of a corpus."""
    corpus = read_corpus(options.stats)
    if options.codes is None:
        return funnel_lines(corpus)
    run = recipe(options.recipe or "quickstart")
    training = Training(
        codec=text_codec(run.model.text, run.model.max_speakers),
        max_rows=run.data.max_rows,
        exclude_speakers=run.data.exclude_speakers,
    )
    numbers = speaker_numbers(corpus.speakers())
    return funnel_lines(corpus, read_code_shards(options.codes), training, numbers)


def prepared(options: argparse.Namespace) -> Corpus | None:
    """Returns the corpus of the options; None where the excerpt itself was written."""
    if options.make_excerpt:
        print(f"wrote {amazon_queen.make_excerpt(options.output, archive=options.archive)}")
        return None
    if options.corpus is None:
        raise ValueError(f"--corpus is missing: expected one of {', '.join(NAMES)}")
    if options.output is None:
        raise ValueError("--output is missing: expected the folder of the corpus")
    if options.corpus == "amazon_queen_excerpt":
        return amazon_queen.prepare_excerpt(options.output)
    if options.corpus == "amazon_queen":
        return amazon_queen.prepare_amazon_queen(options.output, archive=options.archive)
    if options.corpus == "synthetic_dialogues":
        return prepare_synthetic_dialogues(
            options.output, hours=options.hours, cache=options.cache, workers=options.workers
        )
    splits = SplitChoice(
        validation=held_out("validation", options.validation), test=held_out("test", options.test)
    )
    if splits != SplitChoice() and options.corpus == "librispeech":
        raise ValueError("--validation and --test: expected none beside --corpus librispeech; leave them out")
    if options.source is None:
        raise ValueError(f"--source is missing: --corpus {options.corpus} expects a folder there")
    if options.corpus in DEBIAN:
        return DEBIAN[options.corpus](options.output, downloads=options.source)
    if options.corpus == "librispeech":
        return prepare_librispeech(options.output, downloads=options.source, subset=options.subset)
    if options.corpus == "recordings" or options.corpus in PUBLIC_NAMES:
        return from_recordings(options, splits)
    return prepare_folder(options.output, source=options.source, splits=splits)


def from_recordings(options: argparse.Namespace, splits: SplitChoice) -> Corpus:
    """Returns the corpus of a folder in one of the known layouts."""
    public = options.corpus if options.corpus in PUBLIC_NAMES else None
    if public and options.layout not in (None, public):
        raise ValueError(
            f"--layout is {options.layout}: expected none beside --corpus {public}; leave it out"
        )
    transcriber, transcription = None, "none"
    if options.transcribe:
        longest = longest_turn(options.recipe)
        recogniser = WordRecogniser(options.asr, options.language)
        transcriber = RecordingTranscriber(recogniser, speakers=options.speakers, longest_turn=longest)
        people = options.speakers or "found"
        transcription = f"{recogniser.name}, {options.language}, speakers {people}, turns to {longest:.1f} s"
    return prepare_recordings(
        options.output,
        source=options.source,
        layout=public or options.layout,
        name=options.corpus,
        transcriber=transcriber,
        transcription=transcription,
        splits=splits,
    )


def longest_turn(recipe_name: str | None) -> float:
    """Returns how many seconds a turn may have in the context of a recipe's model, at most Whisper's 30."""
    if recipe_name is None:
        return LONGEST_TURN
    context = recipe(recipe_name).model.max_context
    return min(LONGEST_TURN, context / ROWS_PER_SECOND)
