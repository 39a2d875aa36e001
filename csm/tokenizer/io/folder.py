"""A tokenizer's folder: config.json beside model.safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from csm import config as config_files
from csm.system.digests import record_digests, require_intact
from csm.system.files import new_file
from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.io.packed_weights import packed, unpacked

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def write_tokenizer(
    folder: Path, config: TokenizerConfig, state: Mapping[str, Tensor], *, half: bool
) -> None:
    """Writes both files; makes the folder.

    Args:
        folder: Destination.
        config: Sizes.
        state: State dict of a ConversationalRVQ.
        half: Whether to write the packaged form of `packed`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config_files.save(config, folder / CONFIG)
    state = {name: value.contiguous() for name, value in state.items()}
    with new_file(folder / WEIGHTS) as file:
        save_file(packed(state) if half else state, file)
    record_digests(folder, [WEIGHTS])


def read_tokenizer(folder: Path) -> tuple[TokenizerConfig, dict[str, Tensor]]:
    """Reads the config and the fp32 state of a folder of `write_tokenizer`, packaged or not.

    Raises:
        ValueError: A file is missing, or the config cannot be read.
    """
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise ValueError(f"no tokenizer in {folder}: expected {CONFIG} and {WEIGHTS} there")
    require_intact(folder / WEIGHTS, "copy the tokenizer's folder again")
    config = config_files.load(TokenizerConfig, folder / CONFIG)
    try:
        return config, unpacked(load_file(folder / WEIGHTS))
    except (SafetensorError, KeyError) as error:
        raise ValueError(
            f"{folder / WEIGHTS} is damaged ({error}): copy the tokenizer's folder again"
        ) from error
