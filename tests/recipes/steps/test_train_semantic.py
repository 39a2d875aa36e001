"""The semantic half is trained first, and the tokenizer that starts from it has its codes and its heads."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from csm.data.manifest import read_corpus
from csm.data.turn_audio import read_turn
from csm.data.utterances import UtteranceConfig
from csm.recipes.run_config import RunConfig
from csm.recipes.steps.train_semantic import train_semantic
from csm.recipes.steps.train_tokenizer import start_tokenizer, train_tokenizer
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.semantic.semantic_heads import HEADS, SemanticHeads
from csm.tokenizer.semantic.semantic_tokenizer import SemanticTokenizer

CPU = torch.device("cpu")
TURN = "test0"


@pytest.fixture(scope="module")
def run(steps, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """The tiny recipe with a semantic encoder and no recogniser."""
    semantic = {"semantic_layers": 1, "semantic_width": 32, "semantic_heads": 2}
    tokenizer = replace(
        steps.run.tokenizer,
        **semantic,
        sample_rate=16_000,
        hops_per_frame=4,
        strides=(2, 2),
        recover_phase=True,
        prediction_frames=2,
        prediction_hidden=8,
    )
    return replace(
        steps.run,
        tokenizer=tokenizer,
        encoder_frozen=True,
        recogniser="",
        semantic_utterances=UtteranceConfig(items=4, max_seconds=1.5),
        semantic_training=steps.run.tokenizer_training,
        semantic_start=str(tmp_path_factory.mktemp("semantic") / "semantic"),
    )


@pytest.fixture(scope="module")
def semantic(run: RunConfig) -> Path:
    return train_semantic(run, Path(run.semantic_start), CPU)


@pytest.fixture(scope="module")
def tokenizer(run: RunConfig, semantic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_tokenizer(run, tmp_path_factory.mktemp("whole") / "tokenizer", CPU)


def test_the_whole_tokenizer_has_the_semantic_codes_of_its_half(run, semantic, tokenizer):
    corpus, half = read_corpus(run.corpus), SemanticTokenizer.from_pretrained(semantic)
    turn = next(turn for turn in corpus.turns() if turn.id == TURN)
    audio = read_turn(corpus, turn, 16_000).unsqueeze(0)
    codes, _ = ConversationalRVQ.from_pretrained(tokenizer).encode(audio)
    assert codes.shape[1] == 4 and torch.equal(codes[:, :2], half.encode(audio))


def test_the_heads_that_read_the_codes_travel_with_them(semantic, tokenizer):
    one, two = SemanticHeads.read(semantic), SemanticHeads.read(tokenizer)
    assert one is not None and two is not None and (tokenizer / HEADS).is_file()
    pairs = zip(one.state_dict().items(), two.state_dict().values(), strict=True)
    assert not [name for (name, a), b in pairs if not torch.equal(a, b)]


def test_a_tokenizer_is_not_started_without_its_semantic_half(run):
    with pytest.raises(ValueError, match="semantic_start is empty: expected the folder"):
        start_tokenizer(replace(run, semantic_start=""))
