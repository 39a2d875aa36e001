"""The tokenizers that models are trained on, ours and Mimi, with one interface: opened from a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeAlias

from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.mimi import MimiTokenizer

VoiceTokenizer: TypeAlias = ConversationalRVQ | MimiTokenizer


def open_tokenizer(folder: Path, num_codebooks: int) -> VoiceTokenizer:
    """Returns the tokenizer of a folder: ours, or Mimi in transformers' layout (alone, or inside its CSM).

    Args:
        folder: Folder with config.json.
        num_codebooks: Number of Mimi's codebooks that are encoded.

    Raises:
        ValueError: No tokenizer in the folder.
    """
    if is_mimi(folder):
        return MimiTokenizer.from_pretrained(folder, n_codebooks=num_codebooks)
    return ConversationalRVQ.from_pretrained(folder)


def is_mimi(folder: Path) -> bool:
    """Returns whether a folder holds Mimi, or a CSM with Mimi in it, in transformers' layout."""
    path = folder / "config.json"
    raw = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return isinstance(raw, dict) and raw.get("model_type") in ("mimi", "csm")
