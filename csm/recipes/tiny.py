"""Recipe of the smallest whole run, for tests."""

from __future__ import annotations

from csm.data.dataset import DatasetConfig
from csm.data.utterances import UtteranceConfig
from csm.generation.sampling import SamplingConfig
from csm.network.model_config import CSMConfig
from csm.recipes.run_config import RunConfig
from csm.tokenizer.config import TokenizerConfig
from csm.training.options import TrainingConfig


def tiny() -> RunConfig:
    """Every step of a run at the smallest size, for tests; its corpus is given by `--set corpus=FOLDER`.

    Hardware: one CPU core.
    Time: 1 minute.
    """
    training = TrainingConfig(
        steps=6, micro_batches=2, warmup_steps=2, checkpoint_every=3, validate_every=3, log_every=1
    )
    return RunConfig(
        recipe="tiny",
        corpus="data/tiny",
        tokenizer=TokenizerConfig(
            sample_rate=11_025,
            n_codebooks=4,
            semantic_codebooks=2,
            codebook_size=32,
            codebook_dim=16,
            encoder_widths=(16, 24, 32),
            encoder_depths=(1, 1, 1),
            decoder_widths=(32, 24, 16),
            decoder_depths=(1, 1, 1),
            speaker_dim=8,
            emotion_dim=4,
        ),
        utterances=UtteranceConfig(items=4, max_seconds=1.5, slice_frames=8),
        tokenizer_training=training,
        model=CSMConfig(
            d_model=32,
            n_layers=2,
            n_heads=2,
            depth_d_model=32,
            depth_n_layers=1,
            depth_n_heads=2,
            num_codebooks=4,
            semantic_codebooks=2,
            codebook_size=32,
            max_context=512,
            memory_slots=4,
        ),
        data=DatasetConfig(rows_per_micro_batch=400, max_rows=300),
        training=training,
        sampling=SamplingConfig(temperature=0.9, max_seconds=2.0),
    )
