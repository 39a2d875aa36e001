"""The one place where a folder with a voice is read: an exported voice, or csm-1b in any of its layouts.

csm-1b is a folder of transformers' CsmForConditionalGeneration (which holds Mimi), of Sesame's layout, or of
this project's, the latter two with Mimi in tokenizer/. It has speakers by number and no voices.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from csm import config as config_files
from csm.generation.sampling import SamplingConfig
from csm.generation.voices import VOICES_FILE, Voice, known_numbers, nearest_name, read_voices
from csm.network.conversation_network import ConversationNetwork
from csm.network.io import checkpoints
from csm.pronunciation import is_word
from csm.text import NoTextCodec
from csm.tokenizer.opening import VoiceTokenizer, is_mimi, open_tokenizer
from csm.word_search import WordPairs

SAMPLING_FILE, TOKENIZER_FOLDER = "sampling.json", "tokenizer"
PACKAGED = Path(__file__).resolve().parents[1] / "weights"
#: Packaged voices by name; the first one speaks where none is named.
PACKAGED_VOICES = {"telephone": PACKAGED / "voice", "wideband": PACKAGED / "wideband"}
# csm-1b spells the speaker's number before the text; each of these is one text id.
NUMBERED = 10


class VoiceParts(NamedTuple):
    """What is in a voice's folder; the fields are those of Talker."""

    model: ConversationNetwork
    tokenizer: VoiceTokenizer
    voices: Mapping[str, Voice]
    sampling: SamplingConfig
    words: WordPairs | None = None


def packaged_voice(given: str | Path | None) -> Path:
    """Returns the folder of a packaged voice by its name (None: the first one), or the folder given."""
    if given is None:
        return next(iter(PACKAGED_VOICES.values()))
    return PACKAGED_VOICES.get(str(given), Path(given))


def read_voice_folder(folder: Path) -> VoiceParts:
    """Reads model, tokenizer, voices and sampling settings of a folder.

    Raises:
        ValueError: It holds no voice, or a part is missing or does not fit the others; says what to do.
    """
    if not folder.exists():
        raise ValueError(
            f"there is no folder {folder}: expected one with a voice, or the name of a packaged voice "
            f"({', '.join(PACKAGED_VOICES)}){_speaker_hint(folder.name)}"
        )
    published = is_csm_1b(folder)
    for name in () if published else (VOICES_FILE, SAMPLING_FILE):
        if not (folder / name).is_file():
            raise ValueError(
                f"no voice in {folder}: expected {name}; make one of a run with launch/export_voice.py"
            )
    place = _tokenizer_place(folder, published)
    model = checkpoints.load(ConversationNetwork, folder)
    if isinstance(model.codec, NoTextCodec):
        raise ValueError(
            f"no tokenizer.json in {folder}: expected the one of csm-1b's texts (Llama 3.2's); copy it there"
        )
    tokenizer = open_tokenizer(place, model.config.num_codebooks)
    if tokenizer.config.codebook_size < model.config.codebook_size:
        raise ValueError(
            f"the model in {folder} has {model.config.codebook_size} codes a codebook, the tokenizer in "
            f"{place} {tokenizer.config.codebook_size}: expected the tokenizer that it was trained with"
        )
    if published:
        return VoiceParts(model, tokenizer, numbered_voices(), published_sampling(folder))
    sampling = config_files.load(SamplingConfig, folder / SAMPLING_FILE)
    return VoiceParts(model, tokenizer, read_voices(folder), sampling, WordPairs.read(folder, is_word))


def _speaker_hint(name: str) -> str:
    """Names the packaged voice that has a speaker of about this name."""
    for voice, folder in PACKAGED_VOICES.items():
        if near := nearest_name(name, known_numbers(folder)):
            return f"; {near} is a speaker of the voice {voice}"
    return ""


def is_csm_1b(folder: Path) -> bool:
    """Returns whether a folder holds csm-1b without voices of its own, in any layout, and is no run."""
    path = folder / "config.json"
    if not path.is_file() or any((folder / name).is_file() for name in (VOICES_FILE, "run.json")):
        return False
    raw = _object(path)
    return raw.get("model_type") == "csm" or "backbone_flavor" in raw or raw.get("zeros_end") is True


def numbered_voices() -> dict[str, Voice]:
    """Returns the speakers of csm-1b: without a prompt each has a voice that the seed decides."""
    return {str(number): Voice(str(number), number, torch.zeros(1, 0)) for number in range(NUMBERED)}


def published_sampling(folder: Path) -> SamplingConfig:
    """Returns the sampling settings of transformers' generation_config.json; csm-1b's where it has none."""
    path = folder / "generation_config.json"
    raw = _object(path) if path.is_file() else {}
    standard = SamplingConfig()

    def temperature(part: str) -> float:
        if raw.get(f"{part}do_sample") is False:
            return 0.0
        value = raw.get(f"{part}temperature")
        return standard.temperature if value is None else float(value)

    top_k = raw.get("top_k")
    return SamplingConfig(
        temperature=temperature(""),
        depth_temperature=temperature("depth_decoder_"),
        top_k=standard.top_k if top_k is None else top_k,
    )


def _tokenizer_place(folder: Path, published: bool) -> Path:
    """Returns the folder of the tokenizer: in the voice's folder, the CSM that holds it, or beside it."""
    own = folder / TOKENIZER_FOLDER
    if own.is_dir():
        return own
    if is_mimi(folder):
        return folder
    if published:
        raise ValueError(
            f"no Mimi in {own}: expected kyutai/mimi in transformers' layout; "
            f"hf download kyutai/mimi --local-dir {own}"
        )
    # The packaged voice and the packaged tokenizer lie side by side, so that each is kept once.
    return folder.parent / TOKENIZER_FOLDER


def _object(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}): copy it again") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{path} holds {type(raw).__name__}, expected a JSON object: copy it again")
    return raw
