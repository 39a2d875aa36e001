"""What a frame reads (benchmarks/gpu/generation_roofline.py), counted against the weights themselves."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

from csm.model import CSMModel
from csm.network.model_config import CSMConfig
from csm.network.presets import csm_1b

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks/gpu/generation_roofline.py"
SPEC = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
# Dataclasses look their module up by its name.
roofline = sys.modules[SCRIPT.stem] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(roofline)
frame_traffic, floors_table = roofline.frame_traffic, roofline.floors_table

SMALL = CSMConfig(
    d_model=32, n_layers=2, n_heads=2, n_kv_heads=1, depth_d_model=16, depth_n_layers=1, depth_n_heads=2,
    num_codebooks=4, semantic_codebooks=2, codebook_size=8, cross_layers=(), memory_layers=(),
)  # fmt: skip


def test_every_weight_that_a_frame_meets_is_counted_once():
    model = CSMModel(SMALL)
    parts = (model.backbone, model.codebook0_head, model.depth_decoder)
    traffic = frame_traffic(SMALL, context=0, bytes_per_weight=4)
    assert traffic.once == sum(p.nbytes for part in parts for p in part.parameters())
    assert traffic.streamed == traffic.once + 2 * traffic.depth_layers


def test_a_row_of_context_adds_a_key_and_a_value_per_layer():
    short, long = (frame_traffic(SMALL, context=rows) for rows in (100, 101))
    assert long.once - short.once == 2 * 2 * 2 * 16
    shared = frame_traffic(replace(SMALL, n_kv_heads=2), context=100)
    assert shared.context == 2 * short.context


def test_csm_1b_cannot_be_faster_than_its_weights_can_be_read():
    traffic = frame_traffic(csm_1b(), context=2048)
    # 1.0 and 0.1 thousand million weights besides embeddings, two bytes each.
    assert 1.8e9 < traffic.backbone < 2.6e9 and 0.15e9 < traffic.depth_layers < 0.25e9
    assert traffic.floor_ms(1000, cached=True) < traffic.floor_ms(1000, cached=False)


def test_the_table_has_a_floor_for_every_card():
    rows = [line.split("|")[1:-1] for line in floors_table(csm_1b()).splitlines()[2:]]
    assert len(rows) == len(roofline.BANDWIDTHS) and all(len(row) == 6 for row in rows)
    for _, bandwidth, *floors in rows:
        once, again, *_ = map(float, floors)
        assert once < again < 80 * 300 / float(bandwidth)
