"""Initial embeddings and heads of codes from the tokenizer's code vectors: similar codes start alike.

Random embeddings and heads must learn from examples that two codes stand for nearly the same sound, 1024
times for every codebook; the tokenizer's latent space already shows it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from csm.network.conversation_network import ConversationNetwork
from csm.network.predicted_latent import latent_vectors, norms

# Norms at the start: of the first codebook's embeddings, beside 0.3 of a text id's, and of the heads' rows.
EMBEDDING_NORM, CODEBOOK0_NORM, DEPTH_NORM = 1.5, 0.3, 1.0


@torch.no_grad()
def start_from_code_vectors(network: ConversationNetwork, vectors: Float[Tensor, "K V D"]) -> None:
    """Sets a new model's audio table and the heads of all codebooks by what each code adds to a latent.

    Embeddings add up to the frame's latent, in the directions in which codes differ most; a head's logits
    rank codes by similarity. Training changes all of it.

    Args:
        network: Network before training.
        vectors: Code vectors of at least the model's codebooks.

    Raises:
        ValueError: There are too few codebooks, or they have another size or width than the model's.
    """
    c = network.config
    width = c.latent_dim or vectors.shape[-1]
    if len(vectors) < c.num_codebooks or vectors.shape[1:] != (c.codebook_size, width):
        raise ValueError(
            f"code vectors have shape {tuple(vectors.shape)}: expected [K, {c.codebook_size}, "
            f"{c.latent_dim or 'D'}] with K >= {c.num_codebooks}, of the tokenizer that made the codes"
        )
    centred = latent_vectors(vectors[: c.num_codebooks])
    unit = centred / norms(centred)
    table = network.audio_embedding.weight.view(c.num_codebooks, c.audio_vocab_size, c.d_model)
    seen = centred @ _basis(centred, c.d_model)
    table[:, : c.codebook_size] = (EMBEDDING_NORM * seen).to(table.dtype)
    if network.latent_embedding is not None:
        network.latent_embedding.weight.copy_(EMBEDDING_NORM * _basis(centred, c.d_model).T)
    network.codebook0_head.weight[: c.codebook_size] = CODEBOOK0_NORM * (unit[0] @ _basis(centred, c.d_model))
    heads = unit[1:] @ _basis(unit[1:], c.depth_d_model)
    heads = heads * (DEPTH_NORM / norms(heads))
    network.depth_decoder.heads[:, :, : c.codebook_size] = heads.transpose(1, 2).to(
        network.depth_decoder.heads.dtype
    )


def _basis(vectors: Float[Tensor, "K V D"], width: int) -> Float[Tensor, "D W"]:
    """Returns orthonormal directions in which the vectors vary most, the strongest first; zeros beyond D."""
    rows = vectors.flatten(0, 1)
    _, directions = torch.linalg.eigh(rows.T @ rows)
    chosen = directions.flip(1)[:, :width]
    return torch.nn.functional.pad(chosen, (0, width - chosen.shape[1]))
