"""Code vectors of a model, from the tokenizer that lies in or beside its folder."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from csm.network.model_config import CSMConfig
from csm.network.predicted_latent import latent_vectors
from csm.tokenizer.conversational_rvq import ConversationalRVQ


def tokenizer_folder(folder: Path) -> Path:
    """Returns where the tokenizer of a model folder lies: in it, or beside it as the packaged one."""
    own = folder / "tokenizer"
    return own if own.is_dir() else folder.parent / "tokenizer"


def read_code_vectors(folder: Path, config: CSMConfig) -> Float[Tensor, "K V L"] | None:
    """Reads what each code adds to the latent that a model predicts; None without latent or tokenizer.

    Raises:
        ValueError: The tokenizer's folder is damaged.
    """
    place = tokenizer_folder(folder)
    if not config.latent_dim or not (place / "model.safetensors").is_file():
        return None
    tokenizer = ConversationalRVQ.from_pretrained(place)
    return latent_vectors(tokenizer.code_vectors()[: config.num_codebooks])
