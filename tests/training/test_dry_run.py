"""What a training would take, against what engines hold and autograd keeps."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from csm.data.dataset import DatasetConfig
from csm.model import CSMModel
from csm.network.execution import ExecutionConfig
from csm.network.layers import PackedSequences, TransformerBlock
from csm.network.model_config import CSMConfig, TransformerShape
from csm.network.presets import csm_1b
from csm.recipes.named import finetune_csm_1b
from csm.training.distributed import DistributedContext
from csm.training.dry_run import (
    CARDS,
    GPUS,
    Counts,
    activation_bytes,
    block_bytes,
    count_parameters,
    dry_run,
    fit_lines,
    memory,
)
from csm.training.engine import DeepSpeedEngine
from csm.training.finetuning import FinetuneConfig, without_idle_layers
from csm.training.options import TrainingConfig
from csm.training.plain_engine import PlainEngine

ALONE = DistributedContext(rank=0, size=1, local_size=1, device=torch.device("cpu"))
RUN = finetune_csm_1b()


def lines(**changes: object) -> list[str]:
    return dry_run(RUN.model, RUN.finetune, RUN.data, replace(RUN.training, **changes), ExecutionConfig())


def test_csm_1b_is_counted_exactly_without_a_weight() -> None:
    counts = count_parameters(csm_1b(), RUN.finetune)
    assert counts.trained == 1_552_791_552 and counts.all > counts.trained
    # Linear layers: everything but tables, norms, gates and biases.
    assert counts.linear < counts.all - 262_668_288 - 134_414_336
    # The largest trained parameter is the text table, of 128,256 x 2048.
    assert counts.bucket == 262_668_288
    adapters = count_parameters(csm_1b(), FinetuneConfig(train=("lora",)))
    # rank 16 x (in + out) of q, k, v, o, gate, up, down, 16 backbone and 4 depth layers.
    backbone = 16 * 16 * (2 * 4096 + 2 * (2048 + 512) + 3 * (2048 + 8192))
    depth = 4 * 16 * (2 * 2048 + 2 * (1024 + 256) + 3 * (1024 + 8192))
    assert adapters.trained == backbone + depth
    assert adapters.all - adapters.trained == counts.all


def test_layers_that_are_left_out_of_the_training_are_left_out_of_the_count() -> None:
    idle = without_idle_layers(RUN.model, RUN.finetune)
    assert count_parameters(idle, RUN.finetune).trained == 1_552_791_552
    assert count_parameters(idle, RUN.finetune).all < count_parameters(RUN.model, RUN.finetune).all


def test_every_number_of_gpus_and_stage_has_a_line_that_adds_up() -> None:
    table = [line.split() for line in lines(offload="none") if re.match(r"^ +\d+ +\d\*? +\d", line)]
    assert [(int(row[0]), int(row[1][0])) for row in table] == [(g, s) for g in GPUS for s in range(4)]
    for row in table:
        parts = [float(value) for value in row[2:6]]
        assert float(row[6]) == pytest.approx(sum(parts), abs=0.03) and float(row[7]) == 0
    assert {row[8] for row in table if int(row[0]) <= 8} == {"8", "4", "2", "1"}
    assert {row[8] for row in table if int(row[0]) > 8} == {"-"}


def test_the_first_lines_say_which_card_is_enough() -> None:
    """Just above and just below what is needed, with what is not counted."""
    for number, card in enumerate(CARDS):
        enough = (card * 1e9 - 1e9) / 1.05
        for more, answer in ((-1e7, "yes"), (1e7, "no")):
            counts = Counts(all=0, trained=0, linear=0, bucket=0)
            line = fit_lines(counts, TrainingConfig(), enough + more)[number]
            assert line.startswith(f"fits a card of {card} GB: {answer}, {card + more * 1.05e-9:.1f} GB")
    large = Counts(all=3 * 10**9, trained=3 * 10**9, linear=0, bucket=5 * 10**7)
    small, _, big = fit_lines(large, TrainingConfig(zero_stage=2), 0.0)
    assert "24 GB: no, " in small and small.endswith("4 of them are enough with training.zero_stage=3")
    fewer = [memory(large, TrainingConfig(), gpus, stage, 0.0).gpu for gpus in (1, 2) for stage in range(4)]
    assert min(fewer) > 24e9 / 1.05 - 1e9
    assert "80 GB: yes" in big
    assert fit_lines(large, TrainingConfig(), 1e12)[0].endswith("lower data.rows_per_micro_batch")
    assert all(line.startswith("fits a card of") for line in lines()[:3])


def test_memory_falls_with_gpus_where_a_stage_cuts_and_with_the_stage() -> None:
    counts = Counts(all=10**9, trained=10**9, linear=6 * 10**8, bucket=5 * 10**7)
    config = TrainingConfig()
    assert len({memory(counts, config, gpus, 0, 0.0) for gpus in GPUS}) == 1
    for stage in (1, 2, 3):
        totals = [memory(counts, config, gpus, stage, 0.0).gpu for gpus in GPUS]
        assert totals == sorted(totals, reverse=True) and totals[-1] < totals[0]
    at_64 = [memory(counts, config, 64, stage, 0.0).gpu for stage in (0, 1, 2)]
    assert at_64 == sorted(at_64, reverse=True)
    three = memory(counts, replace(config, zero_stage=3), 8, 3, 7.0)
    assert three.parameters == 4e9 / 8 + 4e9 and three.optimizer == 12e9 / 8 and three.activations == 7.0


def test_what_is_offloaded_is_on_the_host_and_nowhere_else() -> None:
    counts = Counts(all=10**9, trained=10**8, linear=6 * 10**8, bucket=5 * 10**7)
    plain = memory(counts, TrainingConfig(zero_stage=3), 4, 3, 0.0)
    for offload, moved in (("optimizer", 16e8 / 4), ("all", 16e8 / 4 + 4e9 / 4)):
        need = memory(counts, TrainingConfig(zero_stage=3, offload=offload), 4, 3, 0.0)
        # Gradients are on the host twice: summed over micro-batches, and as the optimizer takes them.
        assert need.host == moved + 4e8 / 4 and need.optimizer == 0
        assert plain.gpu - need.gpu == pytest.approx(moved)


def test_the_batch_is_the_recipe_s() -> None:
    text = "\n".join(lines())
    assert "8 micro-batches of up to 2,048 rows = up to 16,384 rows" in text and "21.8 minutes" in text
    assert "up to 128 a micro-batch, 1,024 a step" in text
    assert "8 / P micro-batches" in text and "shared by 1, 2, 4, 8 GPUs" in text
    assert "shared by 1, 2, 4, 8, 16, 32, 64 GPUs" in "\n".join(lines(micro_batches=64))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_an_engine_holds_what_is_said(stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("deepspeed")
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("RANK", "0"), ("WORLD_SIZE", "1")):
        monkeypatch.setenv(name, value)
    model = CSMModel(
        CSMConfig(d_model=64, n_layers=2, n_heads=4, depth_d_model=32, num_codebooks=4, semantic_codebooks=1)
    )
    training = TrainingConfig(zero_stage=stage, micro_batches=1, ema_decay=0.9)
    counts = count_parameters(model.config, FinetuneConfig())
    engine = DeepSpeedEngine("model", model, training, ALONE)
    fragments = engine.fragments()
    held = {slot: 4 * sum(f.slots[slot].numel() for f in fragments) for slot in fragments[0].slots}
    need = memory(counts, training, 1, stage, 0.0)
    master = 4 * counts.trained if stage else 0
    assert held["exp_avg"] + held["exp_avg_sq"] + held["average"] + master == need.optimizer
    flats = {flat.untyped_storage().data_ptr() for flat in engine._flat_parameters()}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    if stage in (1, 2):
        assert not flats & weights, "the weights that are updated are a second copy"
    config = engine.engine.config["zero_optimization"]
    assert config["reduce_bucket_size"] == counts.bucket


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("sizes", [(64, 4, 4, 192), (128, 8, 2, 256), (96, 6, 3, 512)])
def test_a_block_keeps_what_is_said_for_its_backward_pass(precision: str, sizes: tuple[int, ...]) -> None:
    width, heads, kv_heads, hidden = sizes
    shape = TransformerShape(1, width, heads, kv_heads, hidden)
    block = TransformerBlock(shape, base=1e4)
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in block.parameters()}
    casts = {p.numel() for p in block.parameters() if p.ndim == 2}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # Weights and their bf16 casts are counted with the parameters.
        if storage.data_ptr() not in weights and storage.nbytes() // 2 not in casts:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    rows = 211
    x = torch.randn(rows, width, requires_grad=True)
    attend = PackedSequences.of(torch.tensor([0, rows], dtype=torch.int32), rows)
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
    ):
        out = block(x, block.rotation(torch.arange(rows)), attend, 0)
    assert out.requires_grad
    assert sum(kept.values()) == pytest.approx(rows * block_bytes(shape, precision), rel=0.05)


def test_activations_grow_with_rows_share_and_precision() -> None:
    data = DatasetConfig(rows_per_micro_batch=2048, max_rows=2048, depth_share=1 / 16, transcribe_share=0.0)
    plain, recomputed = ExecutionConfig(), ExecutionConfig(checkpoint_layers=True)
    base = activation_bytes(csm_1b(), data, "bf16", plain)
    longer, all_frames = replace(data, rows_per_micro_batch=4096), replace(data, depth_share=1.0)
    assert 1.6 * base < activation_bytes(csm_1b(), longer, "bf16", plain) < 2 * base
    assert activation_bytes(csm_1b(), all_frames, "bf16", plain) > 2 * base
    assert activation_bytes(csm_1b(), data, "fp32", plain) > 1.5 * base
    assert activation_bytes(csm_1b(), data, "bf16", recomputed) < base / 2


def test_the_plain_engine_is_stage_0_without_deepspeed() -> None:
    model = CSMModel(
        CSMConfig(d_model=32, n_layers=1, n_heads=2, depth_d_model=16, num_codebooks=4, semantic_codebooks=1)
    )
    engine = PlainEngine("model", model, TrainingConfig(micro_batches=1), ALONE)
    held = sum(slot.nbytes for f in engine.fragments() for slot in f.slots.values())
    counts = count_parameters(model.config, FinetuneConfig())
    need = memory(counts, TrainingConfig(), 1, 0, 0.0)
    assert held == need.parameters + need.optimizer


def test_nothing_is_read_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert lines() and not [*tmp_path.iterdir()]
