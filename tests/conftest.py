"""Tiny random models and turns for the tests of the model, its data, losses and generation."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from jaxtyping import install_import_hook

# Triton decides when a kernel is decorated whether to interpret it: before anything imports triton.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Shapes in signatures are checked in tests, and only there: the hook comes before the first import of csm.
# The doors (ConversationalRVQ, CSMModel, Session) stay out: they refuse wrong shapes themselves, tested too.
SHAPED = [
    *(f"csm.tokenizer.{part}" for part in ("layers", "spectrum", "encoder", "decoder", "quantizer")),
    *(f"csm.tokenizer.{part}" for part in ("codebook", "utterance_encoders", "training.discriminators")),
    *(f"csm.tokenizer.{part}" for part in ("transformer", "phase_recovery", "pitch_steps", "vocoder")),
    *(f"csm.tokenizer.{part}" for part in ("vocoder_features", "feature_encoder", "feature_head")),
    *(f"csm.network.{part}" for part in ("layers", "backbone", "cross_attention", "depth_decoder", "memory")),
    "csm.losses",
    "csm.generation.sampling",
]
install_import_hook(SHAPED, "beartype.beartype")

from csm.data.code_shards import EncodedTurn  # noqa: E402
from csm.data.corpora.amazon_queen import prepare_excerpt  # noqa: E402
from csm.data.dataset import ConversationDataset, DatasetConfig  # noqa: E402
from csm.data.manifest import Conversation, Corpus, Turn  # noqa: E402
from csm.data.turn_table_file import table_of  # noqa: E402
from csm.generation.talker import Talker  # noqa: E402
from csm.losses import LossConfig  # noqa: E402
from csm.model import CSMModel  # noqa: E402
from csm.network.model_config import CSMConfig  # noqa: E402
from csm.sequences.turns import TurnFrames  # noqa: E402
from csm.training import tokenizer_task  # noqa: E402
from csm.training.model_task import ModelTask  # noqa: E402
from tests.small_csm_1b import write_csm_1b  # noqa: E402

TINY = {
    "d_model": 32,
    "n_layers": 4,
    "n_heads": 2,
    "depth_d_model": 16,
    "depth_n_layers": 2,
    "depth_n_heads": 2,
    "num_codebooks": 5,
    "semantic_codebooks": 2,
    "codebook_size": 24,
    "max_context": 160,
    "cross_window": 3,
    "memory_slots": 4,
}


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keeps what commands share out of the user's folder."""
    os.environ["CSM_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def tiny_model() -> Callable[..., CSMModel]:
    """Makes a tiny model in eval mode whose every parameter is random and whose every gate is open."""

    def make(seed: int = 0, **changes: object) -> CSMModel:
        model = CSMModel(CSMConfig(**{**TINY, **changes})).eval()
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in sorted(model.named_parameters()):
            if parameter.ndim >= 2:
                fan_in = parameter.shape[-2] if name.endswith("heads") else parameter.shape[-1]
                scale = 1.0 if "embedding" in name else fan_in**-0.5
                parameter.data = torch.randn(parameter.shape, generator=generator) * scale
            elif "gate" in name.split("."):
                parameter.data.fill_(0.8)
        # About twelve frames a turn.
        model.duration_head.weight.data.mul_(0.1)
        model.duration_head.bias.data.fill_(2.5)
        model.pace_head.pace.weight.data.mul_(0.1)
        model.pace_head.pace.bias.data.fill_(-1.0)
        return model

    return make


@pytest.fixture(scope="session")
def csm_1b(tmp_path_factory):
    """Returns the talker of a random csm-1b in transformers' layout, whose turns end after 0.8 s."""
    pytest.importorskip("transformers")
    pytest.importorskip("tokenizers")
    talker = Talker.from_pretrained(write_csm_1b(tmp_path_factory.mktemp("csm_1b") / "csm-1b"))
    return replace(talker, sampling=replace(talker.sampling, max_seconds=0.8, seed=3))


@pytest.fixture
def random_turn() -> Callable[..., TurnFrames]:
    """Makes a turn of random codes that fits the tiny models."""

    def make(
        name: str,
        text: str = "hello there",
        frames: int = 9,
        speaker: int = 0,
        *,
        seed: int = 0,
        codebooks: int = 5,
    ) -> TurnFrames:
        generator = torch.Generator().manual_seed(seed + 1000 * sum(name.encode()))
        codes = torch.randint(0, 24, (codebooks, frames), generator=generator)
        voiced = (torch.rand(frames, 1, generator=generator) < 0.7).float()
        level = torch.randn(frames, 1, generator=generator) - 3.5
        prosody = torch.cat([5 * voiced, voiced, level], dim=1)
        return TurnFrames(name, text, speaker, codes, prosody)

    return make


@pytest.fixture(scope="session")
def excerpt(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The packaged excerpt as a corpus folder, made once for all tests."""
    return prepare_excerpt(tmp_path_factory.mktemp("corpora") / "amazon_queen_excerpt")


@pytest.fixture(autouse=True, scope="session")
def short_start() -> Iterator[None]:
    """A tokenizer starts from 8 batches: the corpora of the tests have no more, and 128 would repeat them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_task, "START_BATCHES", 8)
        patch.setattr(tokenizer_task, "FEATURE_BATCHES", 8)
        yield


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny models only wait for a second thread, which an earlier test's training may have asked for."""
    torch.set_num_threads(1)


@pytest.fixture
def made_task(tmp_path, monkeypatch) -> Callable[..., ModelTask]:
    """Makes the training task of a tiny model: four conversations of random codes, and one for validation."""

    def make(
        model: CSMModel, latent_dim: int = 0, max_rows: int = 60, fixed_shapes: bool = False
    ) -> ModelTask:
        # Tiny tensors on two threads of a busy machine wait a hundred times as long as they compute.
        monkeypatch.setattr("csm.training.distributed.available_cores", lambda: 1)

        kept = {"speaker": "A", "text": "abc", "audio": "a.wav", "end": 1.0}

        def turn(name: str, index: int) -> Turn:
            return Turn(id=f"{name}_{index}", conversation=name, index=index, **kept)

        splits = {f"c{i}": "train" for i in range(4)} | {"v": "validation"}
        conversations = tuple(
            Conversation(id=n, split=s, turns=tuple(turn(n, i) for i in range(5))) for n, s in splits.items()
        )
        corpus = Corpus(root=tmp_path, conversations=conversations, info={})
        g = torch.Generator().manual_seed(0)
        encoded = {
            t.id: EncodedTurn(
                t.id,
                torch.randint(0, 24, (5, 6), generator=g).short(),
                torch.rand(6, 3).half(),
                torch.zeros(1),
            )
            for t in corpus.turns()
        }
        config = DatasetConfig(
            rows_per_micro_batch=120, max_rows=max_rows, transcribe_share=0.4, depth_share=0.5
        )
        sizes = {"num_codebooks": 5, "end_code": 24, "config": config, "seed": 0, "codec": model.codec}
        train_data, validation = (
            ConversationDataset(
                table_of(corpus, encoded, split, model.codec, numbers={"A": 0}), micro_batches=number, **sizes
            )
            for split, number in (("train", 2), ("validation", 1))
        )
        vectors = torch.randn(5, 24, latent_dim, generator=g) if latent_dim else None
        options = {"device": torch.device("cpu"), "vectors": vectors, "fixed_shapes": fixed_shapes}
        return ModelTask(model, train_data, validation, LossConfig(), **options)

    return make
