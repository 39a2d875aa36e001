"""Recipe of a 24 kHz tokenizer for GPUs."""

from __future__ import annotations

from csm.data.utterances import UtteranceConfig
from csm.network.model_config import CSMConfig
from csm.recipes.run_config import RunConfig
from csm.tokenizer import presets
from csm.tokenizer.training.losses import TokenizerLossConfig
from csm.training.options import TrainingConfig


def speech_24khz() -> RunConfig:
    """A 24 kHz tokenizer of Mimi's class from a folder of own recordings.

    Hardware: one, two or four GPUs, with the same result.
    Time: unknown; no full run has been made.

    The discriminators train after 20,000 steps of spectral losses alone. Utterances wait in memory as 16-bit
    samples, 173 MB an hour.

    `csm prepare --corpus folder --source my_recordings --output corpora/mine`
    `deepspeed launch/train_tokenizer.py --recipe speech_24khz --output runs/speech_24khz/tokenizer`
    """
    return RunConfig(
        recipe="speech_24khz",
        corpus="corpora/mine",
        tokenizer=presets.speech_24khz(),
        tokenizer_loss=TokenizerLossConfig(
            adversarial=1.0, discriminator_share=0.5, adversarial_start=20_000
        ),
        # 4 s and more: the last of what the transformers see, 50 frames, must be trained too.
        utterances=UtteranceConfig(items=16, max_seconds=6.0, slice_frames=18),
        tokenizer_training=TrainingConfig(
            steps=200_000,
            micro_batches=4,
            learning_rate=5e-4,
            betas=(0.8, 0.99),
            warmup_steps=1000,
            ema_decay=0.999,
            precision="bf16",
            checkpoint_every=2000,
            validate_every=2000,
            log_every=100,
        ),
        model=CSMConfig(num_codebooks=32, codebook_size=1024),
    )
