"""csm-1b's sizes to the last parameter, on the meta device."""

from dataclasses import replace

import pytest
import torch

from csm.model import CSMModel
from csm.network.io.checkpoints import on_meta
from csm.network.io.public_configs import (
    from_sesame,
    from_transformers,
    to_sesame,
    to_transformers,
)
from csm.network.presets import csm_1b, csm_3b, csm_8b
from csm.network.rotary import rotary_frequencies
from tests.parameter_counts import parameter_counts

PRESETS = {"1b": csm_1b, "3b": csm_3b, "8b": csm_8b}


def test_csm_1b_has_the_parameters_that_were_published() -> None:
    counts = parameter_counts(on_meta(CSMModel, csm_1b()))
    assert counts.backbone == 973_146_112
    assert counts.text_embedding == 262_668_288
    assert counts.audio_embedding == 134_414_336
    assert counts.codebook0_head == 4_200_448
    assert counts.depth_decoder == 178_362_368
    assert counts.public == 1_552_791_552
    assert counts.public + counts.added == sum(p.numel() for p in on_meta(CSMModel, csm_1b()).parameters())
    # What is added stays small beside it.
    assert counts.added < 0.3 * counts.public


@pytest.mark.parametrize(
    ("preset", "backbone", "depth_decoder", "public"),
    [("3b", 2.8e9, 250e6, 3_773_162_496), ("8b", 7.0e9, 302e6, 8_188_122_112)],
)
def test_the_sisters_have_the_sizes_that_sesame_names(preset, backbone, depth_decoder, public) -> None:
    model = on_meta(CSMModel, PRESETS[preset]())
    counts = parameter_counts(model)
    assert counts.backbone == pytest.approx(backbone, rel=0.02)
    blocks = sum(p.numel() for p in model.depth_decoder.blocks.parameters())
    assert blocks == pytest.approx(depth_decoder, rel=0.01)
    assert counts.public == public


@pytest.mark.parametrize("preset", PRESETS)
def test_transformers_counts_the_same(preset) -> None:
    transformers = pytest.importorskip("transformers")
    config = PRESETS[preset]()
    described = transformers.CsmConfig(**to_transformers(config))
    with torch.device("meta"):
        theirs = transformers.CsmForConditionalGeneration(described)
    sizes = {n: p.numel() for n, p in theirs.named_parameters() if not n.startswith("codec_model.")}
    assert sum(sizes.values()) == parameter_counts(on_meta(CSMModel, config)).public


@pytest.mark.parametrize("preset", PRESETS)
def test_a_model_on_the_meta_device_has_real_constants_and_csm_1bs_rules(preset) -> None:
    config = PRESETS[preset]()
    model = on_meta(CSMModel, config)
    assert all(p.is_meta for p in model.parameters())
    assert not any(buffer.is_meta for buffer in model.buffers())
    attention = model.backbone.blocks[0].attention
    assert torch.equal(attention.frequencies, rotary_frequencies(attention.head_dim, 5e5, 32.0))
    assert (config.audio_vocab_size, config.codebook_size, config.num_codebooks) == (2051, 2048, 32)
    assert (config.end_code, config.max_context, config.text_vocab_size) == (0, 2048, 128_256)
    assert model.codebook_offsets.tolist()[-1] == 31 * 2051


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_survive_both_public_configs(preset) -> None:
    config = PRESETS[preset]()
    assert from_transformers(to_transformers(config)) == config
    assert from_sesame(to_sesame(config)) == config
    assert "csm" not in to_sesame(config)
    assert config.shapes[0].width == config.d_model


def test_sesames_own_config_is_csm_1b() -> None:
    written = {
        "audio_num_codebooks": 32,
        "audio_vocab_size": 2051,
        "backbone_flavor": "llama-1B",
        "decoder_flavor": "llama-100M",
        "text_vocab_size": 128256,
    }
    assert from_sesame(written) == csm_1b() and to_sesame(csm_1b()) == written


def test_transformers_own_config_of_csm_1b_is_csm_1b() -> None:
    """As the public folder has it: defaults left out, Llama 3's rule in scaled numbers, old names."""
    written = {
        "model_type": "csm",
        "rope_theta": 500000,
        "rope_scaling": {
            "factor": 32.0,
            "high_freq_factor": 0.5,
            "low_freq_factor": 0.125,
            "original_max_position_embeddings": 1024,
            "rope_type": "llama3",
        },
        "depth_decoder_config": {
            "rope_theta": 500000,
            "rope_scaling": {
                "factor": 32.0,
                "high_freq_factor": 0.0078125,
                "low_freq_factor": 0.001953125,
                "original_max_position_embeddings": 16,
                "rope_type": "llama3",
            },
        },
    }
    assert from_transformers(written) == csm_1b()


def test_the_defaults_of_transformers_have_no_scaling() -> None:
    transformers = pytest.importorskip("transformers")
    config = from_transformers(transformers.CsmConfig().to_dict())
    assert config == replace(csm_1b(), rope_scaling=1.0)


def test_settings_that_csm_1b_does_not_have_are_refused_all_at_once() -> None:
    wrong = {
        **to_transformers(csm_1b()),
        "hidden_act": "gelu",
        "tie_codebooks_embeddings": False,
        "head_dim": 32,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "yarn", "factor": 4.0},
    }
    wrong["depth_decoder_config"] = {**wrong["depth_decoder_config"], "backbone_hidden_size": 4096}
    with pytest.raises(ValueError, match="hidden_act") as error:
        from_transformers(wrong)
    for name in ("tie_codebooks", "head_dim", "rms_norm_eps", "yarn", "backbone_hidden_size is 4096"):
        assert name in str(error.value)
    with pytest.raises(ValueError, match="model_type 'llama', expected 'csm'"):
        from_transformers({"model_type": "llama"})
    with pytest.raises(ValueError, match=r"'llama-7B'.*llama-1B"):
        from_sesame({"backbone_flavor": "llama-7B", "decoder_flavor": "llama-100M"})


def test_the_depth_decoder_may_share_keys_and_values() -> None:
    config = replace(csm_1b(), cross_layers=(), memory_layers=(), d_model=64, n_heads=4, n_kv_heads=2)
    config = replace(config, n_layers=2, d_ff=64, depth_d_model=32, depth_d_ff=32, text_vocab_size=8)
    model = CSMModel(config)
    assert model.depth_decoder.blocks[0].attention.k_proj.weight.shape == (8, 32)
    with pytest.raises(ValueError, match="depth_n_kv_heads is 3: expected a divisor of depth_n_heads 8"):
        replace(config, depth_n_kv_heads=3)


@pytest.mark.parametrize("preset", PRESETS)
def test_rotary_frequencies_are_transformers_to_the_last_bit(preset) -> None:
    """A last bit is 1e-4 radians at the end of the context."""
    modeling = pytest.importorskip("transformers.models.csm.modeling_csm")
    transformers = pytest.importorskip("transformers")
    described = transformers.CsmConfig(**to_transformers(PRESETS[preset]()))
    model = on_meta(CSMModel, PRESETS[preset]())
    for ours, config in (
        (model.backbone.blocks[0], described),
        (model.depth_decoder.blocks[0], described.depth_decoder_config),
    ):
        theirs = modeling.CsmRotaryEmbedding(config).inv_freq
        assert torch.equal(ours.attention.frequencies, theirs)
