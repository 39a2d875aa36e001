"""Recipes at 24 kHz: a tokenizer whose semantic codes are trained by text, and a voice that transcribes."""

from __future__ import annotations

from dataclasses import replace

from csm.data.corpora.amazon_queen import HELD_OUT_SPEAKERS
from csm.data.dataset import DatasetConfig
from csm.data.utterances import UtteranceConfig
from csm.generation.sampling import SamplingConfig
from csm.losses import LossConfig
from csm.recipes.run_config import RunConfig
from csm.recipes.telephone import TELEPHONE_MODEL, VOICE_TRAINING
from csm.tokenizer import presets
from csm.tokenizer.training.losses import TokenizerLossConfig
from csm.tokenizer.training.semantic_losses import SemanticLossConfig
from csm.training.options import TrainingConfig

CORPORA = "data/amazon_queen,data/synthetic_dialogues"

# The latent of the tokenizer's two halves side by side; letters of transcribed frames; voices from the turns
# before, beside those of 140 names. All codebooks: speech of held-out voices that is decoded from 16 of them
# has distillMOS 2.36, from 32 of them 3.56 (docs/LOG.md).
WIDEBAND_MODEL = replace(
    TELEPHONE_MODEL,
    text="emphasis",
    num_codebooks=32,
    latent_dim=304,
    letters_per_frame=4,
    max_speakers=208,
    local_speakers=4,
)


def wideband_tokenizer() -> RunConfig:
    """A 24 kHz tokenizer from real and synthetic conversations, its semantic half first.

    Hardware: two CPU cores.
    Time: about 1.7 s a step of the semantic half on two cores; of the rest 5 minutes to fit the codebooks and
    0.9 s a step on one, in bf16. The packaged weights have 1,600 steps of the semantic half and 9,000 of the
    decoder alone, at 0.2 s (csm/weights/NOTICE.md).

    `csm train-semantic --recipe wideband_tokenizer --output runs/wideband/semantic`, then
    `csm train-tokenizer --recipe wideband_tokenizer --set semantic_start=runs/wideband/semantic --output
    runs/wideband/tokenizer`. semantic_start=packaged builds on the packaged semantic half instead. The
    decoder alone is trained further by tokenizer_start=FOLDER tokenizer_frozen=true encoder_frozen=false, on
    what a voice predicts with predicting_voice=RUN.
    """
    return RunConfig(
        recipe="wideband_tokenizer",
        corpus=CORPORA,
        tokenizer=presets.wideband(),
        semantic_utterances=UtteranceConfig(
            items=16,
            max_seconds=15.0,
            exclude_speakers=HELD_OUT_SPEAKERS,
            speeds=(0.85, 0.92, 1.0, 1.0, 1.08, 1.15),
            narrow_share=0.4,
        ),
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
        # Codes as a voice predicts them lack detail: the decoder makes up for it.
        tokenizer_loss=TokenizerLossConfig(
            semantic_only=0.2, predicted_share=0.5, quantizer_dropout=0.2, condition_dropout=0.1
        ),
        utterances=UtteranceConfig(items=8, max_seconds=3.0, exclude_speakers=HELD_OUT_SPEAKERS),
        tokenizer_training=TrainingConfig(
            steps=800,
            micro_batches=2,
            learning_rate=8e-4,
            betas=(0.9, 0.99),
            warmup_steps=100,
            final_learning_rate_ratio=0.01,
            ema_decay=0.98,
            precision="bf16",
            checkpoint_every=200,
            validate_every=100,
            log_every=25,
        ),
        model=WIDEBAND_MODEL,
    )


def wideband_model() -> RunConfig:
    """A voice at 24 kHz that also transcribes, from real and synthetic conversations.

    Hardware: two CPU cores.
    Time: 90 minutes on one core for 5,100 steps of 2,000 rows in bf16 (csm/weights/NOTICE.md).

    After `csm encode --recipe wideband_model --tokenizer csm/weights/wideband/tokenizer --output
    runs/wideband/codes` (or with a tokenizer of your own): `csm train --recipe wideband_model --output
    runs/wideband`
    """
    return RunConfig(
        recipe="wideband_model",
        corpus=CORPORA,
        tokenizer=presets.wideband(),
        model=replace(WIDEBAND_MODEL, frame_dropout=0.3),
        data=DatasetConfig(
            rows_per_micro_batch=1000,
            max_rows=450,
            depth_share=0.1,
            transcribe_share=0.3,
            local_speaker_share=0.4,
            time_shifts=3,
            exclude_speakers=HELD_OUT_SPEAKERS,
        ),
        loss=LossConfig(semantic=0.5, acoustic=0.25, latent=5.0, refined=5.0, text=0.25, letters=1.0),
        training=VOICE_TRAINING,
        sampling=SamplingConfig(temperature=0.15, later_codes="nearest", guidance=0.5),
    )
