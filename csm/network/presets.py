"""csm-1b and its sisters: the public sizes as configurations.

Sesame names three sizes, 1B + 100M, 3B + 250M and 8B + 300M, and published the first. The 8B shapes are those
of MisoTTS. No shapes of the 3B size are published: its backbone is Llama 3.2's 3B, its depth decoder that of
MisoTTS with a feed-forward width that makes it 250M.
"""

from __future__ import annotations

from dataclasses import replace

from csm.network.model_config import CSMConfig, TransformerShape

# By the flavor names of Sesame's and MisoTTS's config.json; the 3B and 250M ones are ours.
FLAVORS = {
    "llama-1B": TransformerShape(16, 2048, 32, 8, 8192),
    "llama-3B": TransformerShape(28, 3072, 24, 8, 8192),
    "llama-8B": TransformerShape(32, 4096, 32, 8, 14336),
    "llama-100M": TransformerShape(4, 1024, 8, 2, 8192),
    "llama-250M": TransformerShape(8, 1536, 24, 6, 5504),
    "llama-300M": TransformerShape(8, 1536, 24, 6, 6912),
}


def of_flavors(
    backbone: str, depth_decoder: str, *, text_vocab_size: int, codebook_size: int, num_codebooks: int
) -> CSMConfig:
    """A model of two named shapes with csm-1b's vocabulary rules, positions and end row.

    Args:
        backbone, depth_decoder: Of FLAVORS.
        text_vocab_size, codebook_size, num_codebooks: The audio vocabulary has three more than codebook_size.
    """
    outer, inner = FLAVORS[backbone], FLAVORS[depth_decoder]
    return with_added_layers(
        CSMConfig(
            d_model=outer.width,
            n_layers=outer.layers,
            n_heads=outer.heads,
            n_kv_heads=outer.kv_heads,
            d_ff=outer.hidden,
            depth_d_model=inner.width,
            depth_n_layers=inner.layers,
            depth_n_heads=inner.heads,
            depth_n_kv_heads=inner.kv_heads,
            depth_d_ff=inner.hidden,
            num_codebooks=num_codebooks,
            semantic_codebooks=1,
            codebook_size=codebook_size,
            zeros_end=True,
            text="none",
            text_vocab_size=text_vocab_size,
            rope_scaling=32.0,
            frames_per_text_id=LLAMA_PACE,
            gate=0.0,
        )
    )


# Frames per id of Llama's tokenizer: 150 spoken words a minute are about 3.3 ids a second, frames are 12.5.
LLAMA_PACE = 3.8


def with_added_layers(config: CSMConfig) -> CSMConfig:
    """The same model with cross-attention in every fourth layer and memory halfway between.

    In every second layer, as in small models, they would be a third of the parameters of csm-1b.
    """
    last = config.n_layers - 1
    cross = tuple(range(3, config.n_layers, 4)) or (last,)
    memory = tuple(range(1, config.n_layers, 4)) or (last,)
    return replace(config, cross_layers=cross, memory_layers=memory)


def csm_1b() -> CSMConfig:
    """csm-1b: 1,552,791,552 parameters, and what is added to it."""
    return of_flavors("llama-1B", "llama-100M", text_vocab_size=128_256, codebook_size=2048, num_codebooks=32)


def csm_3b() -> CSMConfig:
    """Sesame's middle size, 3B + 250M."""
    return of_flavors("llama-3B", "llama-250M", text_vocab_size=128_256, codebook_size=2048, num_codebooks=32)


def csm_8b() -> CSMConfig:
    """Sesame's large size, 8B + 300M, in the shapes of MisoTTS."""
    return of_flavors("llama-8B", "llama-300M", text_vocab_size=128_256, codebook_size=2048, num_codebooks=32)
