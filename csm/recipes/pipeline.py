"""The steps of a whole run, one function each; `launch/` parses arguments and calls them.

A run's folder holds the model's own files (config.json, model.safetensors, run.json, metrics.jsonl),
tokenizer/ with the tokenizer's, codes/ with the encoded corpus and speech/ with what the model has said. A
step that finds its work done says so and changes nothing.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from csm import config as config_files
from csm.data.code_shards import (
    VECTORS_NAME,
    EncodedTurn,
    aligned_text,
    read_alignment,
    read_code_shards,
    read_code_vectors,
    read_index,
    version_id,
    write_alignment,
    write_code_shards,
    write_code_vectors,
)
from csm.data.dataset import ConversationDataset
from csm.data.forced_alignment import align_corpus
from csm.data.manifest import Corpus, read_corpus
from csm.data.speakers import speaker_numbers
from csm.data.utterances import UtteranceDataset, one_thread
from csm.generation.corpus_voices import CorpusVoices
from csm.generation.sampling import SamplingConfig
from csm.generation.speech_folder import write_speech_folder
from csm.generation.talker import PACKAGED, Talker
from csm.generation.voices import known_numbers
from csm.model import CSMModel
from csm.network.code_embedding_init import start_from_code_vectors
from csm.network.execution import apply_execution
from csm.network.io.adapters import merged_state, save_adapter
from csm.network.io.checkpoints import on_meta
from csm.network.lora import is_adapter
from csm.network.model_config import CSMConfig
from csm.recipes.encoding import encoded_turns, open_tokenizer, sha256_of_weights
from csm.recipes.run_config import RunConfig
from csm.text import ByteCodec, text_codec
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.mimi import MimiTokenizer
from csm.tokenizer.usage import codebook_statistics
from csm.training.checkpoint import sha256_of, write_atomically
from csm.training.finetuning import load_for_training, make_trainable, require_fit, without_idle_layers
from csm.training.loop import train
from csm.training.model_task import ModelTask
from csm.training.reproducibility import seed_everything
from csm.training.run_folder import is_complete, require_same_run
from csm.training.teacher import Teacher, require_teacher
from csm.training.tokenizer_task import TokenizerTask
from csm.training.world import World, start_world

PRETRAINED_FILES = ("config.json", "model.safetensors")
# Of a run that trained adapters: they alone, beside the merged model.
ADAPTER = "adapter"


def train_tokenizer(run: RunConfig, output: Path, device: torch.device) -> Path:
    """Trains the tokenizer of a recipe; leaves config.json and model.safetensors in `output`.

    Raises:
        ValueError: No corpus or teacher, or `output` belongs to another run.
    """
    # Only what makes a tokenizer: the same one serves runs whose models differ.
    parts = ["corpus", "utterances", "tokenizer", "tokenizer_loss"]
    parts += ["tokenizer_start", "tokenizer_frozen"]
    parts += ["teacher", "teacher_features"]
    resolved = described(run)
    description = {"recipe": run.recipe, "run": {part: resolved[part] for part in parts if part in resolved}}
    require_same_run(output, description, run.tokenizer_training)
    world = start_world(device.type)
    if _is_finished(output, world):
        return output
    if run.teacher:
        require_teachable(run)
    corpus = read_corpus(run.corpus)
    tokenizer = start_tokenizer(run)
    dataset = partial(
        UtteranceDataset,
        corpus,
        sample_rate=tokenizer.config.sample_rate,
        samples_per_frame=tokenizer.config.samples_per_frame,
        config=run.utterances,
        seed=run.tokenizer_training.seed,
        shards=run.tokenizer_training.shards,
    )
    task = TokenizerTask(
        tokenizer,
        dataset("train"),
        dataset("validation"),
        run.tokenizer_loss,
        initialise=run.tokenizer_start == "scratch",
        decoder_only=run.tokenizer_frozen,
        device=world.device,
        teacher=start_teacher(run, tokenizer) if run.teacher else None,
    )
    train(task, run.tokenizer_training, output, run_description=description, device=device.type)
    if world.rank == 0:
        # A new one: ZeRO-3 has cut the trained one's weights into pieces.
        trained = ConversationalRVQ(tokenizer.config)
        trained.load_state_dict(
            load_module_weights(output / "weights_tokenizer.safetensors", prefix="tokenizer.")
        )
        if not run.tokenizer_frozen:
            say("fitting the codebooks to the finished encoder")
            task.refit(trained)
        save_whole(trained, output)
    world.barrier()
    return output


def start_tokenizer(run: RunConfig) -> ConversationalRVQ:
    """The tokenizer a recipe starts from."""
    seed_everything(run.tokenizer_training.seed, "tokenizer")
    if run.tokenizer_start == "scratch":
        return ConversationalRVQ(run.tokenizer)
    folder = _start_folder(run.tokenizer_start, "tokenizer")
    return ConversationalRVQ.from_pretrained(folder)


def described(run: RunConfig) -> dict[str, Any]:
    """The configuration as run.json keeps it, nothing of a teacher where there is none.

    So a run that began before there were teachers goes on.
    """
    resolved = config_files.to_dict(run)
    if not run.teacher:
        del resolved["teacher"], resolved["teacher_features"], resolved["tokenizer_loss"]["distillation"]
    return resolved


def require_teachable(run: RunConfig) -> None:
    """Looks at the teacher and at what it is to teach before anything is loaded.

    Raises:
        ValueError: No teacher there, or one for a tokenizer whose codes stay as they are.
    """
    if run.tokenizer_frozen:
        raise ValueError(
            "tokenizer_frozen keeps the codes as they are, so a teacher can teach nothing: leave the teacher "
            "out, or train the whole tokenizer with --set tokenizer_frozen=false"
        )
    require_teacher(run.teacher)


def start_teacher(run: RunConfig, tokenizer: ConversationalRVQ) -> Teacher:
    """The teacher of a recipe, at the tokenizer's rates."""
    return Teacher.from_pretrained(
        run.teacher,
        sample_rate=tokenizer.config.sample_rate,
        frame_rate=tokenizer.config.frame_rate,
        config=run.teacher_features,
    )


def start_model(run: RunConfig) -> CSMModel:
    """The model a recipe starts from, what it does not train frozen.

    Raises:
        ValueError: The folder holds no model or one of other sizes, or nothing of it is trained.
    """
    seed_everything(run.training.seed, "model")
    if run.model_start == "scratch":
        model = CSMModel(run.model)
    else:
        folder = _start_folder(run.model_start, "voice")
        model = load_for_training(folder, run.model, run.finetune)
    make_trainable(model, run.finetune)
    return model


def numbers_of_speakers(run: RunConfig, corpus: Corpus) -> dict[str, int]:
    """The model's number of every speaker of a corpus: those of a voice that the run starts from stay."""
    known: dict[str, int] = {}
    if run.model_start != "scratch":
        known = known_numbers(_start_folder(run.model_start, "voice"))
    return speaker_numbers(corpus.speakers(), known)


def trained_shape(run: RunConfig) -> CSMConfig:
    """What `start_model` makes, without a look at files: a folder is taken to be of a public layout."""
    return run.model if run.model_start == "scratch" else without_idle_layers(run.model, run.finetune)


def load_module_weights(path: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file whose names start with `prefix`, without it."""
    from safetensors.torch import load_file

    return {k[len(prefix) :]: v for k, v in load_file(path).items() if k.startswith(prefix)}


@torch.no_grad()
def encode_corpus(run: RunConfig, tokenizer_folder: Path, output: Path, device: torch.device) -> int:
    """Encodes every turn of the recipe's corpus to code shards; returns how many. Finished shards are kept.

    Raises:
        ValueError: No corpus or tokenizer, or `output` holds codes of another corpus or tokenizer.
    """
    corpus = read_corpus(run.corpus)
    turns = corpus.turns()
    versions = run.data.versions
    names = {turn.id for turn in turns}
    names |= {version_id(turn.id, v) for turn in corpus.turns("train") for v in range(versions)}
    tokenizer = open_tokenizer(tokenizer_folder, run.model.num_codebooks).to(device)
    description = {
        "corpus": corpus.info.get("name", str(corpus.root)),
        "tokenizer_sha256": sha256_of_weights(tokenizer_folder),
        "speeds": list(run.data.speeds),
    }
    if (found := read_index(output)) is not None:
        there = found["turns"]
        assert isinstance(there, dict)
        found.setdefault("speeds", [1.0])  # of codes that were made when there was no other
        differing = [name for name, value in description.items() if found.get(name) != value]
        differing += ["turns"] if set(there) != names else []
        if differing:
            raise ValueError(
                f"{output} holds codes of another run: {', '.join(differing)} differ; choose another "
                f"--output, or delete it if no model needs it"
            )
    if found is None:
        write_code_shards(output, encoded_turns(corpus, tokenizer, versions, run.data.speeds), description)
    codec = text_codec(run.model.text, run.model.max_speakers)
    aligned = not isinstance(codec, ByteCodec) or aligned_text(output) == run.model.text
    if isinstance(codec, ByteCodec) and not aligned:
        with one_thread():
            ends = align_corpus(corpus, tokenizer.config.sample_rate, codec)
        rate = tokenizer.config.frame_rate
        write_alignment(output, {turn: seconds * rate for turn, seconds in ends.items()}, run.model.text)
    described = (output / VECTORS_NAME).is_file() and (tokenizer_folder / "codebooks.json").is_file()
    if found is not None and aligned and (described or isinstance(tokenizer, MimiTokenizer)):
        say(f"{output}: this corpus is encoded ({len(turns)} turns); nothing to do")
    elif isinstance(tokenizer, ConversationalRVQ):
        write_code_vectors(output, tokenizer.code_vectors()[: run.model.num_codebooks].cpu())
        codes = torch.cat([turn.codes.long() for turn in read_code_shards(output).values()], dim=1)
        report = json.dumps(codebook_statistics(codes.unsqueeze(0), tokenizer.config.codebook_size))
        write_atomically(tokenizer_folder / "codebooks.json", f"{report}\n".encode())
    return len(turns)


def train_model(run: RunConfig, codes: Path, output: Path, device: torch.device) -> Path:
    """Trains the model of a recipe on encoded conversations; leaves config.json and model.safetensors.

    Adapters are merged into these and also left alone in adapter/, in peft's format.

    Raises:
        ValueError: No corpus or codes, some that do not fit the model, or `output` belongs to another run.
    """
    description = {"recipe": run.recipe, "run": described(run)}
    require_same_run(output, description, run.training)
    world = start_world(device.type)
    if _is_finished(output, world):
        return output
    corpus, encoded = read_corpus(run.corpus), read_code_shards(codes)
    model = start_model(run)
    require_fit(corpus, encoded, model, run.data, numbers_of_speakers(run, corpus))
    vectors = read_code_vectors(codes)
    if run.model_start == "scratch" and vectors is not None:
        start_from_code_vectors(model, vectors)
    # Asked now: ZeRO-3 changes the parameters.
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    apply_execution(model, run.execution, zero_stage=run.training.zero_stage)
    if not corpus.turns("validation") and world.rank == 0:
        say(f"{corpus.root} has no validation turns: the validation loss is that of training turns")
    task = model_task(run, model, (corpus, encoded), codes, world.device)
    train(task, run.training, output, run_description=description, device=device.type)
    if world.rank == 0:
        state = load_module_weights(output / "weights_model.safetensors")
        if run.finetune.adapts:
            whole = [name for name in trained if not is_adapter(name)]
            save_adapter(output / ADAPTER, state, run.finetune.lora, base=run.model_start, whole=whole)
            state = merged_state(state, run.finetune.lora)
        finished = on_meta(CSMModel, model.config)
        finished.load_state_dict(state, assign=True)
        if finished.predicted_latent is not None:
            finished.predicted_latent.set_variance_restoration(task.variance_restoration(finished))
        if "pace_head.pace.bias" in trained and not run.finetune.adapts:
            finished.subtract_length_bias(*task.length_errors(finished))
        save_whole(finished, output)
    world.barrier()
    return output


def model_task(
    run: RunConfig,
    model: CSMModel,
    material: tuple[Corpus, dict[str, EncodedTurn]],
    codes: Path,
    device: torch.device,
) -> ModelTask:
    """What a recipe trains a model on: its losses on a corpus and the turns' codes.

    Args:
        run, model: Recipe and model.
        material: The corpus, and `read_code_shards(codes)`.
        codes: Where alignment and code vectors lie, if there are any.
        device: Where validation runs.

    Raises:
        ValueError: Codes that do not fit the model, or an alignment of another text codec.
    """
    corpus, encoded = material
    dataset = partial(
        ConversationDataset,
        corpus,
        encoded,
        codec=model.codec,
        num_codebooks=model.config.num_codebooks,
        end_code=model.config.end_code,
        config=run.data,
        seed=run.training.seed,
        speakers=numbers_of_speakers(run, corpus),
        ends=read_alignment(codes, model.config.text) if isinstance(model.codec, ByteCodec) else None,
    )
    # Few recordings of one's own may all be for training: the split is drawn by their names.
    watched = "validation" if corpus.turns("validation") else "train"
    return ModelTask(
        model,
        dataset("train", shards=run.training.shards),
        dataset(watched, shards=1),
        run.loss,
        device=device,
        vectors=read_code_vectors(codes),
    )


def load_run(folder: Path) -> RunConfig:
    """The configuration that a model run was trained with.

    Raises:
        ValueError: No run there.
    """
    path = folder / "run.json"
    if not path.is_file():
        raise ValueError(
            f"no run in {folder} (run.json expected): train one with launch/train.py --output {folder}"
        )
    return config_files.from_dict(RunConfig, json.loads(path.read_text(encoding="utf-8"))["config"]["run"])


def trained_talker(
    folder: Path,
    device: torch.device,
    *,
    sampling: SamplingConfig | None = None,
    corpus: Path | None = None,
    all_voices: bool = False,
) -> Talker:
    """Returns the trained model of a run folder with its tokenizer and a voice for each trained speaker.

    Args:
        folder: Folder of a finished model run, with tokenizer/ and codes/ in it.
        device: Device of model and tokenizer.
        sampling: Sampling settings; None takes the recipe's.
        corpus: Folder of the corpus; None takes the recipe's.
        all_voices: Whether all voices are computed now, with a progress bar, instead of when they are first
            used.

    Raises:
        ValueError: The run is not finished, or something of it is missing; says what makes it.
    """
    run = load_run(folder)
    if not (folder / PRETRAINED_FILES[1]).is_file():
        raise ValueError(
            f"the training in {folder} is not finished: the command that began it goes on with it"
        )
    codes, tokenizer_folder = folder / "codes", folder / "tokenizer"
    material, encoded = run_corpus(folder, corpus), read_code_shards(codes)
    tokenizer = ConversationalRVQ.from_pretrained(tokenizer_folder).to(device)
    index = read_index(codes) or {}
    if index.get("tokenizer_sha256") != sha256_of(tokenizer_folder / "model.safetensors"):
        raise ValueError(
            f"{codes} was not made by the tokenizer in {tokenizer_folder}: the voices would not fit"
        )
    numbers = numbers_of_speakers(run, material)
    voices = CorpusVoices(material, encoded, numbers, tokenizer, without=run.data.exclude_speakers)
    return Talker(
        model=CSMModel.from_pretrained(folder).to(device),
        tokenizer=tokenizer,
        voices=voices.computed() if all_voices else voices,
        sampling=sampling or run.sampling,
    )


def run_corpus(folder: Path, corpus: Path | None = None) -> Corpus:
    """Returns the corpus that a run was trained on; `corpus` is its folder if it has moved."""
    return read_corpus(corpus or load_run(folder).corpus)


def speak_lines(folder: Path, talker: Talker, corpus: Corpus, output: Path) -> int:
    """Writes the speech folder of a run, or resumes it; returns the number of new lines and dialogues."""
    origin = {
        "model_sha256": sha256_of(folder / "model.safetensors"),
        "tokenizer_sha256": sha256_of(folder / "tokenizer" / "model.safetensors"),
        "corpus": corpus.info.get("name", str(corpus.root)),
        "sampling": config_files.to_dict(talker.sampling),
    }
    return write_speech_folder(talker, corpus, output, origin, say)


class Pretrained(Protocol):
    """What can be saved for use without training code."""

    def save_pretrained(self, folder: Path | str) -> None: ...


def save_whole(module: Pretrained, folder: Path) -> None:
    """`save_pretrained` whose files appear whole or not at all, the weights last."""
    partial_folder = folder / "pretrained.part"
    module.save_pretrained(partial_folder)
    for path in sorted(partial_folder.iterdir(), key=lambda path: path.name == PRETRAINED_FILES[1]):
        path.replace(folder / path.name)
    partial_folder.rmdir()


def say(line: str) -> None:
    """One line of news, where the progress bars go."""
    print(line, file=sys.stderr, flush=True)


def _is_finished(output: Path, world: World) -> bool:
    if not is_complete(output) or not all((output / name).is_file() for name in PRETRAINED_FILES):
        return False
    if world.rank == 0:
        say(f"{output}: this run is complete; nothing to do")
    return True


def _start_folder(start: str, part: str) -> Path:
    return PACKAGED / part if start == "packaged" else Path(start)
