"""Groups of parameters, declared once: which parts csm-1b has, under which names, and which are added.

Read from this table: what a fine-tuning trains or freezes, which layers take LoRA adapters, names in the
public layouts, and where added parameters start.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

Layout = Literal["csm", "transformers", "sesame"]
ADDED, GATES = "added", "gates"


class PublicName(NamedTuple):
    """Name of a parameter or of a list of transformer blocks in the two public layouts."""

    sesame: str
    transformers: str


class ParameterGroup(NamedTuple):
    """Parameters below one module.

    Attributes:
        module: Name of the module, or of the parameter itself.
        group: Name by which fine-tuning chooses it; ADDED for parts that csm-1b lacks.
        public: Name in the public layouts; None for added parts.
        blocks: Whether the module is a list of transformer blocks, whose parameters are named by IN_BLOCK.
        closed: Whether all its parameters are zero where it is added to a model of csm-1b.
    """

    module: str
    group: str
    public: PublicName | None = None
    blocks: bool = False
    closed: bool = False


GROUPS = (
    ParameterGroup(
        "text_embedding.weight",
        "text_embedding",
        PublicName("text_embeddings.weight", "embed_text_tokens.weight"),
    ),
    ParameterGroup(
        "audio_embedding.weight",
        "audio_embedding",
        PublicName("audio_embeddings.weight", "depth_decoder.model.embed_tokens.weight"),
    ),
    ParameterGroup(
        "codebook0_head.weight", "codebook0_head", PublicName("codebook0_head.weight", "lm_head.weight")
    ),
    ParameterGroup(
        "backbone.blocks", "backbone", PublicName("backbone.layers", "backbone_model.layers"), blocks=True
    ),
    ParameterGroup(
        "backbone.norm.weight", "backbone", PublicName("backbone.norm.scale", "backbone_model.norm.weight")
    ),
    ParameterGroup(
        "depth_decoder.projection.weight",
        "depth_decoder",
        PublicName("projection.weight", "depth_decoder.model.inputs_embeds_projector.weight"),
    ),
    ParameterGroup(
        "depth_decoder.blocks",
        "depth_decoder",
        PublicName("decoder.layers", "depth_decoder.model.layers"),
        blocks=True,
    ),
    ParameterGroup(
        "depth_decoder.norm.weight",
        "depth_decoder",
        PublicName("decoder.norm.scale", "depth_decoder.model.norm.weight"),
    ),
    ParameterGroup(
        "depth_decoder.heads",
        "depth_decoder",
        PublicName("audio_head", "depth_decoder.codebooks_head.weight"),
    ),
    # Cross-attention and memory: their gates are closed, which alone keeps them from changing anything.
    *(
        ParameterGroup(module, ADDED)
        for module in (
            "backbone.voice_reads",
            "backbone.text_reads",
            "backbone.memory_reads",
            "backbone.text_now",
            "text_source",
            "voice_source",
            "text_slots",
            "memory",
            "pace_head.mixes",
            "latent_head",
            "latent_embedding",
            "latent_refiner",
            "latent_mean",
            "latent_gain",
            "letter_head",
        )
    ),
    *(
        ParameterGroup(module, ADDED, closed=True)
        for module in ("prosody_head", "duration_head", "pace_head.pace")
    ),
)
IN_BLOCK = {
    "attention.q_proj.weight": PublicName("attn.q_proj.weight", "self_attn.q_proj.weight"),
    "attention.k_proj.weight": PublicName("attn.k_proj.weight", "self_attn.k_proj.weight"),
    "attention.v_proj.weight": PublicName("attn.v_proj.weight", "self_attn.v_proj.weight"),
    "attention.o_proj.weight": PublicName("attn.output_proj.weight", "self_attn.o_proj.weight"),
    "feed_forward.gate_proj.weight": PublicName("mlp.w1.weight", "mlp.gate_proj.weight"),
    "feed_forward.down_proj.weight": PublicName("mlp.w2.weight", "mlp.down_proj.weight"),
    "feed_forward.up_proj.weight": PublicName("mlp.w3.weight", "mlp.up_proj.weight"),
    "attention_norm.weight": PublicName("sa_norm.scale", "input_layernorm.weight"),
    "feed_forward_norm.weight": PublicName("mlp_norm.scale", "post_attention_layernorm.weight"),
}
# Groups that csm-1b has, by the names that fine-tuning uses.
PUBLIC_GROUPS = tuple(dict.fromkeys(group.group for group in GROUPS if group.group != ADDED))


def group_of(name: str) -> ParameterGroup:
    """Returns the group of a parameter.

    Raises:
        ValueError: The table has no group for it.
    """
    for group in GROUPS:
        if name == group.module or name.startswith(f"{group.module}."):
            return group
    raise ValueError(f"parameter {name} is in no group: expected an entry in csm.network.parameters.GROUPS")


def is_added(name: str) -> bool:
    """Returns whether a parameter belongs to a part that csm-1b lacks."""
    return group_of(name).group == ADDED


def is_gate(name: str) -> bool:
    """Returns whether a parameter is the gate of an added part."""
    return name.endswith(".gate")


def is_in(name: str, parts: Iterable[str]) -> bool:
    """Returns whether a parameter belongs to one of these groups: "all", GATES, or a group of the table."""
    return "all" in parts or group_of(name).group in parts or (GATES in parts and is_gate(name))


def public_name(name: str, layout: Layout) -> str:
    """Returns the name in a layout of a parameter that csm-1b has."""
    group = group_of(name)
    if layout == "csm" or group.public is None:
        return name
    part = getattr(group.public, layout)
    if not group.blocks:
        return part
    index, _, rest = name[len(group.module) + 1 :].partition(".")
    return f"{part}.{index}.{getattr(IN_BLOCK[rest], layout)}"
