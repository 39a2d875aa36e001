"""The voice's own model as the recogniser of a live conversation."""

import dataclasses

import pytest
import torch

from csm.audio.resampling import resample
from csm.conversation.repliers import EchoReplier
from csm.conversation.speaker import Speaker, UserTurn, Words
from csm.conversation.transcriber import ModelTranscriber, transcriber_of
from csm.generation.session import Session


@pytest.fixture
def spelling(talker, tiny_model):
    return dataclasses.replace(talker, model=tiny_model(letters_per_frame=2))


def utterance(seconds: float) -> torch.Tensor:
    return 0.1 * torch.randn(round(16_000 * seconds), generator=torch.Generator().manual_seed(0))


def test_a_reply_echoes_the_words_that_the_model_itself_writes(spelling) -> None:
    words = utterance(1.0)
    audio = resample(words, 16_000, 8_000)
    with torch.no_grad():
        codes, _ = spelling.tokenizer.encode(audio[None, None], num_codebooks=5)
    expected = Session(spelling.model).transcribe(codes[0])
    speaker = Speaker(spelling, EchoReplier(), transcriber_of("model", spelling), seed=1)
    heard = next(speaker.reply(UserTurn(audio, words)))
    assert heard == Words(expected, "the voice's own model") and expected
    assert len(list(speaker.reply(UserTurn(audio, words)))) > 2, "it is answered"


def test_of_an_utterance_longer_than_the_context_the_last_part_is_written(spelling) -> None:
    long = utterance(20.0)
    last = resample(long, 16_000, 8_000)[-(spelling.model.config.max_context - 5) * 640 :]
    stream = spelling.hear()
    stream.push(last)
    assert ModelTranscriber(spelling)(long) == stream.finish() and stream.seconds > 12


def test_a_model_that_writes_no_text_is_refused_at_once(talker, tiny_model) -> None:
    silent = dataclasses.replace(talker, model=tiny_model(zeros_end=True, extra_codes=0))
    with pytest.raises(ValueError, match="speaks and does not write"):
        transcriber_of("model", silent)
