"""A recording becomes frames at the tokenizer's rate; an unknown speaker gets the nearest voice's index."""

import pytest
import torch

from csm.generation.prompt_turn import PromptTurn, check_prompt, encoded_prompt


def recording(samples: int) -> torch.Tensor:
    return torch.randn(1, samples, generator=torch.Generator().manual_seed(0)) * 0.1


def encoded(turn, talker):
    return encoded_prompt(turn, talker.tokenizer, talker.voices, talker.model.config.num_codebooks)


def test_frames_hold_the_text_and_the_models_codebooks_of_the_resampled_recording(talker):
    frames, voice = encoded(PromptTurn("La.", recording(16_000), 16_000, "FAYE"), talker)
    assert frames.text == "La." and frames.speaker == voice.number == 1 and voice.name == "FAYE"
    assert frames.codes.shape == (5, 13)
    same, _ = encoded(PromptTurn("La.", recording(16_000), 16_000), talker)
    assert torch.equal(same.codes, frames.codes)


def test_the_voice_is_that_of_the_recording(talker):
    waveform = recording(8000)
    _, voice = encoded(PromptTurn("La.", waveform, 8000, "JOE"), talker)
    with torch.no_grad():
        info = talker.tokenizer.encode(waveform[None])[1]
    assert torch.equal(voice.speaker, info.speaker) and torch.equal(voice.emotion, info.emotion)


@pytest.mark.parametrize("nearest", [0, 1])
def test_an_unknown_speaker_gets_the_index_of_the_nearest_voice(talker, nearest):
    waveform = recording(8000)
    with torch.no_grad():
        own = talker.tokenizer.encode(waveform[None])[1].speaker
    voices = {
        name: voice._replace(speaker=own if voice.number == nearest else -own)
        for name, voice in talker.voices.items()
    }
    frames, voice = encoded_prompt(PromptTurn("La.", waveform, 8000), talker.tokenizer, voices, 5)
    assert frames.speaker == voice.number == nearest and voice.name == "prompt"


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (PromptTurn(" ", recording(8000), 8000), "text of a prompt or earlier turn is empty"),
        (PromptTurn("La.", recording(8000)[0], 8000), r"shape \(8000,\): expected \[1, S\]"),
        (PromptTurn("La.", recording(8000).expand(2, -1), 8000), "mix channels down first"),
        (PromptTurn("La.", torch.zeros(1, 0), 8000), "at least one sample"),
        (PromptTurn("La.", torch.ones(1, 8).short(), 8000), "dtype torch.int16: expected floating-point"),
        (PromptTurn("La.", recording(8000) * 32768, 8000), r"reaches 1.\d+e\+04: expected finite samples"),
        (PromptTurn("La.", torch.full((1, 8), float("nan")), 8000), "reaches nan: expected finite samples"),
        (PromptTurn("La.", recording(8000), 8000, "BOB"), "speaker is 'BOB': expected one of JOE, FAYE"),
    ],
)
def test_what_cannot_be_a_prompt_is_refused(talker, turn, message):
    with pytest.raises(ValueError, match=message):
        check_prompt(turn, talker.voices)
