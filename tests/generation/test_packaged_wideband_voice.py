"""The packaged voice at 24 kHz: small enough to travel, understood, and streamed as it is whole."""

from __future__ import annotations

import pytest
import torch

from csm.evaluation.metrics.words import WhisperRecogniser, error_counts
from csm.generation.talker import Talker
from csm.generation.voice_folder import PACKAGED_VOICES
from csm.text import EmphasisCodec

LINES = (
    "I had a plane to catch at seven this morning.",
    "The weather will be warm and sunny tomorrow.",
    "Please put the keys on the table by the door.",
    "My brother lives in a small house near the river.",
)


@pytest.fixture(scope="module")
def talker() -> Talker:
    return Talker.from_pretrained("wideband")


def test_it_has_a_main_voice_many_others_and_at_most_40_megabytes(talker) -> None:
    assert next(iter(talker.voices)) == "am_michael" and {"JOE", "ALLISON", "af_heart"} <= {*talker.voices}
    assert talker.tokenizer.config.sample_rate == 24_000 and isinstance(talker.model.codec, EmphasisCodec)
    assert talker.words is not None, "it transcribes by the words of its training"
    own = sum(path.stat().st_size for path in PACKAGED_VOICES["wideband"].iterdir() if path.is_file())
    assert own < 40e6


def test_its_everyday_lines_are_understood_and_those_of_others_are_not(talker) -> None:
    pytest.importorskip("faster_whisper")
    recogniser, errors, words, exchanged = WhisperRecogniser(), 0, 0, 0
    heard = []
    for line in LINES:
        speech = talker.generate(line)
        heard.append(recogniser.transcribe(speech.waveform[0].numpy(), speech.sample_rate))
    for place, line in enumerate(LINES):
        wrong, count = error_counts(line, heard[place])
        errors, words = errors + wrong, words + count
        exchanged += error_counts(line, heard[place - 1])[0]
    assert errors / words < 0.4 and exchanged / words > 0.8, heard


def test_a_stream_is_the_whole(talker) -> None:
    whole = talker.generate("Not today.")
    chunks = list(talker.generate("Not today.", stream=True))
    torch.testing.assert_close(torch.cat(chunks, dim=1), whole.waveform, atol=1e-5, rtol=0)
