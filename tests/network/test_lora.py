"""Adapters: what they compute, where they go, and that peft and we read each other's files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from csm.model import CSMConfig, CSMModel
from csm.network.io import checkpoints
from csm.network.io.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, merge, merged_state, save_adapter
from csm.network.lora import LoRAConfig, LoRALinear, add_adapters, is_adapter
from csm.network.presets import csm_1b
from csm.sequences.packed_batch import RowBatch
from csm.sequences.turns import TurnFrames
from tests.small_csm_1b import CODEBOOKS, CODES, write_csm_1b

SMALL = replace(
    csm_1b(),
    cross_layers=(1,),
    memory_layers=(0,),
    n_layers=2,
    d_model=32,
    n_heads=4,
    n_kv_heads=2,
    d_ff=48,
    depth_d_model=24,
    depth_n_layers=1,
    depth_n_heads=3,
    depth_n_kv_heads=1,
    depth_d_ff=40,
    num_codebooks=CODEBOOKS,
    codebook_size=CODES,
    max_context=128,
    text="bytes",
    text_vocab_size=388,
)
LORA = LoRAConfig(rank=3, alpha=6.0)


def small_model(config: CSMConfig = SMALL) -> CSMModel:
    torch.manual_seed(0)
    return CSMModel(config).eval()


def adapted(config: LoRAConfig = LORA) -> CSMModel:
    """A model whose adapters do something."""
    model = small_model()
    add_adapters(model, config)
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            parameter.data = 0.1 * torch.randn(parameter.shape)
    return model


def rows(model: CSMModel) -> RowBatch:
    builder = model.new_rows()
    builder.begin_sequence()
    codes = torch.randint(0, CODES, (CODEBOOKS, 6), generator=torch.Generator().manual_seed(1))
    builder.add_spoken(TurnFrames("a", "hello", 0, codes))
    return builder.build()


def logits(model: CSMModel) -> list[torch.Tensor]:
    with torch.no_grad():
        output = model.logits(rows(model))
    assert output.codebook0 is not None and output.depth is not None
    return [output.codebook0, output.depth]


def test_new_adapters_change_nothing() -> None:
    model = small_model()
    before = logits(model)
    layers = add_adapters(model, LORA)
    assert len(layers) == 7 * 3 and all(isinstance(model.get_submodule(name), LoRALinear) for name in layers)
    assert all(torch.equal(a, b) for a, b in zip(before, logits(model), strict=True))


def test_adapters_compute_what_the_merged_model_computes() -> None:
    model = adapted(replace(LORA, targets=(*LORA.targets, "codebook0_head", "depth_decoder.projection")))
    merged = CSMModel(SMALL).eval()
    merged.load_state_dict(merged_state(model.state_dict(), LORA))
    changed = logits(merged)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(changed, logits(model), strict=True))
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(changed, logits(small_model()), strict=True))


def test_the_gradient_reaches_every_adapter_and_no_frozen_weight() -> None:
    model = adapted()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_adapter(name))
    output = model.logits(rows(model))
    (output.codebook0.square().sum() + output.depth.square().sum()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == is_adapter(name), name


def test_targets_are_found_by_their_end_or_whole_and_added_parts_take_none() -> None:
    def layers(**fields: tuple[str, ...]) -> list[str]:
        return add_adapters(small_model(), LoRAConfig(**fields))

    assert layers(targets=("q_proj",), inside=("backbone",)) == [
        "backbone.blocks.0.attention.q_proj",
        "backbone.blocks.1.attention.q_proj",
    ]
    assert layers(targets=("attention.o_proj",), inside=("depth_decoder",)) == [
        "depth_decoder.blocks.0.attention.o_proj"
    ]
    assert layers(targets=("codebook0_head",)) == ["codebook0_head"]


@pytest.mark.parametrize("target", ["query", "backbone.voice_reads.1.q_proj", "norm", "text_embedding"])
def test_a_target_that_matches_nothing_is_refused_by_name(target: str) -> None:
    with pytest.raises(
        ValueError, match=rf"LoRA target '{target}' matches no linear layer .* some of .*q_proj"
    ):
        add_adapters(small_model(), LoRAConfig(targets=("q_proj", target)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"targets": ()}, "at least one name"),
    ],
)
def test_sizes_out_of_range_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoRAConfig(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["csm", "transformers", "sesame"])
def test_a_saved_adapter_merges_into_the_model_in_any_layout(tmp_path: Path, layout: str) -> None:
    base, model = small_model(), adapted()
    for name, parameter in base.named_parameters():
        if name.endswith("gate"):
            parameter.data.zero_()
    base.save_pretrained(tmp_path / "base", layout)  # type: ignore[arg-type]
    save_adapter(tmp_path / "adapter", model.state_dict(), LORA, base="base")
    stored = merge(checkpoints.read(tmp_path / "base"), tmp_path / "adapter")
    expected = merged_state(model.state_dict(), LORA)
    for name, value in expected.items():
        if ".blocks." in name or name == "codebook0_head.weight":
            assert torch.allclose(stored.weights[name].read(), value, atol=1e-6), name


def test_parts_trained_whole_go_along_with_the_adapter(tmp_path: Path) -> None:
    base, model = small_model(), adapted()
    base.save_pretrained(tmp_path / "base")
    gate = "backbone.voice_reads.1.gate"
    state = {**model.state_dict(), gate: torch.full((1,), 0.7)}
    save_adapter(tmp_path / "adapter", state, LORA, base="base", whole=[gate])
    assert all(map(is_adapter, load_file(tmp_path / "adapter" / ADAPTER_WEIGHTS)))
    stored = merge(checkpoints.read(tmp_path / "base"), tmp_path / "adapter")
    assert float(stored.weights[gate].read()) == pytest.approx(0.7)
    save_adapter(tmp_path / "adapter", state, LORA, base="base")
    assert float(merge(checkpoints.read(tmp_path / "base"), tmp_path / "adapter").weights[gate].read()) == 0.0


def test_merging_keeps_the_dtype_of_the_model(tmp_path: Path) -> None:
    small_model().to(torch.bfloat16).save_pretrained(tmp_path / "base")
    save_adapter(tmp_path / "adapter", adapted().state_dict(), LORA, base="base")
    stored = merge(checkpoints.read(tmp_path / "base"), tmp_path / "adapter")
    assert {weight.read().dtype for weight in stored.weights.values()} == {torch.bfloat16}


def test_an_adapter_that_does_not_fit_lists_what_is_wrong(tmp_path: Path) -> None:
    small_model().save_pretrained(tmp_path / "base")
    stored = checkpoints.read(tmp_path / "base")
    folder = tmp_path / "adapter"
    with pytest.raises(ValueError, match="no adapter in"):
        merge(stored, folder)
    save_adapter(folder, adapted().state_dict(), LORA, base="base")
    weights = load_file(folder / ADAPTER_WEIGHTS)
    first = "base_model.model.backbone_model.layers.0.self_attn.q_proj"
    broken = {**weights, "base_model.model.nowhere.lora_A.weight": torch.zeros(3, 32)}
    broken[f"{first}.lora_A.weight"] = torch.zeros(3, 31)
    save_file(broken, folder / ADAPTER_WEIGHTS)
    with pytest.raises(ValueError) as caught:
        merge(stored, folder)
    for part in ("nowhere.lora_A.weight belongs to no layer", "[32, 3] x [3, 31], the layer of [32, 32]"):
        assert part in str(caught.value)
    save_file(weights, folder / ADAPTER_WEIGHTS)
    described = json.loads((folder / ADAPTER_CONFIG).read_text())
    for field, value in (("use_dora", True), ("rank_pattern", {"q_proj": 8}), ("peft_type", "IA3"), ("r", 0)):
        (folder / ADAPTER_CONFIG).write_text(json.dumps({**described, field: value}))
        with pytest.raises(ValueError, match="expected a plain LoRA"):
            merge(stored, folder)
    (folder / ADAPTER_CONFIG).write_text("{}")
    with pytest.raises(ValueError, match="is no LoRA configuration of peft"):
        merge(stored, folder)


@pytest.fixture(scope="module")
def csm_1b_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("peft", reason="peft is not installed: it is for these tests alone")
    pytest.importorskip("transformers")
    return write_csm_1b(tmp_path_factory.mktemp("csm") / "csm-1b")


def test_peft_puts_our_adapter_where_ours_is_and_computes_the_same(
    csm_1b_folder: Path, tmp_path: Path
) -> None:
    import peft
    import transformers

    ours = CSMModel.from_pretrained(csm_1b_folder)
    config = replace(LORA, targets=(*LORA.targets, "codebook0_head", "depth_decoder.projection"))
    layers = add_adapters(ours, config)
    for name, parameter in ours.named_parameters():
        if is_adapter(name):
            parameter.data = 0.1 * torch.randn(parameter.shape)
    save_adapter(tmp_path, ours.state_dict(), config, base=str(csm_1b_folder))
    base = transformers.CsmForConditionalGeneration.from_pretrained(csm_1b_folder).eval()
    theirs = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    found = peft.get_peft_model_state_dict(theirs, save_embedding_layers=False)
    written = load_file(tmp_path / ADAPTER_WEIGHTS)
    assert found.keys() == written.keys() and len(found) == 2 * len(layers)
    assert all(torch.equal(found[name], written[name]) for name in written)
    batch = rows(ours)
    with torch.no_grad():
        hidden = ours.hidden_rows(batch)
        inputs = ours.embed_rows(batch.text, batch.codes)[None]
        backbone = theirs.base_model.model.backbone_model(inputs_embeds=inputs).last_hidden_state[0]
    assert torch.allclose(hidden, backbone, atol=1e-5)
    before = base.codec_model.state_dict()
    assert not any("lora" in name for name in before), "Mimi's own layers have the same ends"


def test_an_adapter_of_peft_merges_here_as_it_does_there(csm_1b_folder: Path, tmp_path: Path) -> None:
    import peft
    import transformers

    for rslora in (False, True):
        base = transformers.CsmForConditionalGeneration.from_pretrained(csm_1b_folder)
        targets = r"(backbone_model|depth_decoder\.model)\.layers\.\d+\.self_attn\.(q|v)_proj"
        config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=targets, use_rslora=rslora)
        theirs = peft.get_peft_model(base, config)
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter.data = 0.1 * torch.randn(parameter.shape)
        folder = tmp_path / str(rslora)
        theirs.save_pretrained(folder)
        stored = merge(checkpoints.read(csm_1b_folder), folder)
        merged = theirs.merge_and_unload().state_dict()
        for index in range(3):
            value = merged[f"backbone_model.layers.{index}.self_attn.q_proj.weight"]
            assert torch.allclose(
                stored.weights[f"backbone.blocks.{index}.attention.q_proj.weight"].read(), value, atol=1e-6
            )
