"""Recipe of the 24 kHz tokenizer whose semantic codes are trained by text."""

from __future__ import annotations

from csm.data.corpora.amazon_queen import HELD_OUT_SPEAKERS
from csm.data.utterances import UtteranceConfig
from csm.network.model_config import CSMConfig
from csm.recipes.run_config import RunConfig
from csm.recipes.telephone import TELEPHONE_LOSS
from csm.tokenizer import presets
from csm.tokenizer.training.semantic_losses import SemanticLossConfig
from csm.training.options import TrainingConfig


def wideband_tokenizer() -> RunConfig:
    """A 24 kHz tokenizer from real and synthetic conversations, its semantic half first.

    Hardware: two CPU cores.
    Time: not measured as a whole yet.

    `csm train-semantic --recipe wideband_tokenizer --output runs/wideband/semantic`, then
    `csm train-tokenizer --recipe wideband_tokenizer --set semantic_start=runs/wideband/semantic --output
    runs/wideband/tokenizer`
    """
    return RunConfig(
        recipe="wideband_tokenizer",
        corpus="data/amazon_queen,data/synthetic_dialogues",
        tokenizer=presets.wideband(),
        semantic_utterances=UtteranceConfig(items=16, max_seconds=15.0, exclude_speakers=HELD_OUT_SPEAKERS),
        semantic_loss=SemanticLossConfig(),
        semantic_training=TrainingConfig(
            steps=4000,
            micro_batches=1,
            learning_rate=1e-3,
            betas=(0.9, 0.98),
            weight_decay=0.01,
            warmup_steps=100,
            final_learning_rate_ratio=0.01,
            precision="bf16",
            checkpoint_every=250,
            validate_every=250,
            log_every=25,
        ),
        tokenizer_loss=TELEPHONE_LOSS,
        utterances=UtteranceConfig(items=8, max_seconds=3.0, exclude_speakers=HELD_OUT_SPEAKERS),
        tokenizer_training=TrainingConfig(
            steps=4000,
            micro_batches=2,
            learning_rate=4e-4,
            betas=(0.9, 0.99),
            warmup_steps=100,
            final_learning_rate_ratio=0.01,
            ema_decay=0.998,
            checkpoint_every=250,
            validate_every=250,
            log_every=25,
        ),
        model=CSMConfig(num_codebooks=32, codebook_size=1024),
    )
