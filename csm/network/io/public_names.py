"""In which form the weights of csm-1b stand in the public layouts.

Sesame's layout follows torchtune: the channels of a rotary pair are neighbours there, and half a head apart
elsewhere. Sources: SesameAILabs/csm (models.py), transformers (models/csm and its convert_csm.py).
"""

from __future__ import annotations

from torch import Tensor

from csm.network.io.weight_files import Weight
from csm.network.model_config import CSMConfig
from csm.network.parameters import Layout, group_of

# Older transformers files also hold the backbone's copy of the shared audio table, some only that.
TWIN = "backbone_model.embed_tokens.embed_audio_tokens.weight"
MIMI = "codec_model."


def to_halves(weight: Tensor, heads: int) -> Tensor:
    """Reorders rows of q or k [heads * H, D] from neighbouring rotary pairs to pairs H / 2 apart."""
    return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def to_neighbours(weight: Tensor, heads: int) -> Tensor:
    """Reverses `to_halves`."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def converted(name: str, weight: Weight, layout: Layout, config: CSMConfig, *, outwards: bool) -> Weight:
    """Converts a weight from a layout's form to ours, or outwards: in Sesame's, q and k are reordered."""
    if layout != "sesame" or not name.endswith(("q_proj.weight", "k_proj.weight")):
        return weight
    backbone, depth = config.shapes
    shape = depth if group_of(name).group == "depth_decoder" else backbone
    heads = shape.heads if name.endswith("q_proj.weight") else shape.kv_heads
    turn = to_neighbours if outwards else to_halves
    return weight._replace(read=lambda: turn(weight.read(), heads))
