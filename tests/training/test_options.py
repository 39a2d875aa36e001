"""TrainingConfig refuses what cannot be meant, by field and value."""

from __future__ import annotations

import pytest

from csm import config as config_files
from csm.training.options import TrainingConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("micro_batches", 0),
        ("keep_checkpoints", 0),
        ("warmup_steps", -1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("betas", (0.9, 1.0)),
        ("weight_decay", -0.1),
        ("clip", float("inf")),
        ("final_learning_rate_ratio", 1.5),
        ("ema_decay", 1.0),
        ("zero_stage", 4),
        ("precision", "fp16"),
        ("offload", "disk"),
        ("offload", "all"),
    ],
)
def test_a_wrong_option_is_named_with_its_value(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{field} is .*: expected "):
        TrainingConfig(**{field: value})  # type: ignore[arg-type]


def test_options_come_back_from_json_and_take_overrides() -> None:
    config = config_files.override(TrainingConfig(), "betas=0.8,0.95")
    assert config.betas == (0.8, 0.95)
    assert config_files.from_dict(TrainingConfig, config_files.to_dict(config)) == config


@pytest.mark.parametrize(("offload", "stage"), [("optimizer", 1), ("all", 3)])
def test_offloading_needs_a_stage_that_cuts_what_is_offloaded(offload: str, stage: int) -> None:
    assert TrainingConfig(offload=offload, zero_stage=stage).offload == offload  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=f"offload is '{offload}': expected 'none' .*needs stage {stage} or more"
    ):
        TrainingConfig(offload=offload, zero_stage=stage - 1)  # type: ignore[arg-type]
