"""What the samples of a run need of its corpus: chosen once, kept beside its codes.

No later start reads the manifest for them, which takes a kilobyte a turn.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch

from csm.data.code_shards import EncodedTurn, codes_digests
from csm.data.corpus_digests import corpus_digests
from csm.data.manifest import Corpus, Turn, read_corpus, write_jsonl
from csm.generation.corpus_voices import main_speaker, voice_of, with_emotion
from csm.generation.evaluation_lines import held_out_lines
from csm.generation.voices import Voice, read_voices, write_voices
from csm.recipes.steps.turn_tables import FOLDER_NAME
from csm.system.digests import record_digests, require_intact
from csm.system.files import new_folder
from csm.system.log import log
from csm.tokenizer.opening import VoiceTokenizer

LINES_NAME = "lines.jsonl"


class SampledLines(NamedTuple):
    """Held-out lines of a corpus's main voice, and that voice, whose number is 0.

    Without lines the voice has no vector.
    """

    voice: Voice
    lines: tuple[Turn, ...]


def spoken_lines(
    corpus: str, codes: Path, encoded: Mapping[str, EncodedTurn], tokenizer: VoiceTokenizer, count: int
) -> SampledLines:
    """Returns lines of the voice with most training minutes, from their folder where they are kept already.

    Args:
        corpus: Folder of the corpus, or several with commas.
        codes: Folder of its codes, where the choice is kept.
        encoded: The turns' codes.
        tokenizer: Tokenizer of the codes.
        count: Largest number of lines; there may be none.
    """
    found = [*corpus_digests(corpus).items(), *codes_digests(codes).items(), count]
    material = hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]
    folder = codes / FOLDER_NAME / f"samples_{material}"
    if not folder.is_dir():
        made = _chosen(read_corpus(corpus), encoded, tokenizer, count)
        try:
            _keep(made, folder)
        except OSError as error:
            log.warning("the lines of the samples are not kept beside the codes: %s", error)
            return made
    return _kept(folder)


def corpus_without_turns(folders: str) -> Corpus:
    """Returns a corpus (`data/a`) or several (`data/a,data/b`) without their turns: no manifest is read."""
    names = [Path(name) for name in folders.split(",")]
    if len(names) == 1:
        return Corpus(root=names[0], conversations=(), info={})
    parts = tuple(name.absolute() for name in names)
    return Corpus(root=Path(os.path.commonpath(parts)), conversations=(), info={}, parts=parts)


def _chosen(
    corpus: Corpus, encoded: Mapping[str, EncodedTurn], tokenizer: VoiceTokenizer, count: int
) -> SampledLines:
    name = main_speaker(corpus)
    lines = tuple(held_out_lines(corpus, name, count))
    if not lines:
        return SampledLines(Voice(name, 0, torch.zeros(1, 0)), ())
    voice = voice_of(corpus, encoded, name, 0)
    return SampledLines(with_emotion(voice, corpus, tokenizer), lines)


def _keep(made: SampledLines, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(folder) as partial:
        write_voices(partial, {made.voice.name: made.voice})
        write_jsonl(partial / LINES_NAME, [asdict(turn) for turn in made.lines])
        record_digests(partial, [path for path in partial.iterdir()])


def _kept(folder: Path) -> SampledLines:
    for path in (folder / LINES_NAME, *folder.glob("voices.json")):
        require_intact(path, f"remove {folder}", listed=True)
    (voice,) = read_voices(folder).values()
    texts = (folder / LINES_NAME).read_text(encoding="utf-8").splitlines()
    return SampledLines(voice, tuple(Turn(**json.loads(text)) for text in texts))
