"""config.json of the two public layouts of csm-1b, to and from CSMConfig."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from csm import config as config_files
from csm.network.model_config import CSMConfig, TransformerShape
from csm.network.presets import FLAVORS, LLAMA_PACE, of_flavors, with_added_layers

# What transformers leaves out of config.json: the defaults of CsmConfig and CsmDepthDecoderConfig.
BACKBONE_DEFAULTS = {
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "max_position_embeddings": 2048,
    "vocab_size": 2051,
    "num_codebooks": 32,
    "text_vocab_size": 128_256,
    "codebook_eos_token_id": 0,
    "tie_codebooks_embeddings": True,
}
DEPTH_DEFAULTS = {
    "hidden_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 8192,
    "max_position_embeddings": 33,
    "vocab_size": 2051,
    "num_codebooks": 32,
    "backbone_hidden_size": 2048,
}
BOTH_DEFAULTS = {"hidden_act": "silu", "rms_norm_eps": 1e-5, "attention_bias": False, "mlp_bias": False}
# Codes of Mimi; the audio vocabulary has three entries more.
MIMI_CODES = 2048
UNPUBLISHED = "unpublished"
# How csm-1b is sampled; without these transformers takes the argmax.
GENERATION = {
    "do_sample": True,
    "temperature": 0.9,
    "top_k": 50,
    "depth_decoder_do_sample": True,
    "depth_decoder_temperature": 0.9,
    "depth_decoder_top_k": 50,
    "bos_token_id": 128_000,
    "pad_token_id": 128_002,
}


def from_transformers(raw: Mapping[str, Any]) -> CSMConfig:
    """The model that transformers' config.json describes, with the parts added that csm-1b lacks.

    Raises:
        ValueError: Settings that csm-1b does not have; all of them are listed.
    """
    if raw.get("model_type") != "csm":
        raise ValueError(
            f"config.json has model_type {raw.get('model_type')!r}, expected 'csm': give the folder of a "
            f"CsmForConditionalGeneration, or its sizes as config="
        )
    outer = {**BACKBONE_DEFAULTS, **BOTH_DEFAULTS, **raw}
    inner = {**DEPTH_DEFAULTS, **BOTH_DEFAULTS, **(raw.get("depth_decoder_config") or {})}
    problems: list[str] = []

    def expect(part: str, fields: Mapping[str, Any], name: str, value: Any) -> None:
        if fields.get(name) not in (None, value):
            problems.append(f"{part}{name} is {fields[name]!r}, expected {value!r}")

    for part, fields in (("", outer), ("depth_decoder_config.", inner)):
        for name, value in BOTH_DEFAULTS.items():
            expect(part, fields, name, value)
        expect(part, fields, "head_dim", fields["hidden_size"] // fields["num_attention_heads"])
    for name in ("codebook_eos_token_id", "tie_codebooks_embeddings"):
        expect("", outer, name, BACKBONE_DEFAULTS[name])
    for name in ("vocab_size", "num_codebooks"):
        expect("depth_decoder_config.", inner, name, outer[name])
    expect("depth_decoder_config.", inner, "backbone_hidden_size", outer["hidden_size"])
    base, scaling = _rotary("", outer, problems)
    if _rotary("depth_decoder_config.", inner, problems) != (base, scaling):
        problems.append("the depth decoder's rope differs from the backbone's, expected one for both")
    if problems:
        raise ValueError("config.json describes another model than csm-1b's family: " + "; ".join(problems))
    codes = (raw.get("codec_config") or {}).get("codebook_size", MIMI_CODES)
    if not 2 <= codes <= outer["vocab_size"]:
        codes = max(2, outer["vocab_size"] - 3)
    return with_added_layers(
        CSMConfig(
            d_model=outer["hidden_size"],
            n_layers=outer["num_hidden_layers"],
            n_heads=outer["num_attention_heads"],
            n_kv_heads=outer["num_key_value_heads"] or 0,
            d_ff=outer["intermediate_size"],
            depth_d_model=inner["hidden_size"],
            depth_n_layers=inner["num_hidden_layers"],
            depth_n_heads=inner["num_attention_heads"],
            depth_n_kv_heads=inner["num_key_value_heads"] or 0,
            depth_d_ff=inner["intermediate_size"],
            num_codebooks=outer["num_codebooks"],
            semantic_codebooks=1,
            codebook_size=codes,
            extra_codes=outer["vocab_size"] - codes,
            zeros_end=True,
            text="none",
            text_vocab_size=outer["text_vocab_size"],
            rope_base=base,
            rope_scaling=scaling,
            max_context=outer["max_position_embeddings"],
            frames_per_text_id=LLAMA_PACE,
            gate=0.0,
        )
    )


def _rotary(part: str, fields: Mapping[str, Any], problems: list[str]) -> tuple[float, float]:
    """Base and scaling; transformers 5 calls the entry rope_parameters, 4 rope_scaling beside rope_theta."""
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    base = float(rope.get("rope_theta") or fields.get("rope_theta") or 500_000.0)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return base, 1.0
    # csm-1b's file has 1024, 0.125 and 0.5 for 8192, 1 and 4: only the quotients count.
    length = rope.get("original_max_position_embeddings") or 0
    low, high = rope.get("low_freq_factor") or 1, rope.get("high_freq_factor") or 1
    if kind != "llama3" or length / low != 8192 or length / high != 2048:
        problems.append(
            f"{part}rope is {dict(rope)}, expected 'default', or 'llama3' whose "
            f"original_max_position_embeddings is 8192 low_freq_factor and 2048 high_freq_factor"
        )
        return base, 1.0
    return base, float(rope.get("factor", 1.0))


def to_transformers(config: CSMConfig, codec_config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """config.json for transformers' CsmForConditionalGeneration.

    Args:
        config: Of a model that ends turns by zeros.
        codec_config: Of the Mimi that goes along; None leaves transformers' default, which is csm-1b's.
    """
    outer, inner = config.shapes

    def llama(shape: TransformerShape, positions: int) -> dict[str, Any]:
        rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_base}
        if config.rope_scaling != 1.0:
            # transformers wants the original length below the model's; the quotients are what counts.
            length = 1 << (positions // 2).bit_length() - 1
            factors = {"low_freq_factor": length / 8192, "high_freq_factor": length / 2048}
            rope.update(factors, rope_type="llama3", factor=config.rope_scaling)
            rope["original_max_position_embeddings"] = length
        return {
            "hidden_size": shape.width,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "head_dim": shape.width // shape.heads,
            "intermediate_size": shape.hidden,
            "max_position_embeddings": positions,
            "vocab_size": config.audio_vocab_size,
            "num_codebooks": config.num_codebooks,
            "rope_parameters": rope,
            **BOTH_DEFAULTS,
        }

    depth = {
        "model_type": "csm_depth_decoder_model",
        "backbone_hidden_size": config.d_model,
        **llama(inner, config.num_codebooks + 1),
    }
    written = {
        "architectures": ["CsmForConditionalGeneration"],
        "model_type": "csm",
        **llama(outer, config.max_context),
        "text_vocab_size": config.text_vocab_size,
        "codebook_eos_token_id": 0,
        "codebook_pad_token_id": config.audio_vocab_size - 1,
        "tie_codebooks_embeddings": True,
        "depth_decoder_config": depth,
    }
    return written if codec_config is None else {**written, "codec_config": dict(codec_config)}


def from_sesame(raw: Mapping[str, Any]) -> CSMConfig:
    """The model that Sesame's config.json names, with the parts added that csm-1b lacks.

    Raises:
        ValueError: Flavors are unpublished, or fields are missing.
    """
    if "csm" in raw:
        return config_files.from_dict(CSMConfig, raw["csm"])
    flavors = [raw.get("backbone_flavor"), raw.get("decoder_flavor")]
    if any(name not in FLAVORS for name in flavors):
        raise ValueError(
            f"config.json has the flavors {flavors}, expected two of {sorted(FLAVORS)}: give the "
            f"sizes as config="
        )
    vocab = raw.get("audio_vocab_size", MIMI_CODES + 3)
    return of_flavors(
        str(flavors[0]),
        str(flavors[1]),
        text_vocab_size=raw.get("text_vocab_size", 128_256),
        codebook_size=vocab - 3,
        num_codebooks=raw.get("audio_num_codebooks", 32),
    )


def to_sesame(config: CSMConfig) -> dict[str, Any]:
    """config.json in Sesame's layout; sizes without a flavor stand under `csm`, where `from_sesame` looks."""
    outer, inner = (
        next((name for name, known in FLAVORS.items() if known == shape), UNPUBLISHED)
        for shape in config.shapes
    )
    written: dict[str, Any] = {
        "backbone_flavor": outer,
        "decoder_flavor": inner,
        "text_vocab_size": config.text_vocab_size,
        "audio_vocab_size": config.audio_vocab_size,
        "audio_num_codebooks": config.num_codebooks,
    }
    own = replace(config, text="none")
    if UNPUBLISHED in (outer, inner) or from_sesame(written) != own:
        written["csm"] = config_files.to_dict(own)
    return written
