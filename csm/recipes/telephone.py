"""Recipes of the packaged telephone voice: its tokenizer, its model, and the quickstart from both."""

from __future__ import annotations

from dataclasses import replace

from csm.data.corpora.amazon_queen import HELD_OUT_SPEAKERS
from csm.data.dataset import DatasetConfig
from csm.data.utterances import UtteranceConfig
from csm.generation.sampling import SamplingConfig
from csm.losses import LossConfig
from csm.network.model_config import CSMConfig
from csm.recipes.run_config import RunConfig
from csm.tokenizer import presets
from csm.tokenizer.training.losses import TokenizerLossConfig
from csm.training.options import TrainingConfig

# The packaged tokenizer's sizes and those of a voice for it: at most 15 and 30 MB in half precision.
TELEPHONE_TOKENIZER = presets.quickstart()
TELEPHONE_MODEL = CSMConfig(
    d_model=256,
    n_layers=5,
    n_heads=4,
    depth_d_model=160,
    depth_n_layers=2,
    depth_n_heads=4,
    num_codebooks=16,
    text="phones",
    max_context=1024,
    memory_slots=8,
    depth_inputs="sum",
    latent_dim=256,
    cross_layers=(0, 2, 4),
    cross_window=4,
    dropout=0.1,
)

# How a voice is trained from scratch.
VOICE_TRAINING = TrainingConfig(
    steps=5000,
    micro_batches=2,
    learning_rate=1.5e-3,
    warmup_steps=200,
    weight_decay=0.05,
    ema_decay=0.998,
    checkpoint_every=500,
    validate_every=250,
    log_every=25,
)

# Means lack spread and contrast. Given back, words stay as clear and the sound is less dull (docs/LOG.md).
TELEPHONE_SAMPLING = SamplingConfig(
    temperature=0.15, later_codes="nearest", variance_restoration=0.5, contrast=1.4
)

# Started at the principal components, latents fill all directions: isotropy would take that away. A reversed
# gradient makes codes and losses swing and keeps no speaker out (docs/LOG.md).
TELEPHONE_LOSS = TokenizerLossConfig(
    mel=0.2,
    magnitude=5.0,
    commitment=1.0,
    isotropy=0.0,
    text=0.3,
    reversal=0.0,
    bypass=0.0,
    quantizer_dropout=0.3,
    condition_dropout=0.5,
    decay=0.99,
    revive_below=0.1,
)


def telephone_tokenizer() -> RunConfig:
    """The packaged tokenizer: all speakers of amazon_queen but six, from its principal components on.

    Hardware: two CPU cores.
    Time: 22 minutes (docs/MEASURED.md).

    `deepspeed --num_accelerators 2 launch/train_tokenizer.py --recipe telephone_tokenizer --output
    runs/telephone/tokenizer`
    """
    return RunConfig(
        recipe="telephone_tokenizer",
        corpus="data/amazon_queen",
        tokenizer=TELEPHONE_TOKENIZER,
        tokenizer_loss=TELEPHONE_LOSS,
        utterances=UtteranceConfig(items=8, max_seconds=3.0, exclude_speakers=HELD_OUT_SPEAKERS),
        tokenizer_training=TrainingConfig(
            steps=2600,
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
    )


def telephone_model() -> RunConfig:
    """The packaged voice: all speakers of amazon_queen but six, through the packaged tokenizer.

    Hardware: two CPU cores.
    Time: 79 minutes (docs/MEASURED.md).

    csm/weights/NOTICE.md has the commands before this one:
    `deepspeed --num_accelerators 2 launch/train.py --recipe telephone_model --output runs/voice`
    """
    return RunConfig(
        recipe="telephone_model",
        corpus="data/amazon_queen",
        tokenizer=TELEPHONE_TOKENIZER,
        tokenizer_start="packaged",
        model=replace(TELEPHONE_MODEL, frame_dropout=0.3),
        data=DatasetConfig(
            rows_per_micro_batch=1000,
            max_rows=450,
            depth_share=0.25,
            transcribe_share=0.1,
            time_shifts=6,
            exclude_speakers=HELD_OUT_SPEAKERS,
        ),
        loss=LossConfig(semantic=1.0, acoustic=0.5, latent=5.0, refined=5.0),
        training=VOICE_TRAINING,
        sampling=TELEPHONE_SAMPLING,
    )


def quickstart() -> RunConfig:
    """A voice from the packaged excerpt: `make train`.

    Hardware: two CPU cores, 6 GB of memory.
    Time: 5 minutes.

    The packaged tokenizer's decoder and the packaged voice are fine-tuned on the excerpt's voices; codes keep
    their meaning and speakers their numbers. The Makefile has the commands of every step, of which the first
    is `python launch/train_tokenizer.py --recipe quickstart --output runs/quickstart/tokenizer`.
    """
    return RunConfig(
        recipe="quickstart",
        corpus="data/amazon_queen_excerpt",
        tokenizer=TELEPHONE_TOKENIZER,
        tokenizer_loss=TELEPHONE_LOSS,
        utterances=UtteranceConfig(items=8, max_seconds=3.0, slice_frames=18),
        tokenizer_start="packaged",
        tokenizer_frozen=True,
        tokenizer_training=TrainingConfig(
            steps=150,
            micro_batches=2,
            learning_rate=1e-4,
            betas=(0.9, 0.99),
            warmup_steps=20,
            validate_every=50,
            checkpoint_every=75,
        ),
        model=replace(TELEPHONE_MODEL, dropout=0.15, frame_dropout=0.25),
        data=DatasetConfig(rows_per_micro_batch=600, max_rows=450, depth_share=0.25, transcribe_share=0.1),
        model_start="packaged",
        training=TrainingConfig(
            steps=150,
            micro_batches=2,
            learning_rate=2e-4,
            warmup_steps=20,
            weight_decay=0.05,
            zero_stage=2,
            ema_decay=0.98,
            checkpoint_every=75,
            validate_every=50,
        ),
        sampling=TELEPHONE_SAMPLING,
    )
