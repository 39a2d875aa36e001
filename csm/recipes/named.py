"""Complete runs as named functions. Each docstring states command, hardware, time and what to expect."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace

from csm.data.corpora.amazon_queen import HELD_OUT_SPEAKERS
from csm.data.dataset import DatasetConfig
from csm.data.utterances import UtteranceConfig
from csm.generation.sampling import SamplingConfig
from csm.losses import LossConfig
from csm.network.execution import ExecutionConfig
from csm.network.model_config import CSMConfig
from csm.network.presets import csm_1b
from csm.recipes.run_config import RunConfig
from csm.tokenizer import presets
from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.training.losses import TokenizerLossConfig
from csm.training.finetuning import FinetuneConfig
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

    22 minutes on two CPU cores (docs/MEASURED.md).

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
            shards=2,
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


def speech_24khz() -> RunConfig:
    """A 24 kHz tokenizer of Mimi's class from a folder of one's own recordings, meant for GPUs.

    Not run to its end where this was written: no time and no figure is known. The judges come in after 20,000
    steps of spectral losses alone. Four shards of 16 utterances give the same result on one, two or four
    GPUs. Utterances wait in memory as 16-bit samples, 173 MB an hour.

    `python launch/prepare_data.py --corpus folder --source my_recordings --output corpora/mine`
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
            shards=4,
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


def telephone_model() -> RunConfig:
    """The packaged voice: the whole amazon_queen corpus but six speakers, through the packaged tokenizer.

    79 minutes on two CPU cores (docs/MEASURED.md); csm/weights/NOTICE.md has the commands before this one.

    `deepspeed --num_accelerators 2 launch/train.py --recipe telephone_model --output runs/voice`
    """
    return RunConfig(
        recipe="telephone_model",
        corpus="data/amazon_queen",
        tokenizer=TELEPHONE_TOKENIZER,
        tokenizer_start="packaged",
        model=replace(TELEPHONE_MODEL, frame_dropout=0.3),
        data=DatasetConfig(
            rows_per_shard=1000,
            max_rows=450,
            depth_share=0.25,
            transcribe_share=0.1,
            versions=6,
            exclude_speakers=HELD_OUT_SPEAKERS,
        ),
        loss=LossConfig(semantic=1.0, acoustic=0.5, latent=5.0, refined=5.0),
        training=TrainingConfig(
            steps=5000,
            shards=2,
            learning_rate=1.5e-3,
            warmup_steps=200,
            weight_decay=0.05,
            ema_decay=0.998,
            checkpoint_every=500,
            validate_every=250,
            log_every=25,
        ),
        sampling=TELEPHONE_SAMPLING,
    )


def quickstart() -> RunConfig:
    """A talking model on two CPU cores in minutes: `make train`, from the excerpt in the package.

    `python launch/train_tokenizer.py --recipe quickstart --output runs/quickstart/tokenizer` and so on, as
    the Makefile has it. The packaged tokenizer's decoder and the packaged voice go on learning on the
    excerpt's voices; codes keep their meaning and speakers their numbers.
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
            shards=2,
            learning_rate=1e-4,
            betas=(0.9, 0.99),
            warmup_steps=20,
            validate_every=50,
            checkpoint_every=75,
        ),
        model=replace(TELEPHONE_MODEL, dropout=0.15, frame_dropout=0.25),
        data=DatasetConfig(rows_per_shard=600, max_rows=450, depth_share=0.25, transcribe_share=0.1),
        model_start="packaged",
        training=TrainingConfig(
            steps=150,
            shards=2,
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


def finetune_csm_1b() -> RunConfig:
    """csm-1b on one's own recordings, through Mimi: docs/finetune.md.

    csm-1b's weights cannot be fetched where this was written, so no figure is known: the way was gone end to
    end by random models of csm-1b's form at small size. Needs a folder of its weights in transformers'
    layout, which holds Mimi too. All of it is trained by default; `--dry-run` estimates 10 GB on one GPU
    (14.5 without `execution.checkpoint_layers`) and 38 GB in the host's memory for it.

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
            rows_per_shard=2048, max_rows=2048, depth_share=1 / 16, transcribe_share=0.0, past_turns=0
        ),
        loss=LossConfig(text=0.0, pitch=0.0, voicing=0.0, energy=0.0, duration=0.0),
        training=TrainingConfig(
            steps=500,
            shards=8,
            learning_rate=2e-5,
            betas=(0.9, 0.95),
            warmup_steps=50,
            zero_stage=3,
            offload="all",
            precision="bf16",
            checkpoint_every=250,
            validate_every=50,
        ),
        sampling=SamplingConfig(temperature=0.9, top_k=50),
    )


def tiny() -> RunConfig:
    """Every step of a run in a minute, for tests: it learns nothing. Its corpus is given by `--set`."""
    training = TrainingConfig(
        steps=6, shards=2, warmup_steps=2, checkpoint_every=3, validate_every=3, log_every=1
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
        data=DatasetConfig(rows_per_shard=400, max_rows=300),
        training=training,
        sampling=SamplingConfig(temperature=0.9, max_seconds=2.0),
    )


RECIPES: dict[str, Callable[[], RunConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        quickstart,
        telephone_tokenizer,
        telephone_model,
        speech_24khz,
        finetune_csm_1b,
        tiny,
    )
}


def recipe(name: str) -> RunConfig:
    """The recipe of this name.

    Raises:
        ValueError: Unknown; lists the names.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown recipe {name!r}{hint} Known: {', '.join(sorted(RECIPES))}")
    return RECIPES[name]()
