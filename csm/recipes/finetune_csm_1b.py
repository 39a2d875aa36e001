"""Recipe that fine-tunes csm-1b on own recordings."""

from __future__ import annotations

from csm.data.dataset import DatasetConfig
from csm.generation.sampling import SamplingConfig
from csm.losses import LossConfig
from csm.network.execution import ExecutionConfig
from csm.network.presets import csm_1b
from csm.recipes.run_config import RunConfig
from csm.training.finetuning import FinetuneConfig
from csm.training.options import TrainingConfig


def finetune_csm_1b() -> RunConfig:
    """csm-1b on own recordings, through Mimi: docs/finetune.md.

    Hardware: one GPU of 16 GB, 40 GB of host memory; `--dry-run` estimates 10 GB (14.5 without
    `execution.checkpoint_layers`) and 38 GB.
    Time: unknown; without csm-1b's weights, only random models of its form at a small size ran from end
    to end.

    Needs a folder of csm-1b's weights in transformers' layout, which holds Mimi too. All weights are trained.

    `deepspeed launch/train.py --recipe finetune_csm_1b --set model_start=models/csm-1b --output runs/mine`
    """
    return RunConfig(
        recipe="finetune_csm_1b",
        corpus="corpora/mine",
        model=csm_1b(),
        model_start="models/csm-1b",
        finetune=FinetuneConfig(freeze=("added",)),
        execution=ExecutionConfig(checkpoint_layers=True),
        # csm-1b speaks and does not write, has no memory and no heads but its codes'.
        data=DatasetConfig(
            rows_per_micro_batch=2048, max_rows=2048, depth_share=1 / 16, transcribe_share=0.0, past_turns=0
        ),
        loss=LossConfig(text=0.0, pitch=0.0, voicing=0.0, energy=0.0, duration=0.0),
        training=TrainingConfig(
            steps=500,
            micro_batches=8,
            learning_rate=2e-5,
            betas=(0.9, 0.95),
            warmup_steps=50,
            zero_stage=3,
            offload="all",
            precision="bf16",
            checkpoint_every=250,
            validate_every=50,
            samples=False,
        ),
        sampling=SamplingConfig(temperature=0.9, top_k=50),
    )
