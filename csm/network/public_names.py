"""What csm-1b's parameters are called in the public layouts, and in which form they stand there.

Sesame's layout follows torchtune: rotary pairs are neighbours there, and halves of a head apart elsewhere.
Sources: SesameAILabs/csm (models.py), transformers (models/csm and its convert_csm.py).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from csm.network.model_config import CSMConfig
from csm.network.public_configs import shapes_of
from csm.network.weight_files import Weight

Layout = Literal["csm", "transformers", "sesame"]
# Older transformers files also hold the backbone's copy of the shared audio table, some only that.
TWIN = "backbone_model.embed_tokens.embed_audio_tokens.weight"
MIMI = "codec_model."

# Our name to (Sesame's, transformers').
NAMES = {
    "text_embedding.weight": ("text_embeddings.weight", "embed_text_tokens.weight"),
    "audio_embedding.weight": ("audio_embeddings.weight", "depth_decoder.model.embed_tokens.weight"),
    "codebook0_head.weight": ("codebook0_head.weight", "lm_head.weight"),
    "backbone.norm.weight": ("backbone.norm.scale", "backbone_model.norm.weight"),
    "depth_decoder.projection.weight": (
        "projection.weight",
        "depth_decoder.model.inputs_embeds_projector.weight",
    ),
    "depth_decoder.norm.weight": ("decoder.norm.scale", "depth_decoder.model.norm.weight"),
    "depth_decoder.heads": ("audio_head", "depth_decoder.codebooks_head.weight"),
}
BLOCKS = {
    "backbone.blocks": ("backbone.layers", "backbone_model.layers"),
    "depth_decoder.blocks": ("decoder.layers", "depth_decoder.model.layers"),
}
IN_BLOCK = {
    "attention.q_proj.weight": ("attn.q_proj.weight", "self_attn.q_proj.weight"),
    "attention.k_proj.weight": ("attn.k_proj.weight", "self_attn.k_proj.weight"),
    "attention.v_proj.weight": ("attn.v_proj.weight", "self_attn.v_proj.weight"),
    "attention.o_proj.weight": ("attn.output_proj.weight", "self_attn.o_proj.weight"),
    "feed_forward.gate_proj.weight": ("mlp.w1.weight", "mlp.gate_proj.weight"),
    "feed_forward.down_proj.weight": ("mlp.w2.weight", "mlp.down_proj.weight"),
    "feed_forward.up_proj.weight": ("mlp.w3.weight", "mlp.up_proj.weight"),
    "attention_norm.weight": ("sa_norm.scale", "input_layernorm.weight"),
    "feed_forward_norm.weight": ("mlp_norm.scale", "post_attention_layernorm.weight"),
}


def public_name(name: str, layout: Layout) -> str:
    """What a parameter that csm-1b has is called in a layout."""
    if layout == "csm":
        return name
    place = 0 if layout == "sesame" else 1
    if name in NAMES:
        return NAMES[name][place]
    part = next(part for part in BLOCKS if name.startswith(f"{part}."))
    index, _, rest = name[len(part) + 1 :].partition(".")
    return f"{BLOCKS[part][place]}.{index}.{IN_BLOCK[rest][place]}"


def to_halves(weight: Tensor, heads: int) -> Tensor:
    """Rows of q or k [heads * H, D] from rotary pairs that are neighbours to pairs H / 2 apart."""
    return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def to_neighbours(weight: Tensor, heads: int) -> Tensor:
    """The way back from `to_halves`."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def converted(name: str, weight: Weight, layout: Layout, config: CSMConfig, *, outwards: bool) -> Weight:
    """A weight from a layout's form to ours, or the other way: in Sesame's, q and k are turned."""
    if layout != "sesame" or not name.endswith(("q_proj.weight", "k_proj.weight")):
        return weight
    shape = shapes_of(config)[name.startswith("depth_decoder.")]
    heads = shape.heads if name.endswith("q_proj.weight") else shape.kv_heads
    turn = to_neighbours if outwards else to_halves
    return weight._replace(read=lambda: turn(weight.read(), heads))
