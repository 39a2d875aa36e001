"""Readers: the loss of the model is that of its training, the recogniser tells right words from wrong."""

import math

import pytest
import torch

from csm.audio.files import read_audio
from csm.generation.readers import READERS, ModelReader, RecogniserReader, reader_of
from csm.generation.sampling import SamplingConfig
from csm.generation.talker import Talker
from csm.generation.voices import Voice
from csm.network.letter_head import letter_cross_entropy
from csm.sequences.turns import TurnFrames
from tests.small_tokenizer import small_tokenizer

VOICE = Voice("JOE", 0, None, None)


def test_the_models_loss_is_that_of_its_training(tiny_model, random_turn) -> None:
    model, turn = tiny_model(letters_per_frame=3), random_turn("a", "a cab", 9)
    rows = model.new_rows()
    rows.add_transcribed(turn)
    batch = rows.build()
    with torch.no_grad():
        scores = model.cross_entropies(batch).letters
    letters = batch.text_spans[0].letters
    loss = letter_cross_entropy(scores, [len(scores)], torch.tensor(letters), [len(letters)])
    reader = ModelReader(model)
    assert reader(turn, VOICE) == pytest.approx(float(loss), rel=1e-5)
    # The text is longer than what nine frames can spell.
    assert reader(turn._replace(text="a" * 40), VOICE) == math.inf
    assert reader(turn._replace(codes=turn.codes[:, :0]), VOICE) == math.inf
    assert reader(turn._replace(text="..."), VOICE) == 0.0, "a text without letters"


def test_a_model_without_letters_and_an_unknown_name_are_refused(tiny_model) -> None:
    tokenizer = small_tokenizer(8000)
    with pytest.raises(ValueError, match="reads no letters: expected the reader 'recogniser'"):
        reader_of("model", tiny_model(), tokenizer, SamplingConfig())
    with pytest.raises(ValueError, match="reader is 'ear': expected one of recogniser, model"):
        reader_of("ear", tiny_model(), tokenizer, SamplingConfig())
    assert READERS[0] == "recogniser", "the default"


def test_the_recogniser_reads_a_recordings_own_words_best(excerpt) -> None:
    """Through the packaged tokenizer: the words of each recording beside those of the others."""
    pytest.importorskip("faster_whisper")
    tokenizer = Talker.from_pretrained().tokenizer
    reader = RecogniserReader(tokenizer, SamplingConfig())
    turns = [turn for turn in excerpt.turns("test") if len(turn.text.split()) >= 4][:6]
    right = 0
    for turn in turns:
        rate = tokenizer.config.sample_rate
        audio = read_audio(excerpt.root / turn.audio, sample_rate=rate, start=turn.start, end=turn.end)
        codes, embeddings = tokenizer.encode(audio[None])
        voice = Voice("x", 0, embeddings.speaker, embeddings.emotion)
        losses = [reader(TurnFrames("x", one.text, 0, codes[0]), voice) for one in turns]
        right += losses.index(min(losses)) == turns.index(turn)
    assert right == len(turns)
    # A stream of the tokenizer may be open meanwhile.
    with tokenizer.streaming(1):
        tokenizer.decode(codes[:, :, :2])
        again = reader(TurnFrames("x", turns[-1].text, 0, codes[0]), voice)
    assert again == pytest.approx(losses[-1], rel=1e-6)
    assert reader(TurnFrames("x", "a", 0, codes[0][:, :0]), voice) == math.inf
