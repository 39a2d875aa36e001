"""Several texts spoken at once: their frames share the backbone's calls, and each is decoded as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from csm.generation.batch import Request, SpeakingTogether
from csm.generation.session import Session
from csm.generation.speech import Speech, StreamClock, joined_codes, speech_ending
from csm.generation.spoken_turn import Ending
from csm.generation.voices import Voice
from csm.system.threads import one_thread
from csm.tokenizer.opening import VoiceTokenizer


@dataclass(eq=False)
class OngoingText:
    """A text while it is spoken.

    Attributes:
        session: Conversation of the text alone.
        voice: Voice of the text.
        sentences: Sentences of the text, each spoken as one turn.
        frames: Codes [K] of the frames so far, pauses included.
        endings: Reason why each turn so far ended, one per sentence.
        clock: Clock of the request.
    """

    session: Session
    voice: Voice
    sentences: list[str]
    frames: list[Tensor] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    clock: StreamClock = field(default_factory=StreamClock)


def speak_simultaneously(
    tokenizer: VoiceTokenizer, texts: Sequence[OngoingText], pause: Sequence[Int[Tensor, " K"]]
) -> list[Speech]:
    """Speaks texts at once, sentence n of all texts together, and returns the speech of each.

    Args:
        tokenizer: Tokenizer in eval mode.
        texts: Texts with at least one sentence each, in sessions with one model.
        pause: Frames of silence between sentences.

    Raises:
        ValueError: A sentence does not fit the model's context.
    """
    with one_thread():
        for number in range(max((len(text.sentences) for text in texts), default=0)):
            _speak_sentence([text for text in texts if number < len(text.sentences)], number, pause)
        return [_decoded(tokenizer, text) for text in texts]


def _speak_sentence(texts: Sequence[OngoingText], number: int, pause: Sequence[Int[Tensor, " K"]]) -> None:
    """Appends the frames of sentence `number` to each text, after a pause where it is not the first."""
    if number:
        for text in texts:
            text.frames.extend(pause)
    requests = [Request(text.session, text.sentences[number], text.voice.number) for text in texts]
    together = SpeakingTogether(requests)
    for step in together:
        for text, frame in zip(texts, step, strict=True):
            if frame is not None:
                text.frames.append(frame)
    for text, ending in zip(texts, together.endings, strict=True):
        assert ending is not None, "a turn has not ended"
        text.endings.append(ending)


@torch.no_grad()
def _decoded(tokenizer: VoiceTokenizer, text: OngoingText) -> Speech:
    config = tokenizer.config
    codes = joined_codes(text.frames, text.session.model.config.num_codebooks)
    waveform = torch.zeros(1, 0)
    if text.frames:
        decoded = tokenizer.decode(
            codes[None, : text.session.sampling.decoded_codebooks].to(tokenizer.device),
            speaker=text.voice.speaker,
            emotion=text.voice.emotion,
            contrast=text.session.sampling.contrast,
        )
        waveform = decoded[0].cpu()
        text.clock.add(waveform)
    timing = text.clock.timing(config.sample_rate, len(text.frames), speech_ending(text.endings))
    return Speech(waveform, codes, config.sample_rate, text.voice, tuple(text.endings), timing)
