"""The semantic tokenizer's task on a tiny corpus: phones become readable, and padding counts in nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from csm.audio.files import write_audio
from csm.data.manifest import Conversation, Corpus, Turn
from csm.data.phone_labels import NONE, PhoneLabels
from csm.data.utterances import UtteranceConfig, UtteranceDataset
from csm.text import ByteCodec, text_codec
from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.semantic.semantic_tokenizer import SemanticTokenizer
from csm.tokenizer.semantic.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from csm.tokenizer.training.semantic_losses import SemanticLossConfig
from csm.training.optimizer import parameter_groups, scale_learning_rate
from csm.training.options import TrainingConfig
from csm.training.recogniser import Recogniser
from csm.training.semantic_task import SemanticTask

RATE = 16_000
CONFIG = TokenizerConfig(
    sample_rate=RATE,
    n_codebooks=4,
    codebook_size=32,
    semantic_codebooks=2,
    codebook_dim=16,
    hops_per_frame=4,
    strides=(2, 2),
    encoder_widths=(16, 24, 32),
    encoder_depths=(1, 1, 1),
    decoder_widths=(32, 24, 16),
    decoder_depths=(1, 1, 1),
    semantic_layers=1,
    semantic_width=32,
    semantic_heads=2,
)
#: A letter is a tone of its own, 160 ms long.
TONES = {"a": 300.0, "e": 900.0, "o": 2200.0}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Words of three letters, said as tones."""
    root = tmp_path_factory.mktemp("tones")
    letters = sorted(TONES)
    conversations = []
    for index in range(27):
        word = "".join(letters[index // 3**place % 3] for place in range(3)) * 2
        time = torch.arange(int(0.16 * RATE)) / RATE
        wave = torch.cat([torch.sin(2 * torch.pi * TONES[letter] * time) for letter in word])
        write_audio(root / f"{index}.wav", 0.3 * wave[None], RATE)
        name = f"c{index}"
        turn = Turn(
            id=f"t{index}",
            conversation=name,
            index=0,
            speaker="ANN",
            text=word,
            audio=f"{index}.wav",
            end=0.96,
        )
        conversations.append(
            Conversation(id=name, split="validation" if index % 9 == 4 else "train", turns=(turn,))
        )
    return Corpus(root=root, conversations=tuple(conversations))


@pytest.fixture(scope="module")
def labels(corpus: Corpus) -> PhoneLabels:
    """Symbols of the texts at their tones; the ids before and after the text take no time."""
    codec = text_codec("bytes", 8)
    assert isinstance(codec, ByteCodec)
    ends = {turn.id: torch.tensor([0.0, *(0.16 * n for n in range(1, 7)), 0.96]) for turn in corpus.turns()}
    return PhoneLabels(codec, ((turn.id, turn.text) for turn in corpus.turns()), ends)


def made(
    corpus: Corpus, labels: PhoneLabels, *, recogniser: Recogniser | None = None, **loss: float
) -> SemanticTask:
    torch.manual_seed(0)

    def dataset(split: str, items: int) -> UtteranceDataset:
        config = UtteranceConfig(items=items, max_seconds=2.0, slice_frames=2)
        frame = CONFIG.samples_per_frame
        return UtteranceDataset(
            corpus, split, sample_rate=RATE, samples_per_frame=frame, config=config, seed=0, micro_batches=1
        )

    tokenizer = SemanticTokenizer(CONFIG)
    weights = SemanticLossConfig(**loss)
    return SemanticTask(
        tokenizer,
        dataset("train", 6),
        dataset("validation", 3),
        labels,
        weights,
        recogniser=recogniser,
        device=torch.device("cpu"),
    )


def optimise(task: SemanticTask, steps: int) -> list[dict[str, float]]:
    optimizer = torch.optim.AdamW(task.trainer.parameters(), 3e-3)
    task.trainer.train()
    history = []
    for step in range(1, steps + 1):
        loss, parts = task.loss("semantic", task.trainer, task.batch(step, 0), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append({name: float(value) for name, value in (parts | task.after_step(step)).items()})
    return history


def test_phones_become_readable(corpus: Corpus, labels: PhoneLabels) -> None:
    task = made(corpus, labels)
    task.trainer.eval()
    before = task.validate(0)
    optimise(task, 200)
    task.trainer.eval()
    after = task.validate(200)
    assert before["phone_accuracy"] < 0.4 and after["phone_accuracy"] > 0.8
    assert after["letters"] < before["letters"] / 2


def test_two_trainings_are_equal_bit_for_bit(corpus: Corpus, labels: PhoneLabels) -> None:
    one, two = made(corpus, labels), made(corpus, labels)
    assert optimise(one, 3) == optimise(two, 3)
    states = zip(one.trainer.state_dict().values(), two.trainer.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)


class SmallRecogniser(Recogniser):
    """A recogniser of the tones' size with random weights, which reads no text: no file holds one."""

    def __init__(self) -> None:
        torch.manual_seed(5)
        self.encoder = SpeechEncoder(
            SpeechEncoderConfig(width=32, n_layers=1, n_heads=2, block_frames=375, past_frames=1)
        ).requires_grad_(False)

    def ids(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.zeros(len(texts), 0, dtype=torch.int64)


def test_codebooks_start_at_a_recognisers_features(corpus: Corpus, labels: PhoneLabels) -> None:
    """Before any step the quantized rows hold most of its features' variance; those of random layers none."""
    recogniser = SmallRecogniser()
    started, random = made(corpus, labels, recogniser=recogniser), made(corpus, labels)
    random.recogniser = recogniser
    losses = []
    for task in (started, random):
        task.trainer.eval()
        losses.append(task.validate(0)["features"])
    assert losses[0] < 0.1 and losses[1] > 1, losses


def test_an_item_with_one_codebook_reads_the_first_alone(corpus: Corpus, labels: PhoneLabels) -> None:
    task = made(corpus, labels, quantizer_dropout=1.0)
    batch = task.batch(1, 0)
    batch.utterances.levels[:, 1] = 0.0  # the shortest prefix
    task.trainer.train()
    with torch.no_grad():
        first = task.trainer(batch, task.weights, None)
        task.trainer.tokenizer.stack.codebooks[1].mul_(-3)
        second = task.trainer(batch, task.weights, None)
    assert (first["levels"] == 1).all() and torch.equal(first["phones"], second["phones"])
    batch.utterances.levels[:, 1] = 0.999
    with torch.no_grad():
        assert (task.trainer(batch, task.weights, None)["levels"] == 2).all()


def test_padding_counts_in_no_loss_and_in_no_codebook(corpus: Corpus, labels: PhoneLabels) -> None:
    task = made(corpus, labels)
    task.trainer.eval()
    batch = task._batch(task.validation, task.validation.in_order(0, 3), None)
    longer = dataclasses.replace(
        batch,
        utterances=dataclasses.replace(
            batch.utterances, audio=torch.nn.functional.pad(batch.utterances.audio, (0, 10 * 1280))
        ),
        phones=torch.nn.functional.pad(batch.phones, (0, 40), value=NONE),
        masked=torch.nn.functional.pad(batch.masked, (0, 0, 0, 80)),
    )
    with torch.no_grad():
        one, two = (task.trainer(part, task.weights, None) for part in (batch, longer))
    assert one["rows"].shape == two["rows"].shape == (3 * 12, 16)
    for name in ("phones", "letters", "commitment", "phone_accuracy"):
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)


def test_a_started_encoder_is_trained_at_a_tenth_of_the_rate() -> None:
    tokenizer = SemanticTokenizer(CONFIG)
    scale_learning_rate(tokenizer.encoder.encoder, 0.1)
    groups = parameter_groups(tokenizer, TrainingConfig(steps=1, weight_decay=0.1))
    found = {(group["learning_rate_factor"], group["weight_decay"]): len(group["params"]) for group in groups}
    inside = list(tokenizer.encoder.encoder.parameters())
    assert found == {
        (1.0, 0.1): 1,
        (1.0, 0.0): 1,
        (0.1, 0.1): sum(parameter.ndim >= 2 for parameter in inside),
        (0.1, 0.0): sum(parameter.ndim < 2 for parameter in inside),
    }


def test_a_trained_half_serves_a_whole_tokenizer_of_its_sizes_alone(corpus: Corpus, tmp_path: Path) -> None:
    from csm.tokenizer.conversational_rvq import ConversationalRVQ

    half = SemanticTokenizer(CONFIG).eval()
    half.stack.codebooks.normal_(generator=torch.Generator().manual_seed(0))
    half.save_pretrained(tmp_path)
    read = SemanticTokenizer.from_pretrained(tmp_path)
    whole = ConversationalRVQ(CONFIG).eval()
    read.give_to(whole)
    audio = 0.1 * torch.randn(1, 1, 5000, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(whole.encode(audio)[0][:, :2], half.encode(audio))
    assert not any(p.requires_grad for p in whole.semantic_encoder.parameters())
    whole.save_pretrained(tmp_path / "whole")
    again = SemanticTokenizer.from_pretrained(tmp_path / "whole")
    assert all(torch.equal(again.state_dict()[name], value) for name, value in half.state_dict().items())
    other = ConversationalRVQ(dataclasses.replace(CONFIG, semantic_width=64))
    with pytest.raises(ValueError, match="semantic_"):
        read.give_to(other)
    with pytest.raises(ValueError, match="semantic_layers is 0"):
        SemanticTokenizer(dataclasses.replace(CONFIG, semantic_layers=0))
