"""Recorded turns as context of a generation: a voice prompt, or the conversation so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from csm.audio.resampling import resample
from csm.generation.voices import Voice, find_voice
from csm.sequences.turns import TurnFrames
from csm.tokenizer.opening import VoiceTokenizer

# Far beyond what clipping or resampling leaves: samples of another scale, such as 16-bit ones as floats.
LOUDEST = 8.0


class PromptTurn(NamedTuple):
    """A recorded turn that a generation continues from.

    Attributes:
        text: Words of the recording.
        waveform: Recording, float32 [1, S], full scale = 1.
        sample_rate: Sample rate of the recording in Hz.
        speaker: Name of a known voice; None for any other speaker.
    """

    text: str
    waveform: Tensor
    sample_rate: int
    speaker: str | None = None


def check_prompt(turn: PromptTurn, voices: Mapping[str, Voice]) -> None:
    """Checks a turn before anything is encoded.

    Raises:
        ValueError: The turn has no text, a waveform of a wrong shape or an unknown speaker.
    """
    if not turn.text.strip():
        raise ValueError("text of a prompt or earlier turn is empty: expected the words of its recording")
    check_waveform(turn.waveform, "a prompt or earlier turn")
    find_voice(voices, turn.speaker)


def check_waveform(waveform: Tensor, what: str) -> None:
    """Checks the samples of a recording that a generation is given.

    Raises:
        ValueError: They have a wrong shape or dtype, or another full scale.
    """
    if waveform.ndim != 2 or waveform.shape[0] != 1 or waveform.shape[1] == 0:
        raise ValueError(
            f"waveform of {what} has shape {tuple(waveform.shape)}: expected [1, S] with at least one "
            f"sample; mix channels down first"
        )
    if not waveform.is_floating_point():
        raise ValueError(
            f"waveform of {what} has dtype {waveform.dtype}: expected floating-point samples, full scale = "
            f"1; divide 16-bit samples by 32768"
        )
    loudest = float(waveform.abs().max())
    if not loudest <= LOUDEST:
        raise ValueError(
            f"waveform of {what} reaches {loudest:.4g}: expected finite samples, full scale = 1; divide it "
            f"by its own full scale"
        )


@torch.no_grad()
def encoded_prompt(
    turn: PromptTurn,
    tokenizer: VoiceTokenizer,
    voices: Mapping[str, Voice],
    num_codebooks: int,
    local_numbers: Sequence[int] = (),
    *,
    beside: Voice | None = None,
) -> tuple[TurnFrames, Voice]:
    """Returns a turn as frames of the model, and the voice of its recording.

    An unknown speaker gets the model's first local number: the recording in the context carries the voice. In
    a model without local numbers it gets that of the known voice with the nearest speaker embedding, as the
    model has trained on such numbers. Mimi gives no embedding: there it gets the first voice's number, with
    `beside` another one than that voice's.

    Args:
        turn: Checked turn.
        tokenizer: Tokenizer in eval mode.
        voices: Known voices.
        num_codebooks: Codebooks of the model.
        local_numbers: Numbers that the model has trained on as local to a conversation.
        beside: Voice of the other side of a conversation.
    """
    device = tokenizer.device
    waveform = resample(turn.waveform[0], turn.sample_rate, tokenizer.config.sample_rate)
    codes, info = tokenizer.encode(waveform[None, None].to(device))
    if turn.speaker is not None:
        number = find_voice(voices, turn.speaker).number
    elif local_numbers:
        number = local_numbers[0]
    elif not info.speaker.shape[1]:
        number = _other_number(voices, beside)
    else:
        near = max(voices.values(), key=lambda voice: float((voice.speaker.to(device) * info.speaker).sum()))
        number = near.number
    voice = Voice(turn.speaker or "prompt", number, info.speaker, info.emotion)
    return TurnFrames("heard", turn.text, number, codes[0, :num_codebooks].cpu()), voice


def _other_number(voices: Mapping[str, Voice], beside: Voice | None) -> int:
    numbers = [voice.number for voice in voices.values() if beside is None or voice.number != beside.number]
    return numbers[0] if numbers else max(voice.number for voice in voices.values()) + 1
