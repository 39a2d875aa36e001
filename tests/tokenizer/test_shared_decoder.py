"""Streams that are decoded together sound as each does alone, whenever they begin, pause and end."""

import random

import pytest
import torch

from csm.generation.audio_stream import stream_audio
from csm.generation.voice_folder import PACKAGED
from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.shared_decoder import Conditions, SharedDecoder, stream_decoder


def tokenizer_of(**changes) -> ConversationalRVQ:
    """Returns one of random weights with attention to the last three frames in its decoder."""
    torch.manual_seed(0)
    sizes = {
        "sample_rate": 8000,
        "n_codebooks": 6,
        "codebook_size": 24,
        "semantic_codebooks": 2,
        "codebook_dim": 8,
        "hops_per_frame": 4,
        "strides": (2, 2),
        "encoder_widths": (16, 16, 16),
        "encoder_depths": (1, 1, 1),
        "decoder_widths": (16, 16, 16),
        "decoder_depths": (1, 1, 1),
        "decoder_layers": 1,
        "attention_heads": 2,
        "attention_frames": 4,
        "recover_phase": True,
        "speaker_dim": 8,
        "emotion_dim": 4,
    }
    tokenizer = ConversationalRVQ(TokenizerConfig(**{**sizes, **changes})).eval()
    for part in (tokenizer.quantizer.semantic, tokenizer.quantizer.acoustic):
        part.codebooks.normal_()
    return tokenizer


def random_frames(count: int, seed: int) -> torch.Tensor:
    """Returns codes [count, 6]."""
    return torch.randint(0, 24, (count, 6), generator=torch.Generator().manual_seed(seed))


def given_to(number: int) -> Conditions:
    """Returns the conditions of a stream; some are unknown."""
    speaker = None if number % 3 == 0 else torch.eye(8)[number : number + 1]
    emotion = None if number % 4 == 0 else torch.eye(4)[number % 4 : number % 4 + 1]
    return Conditions(speaker, emotion, (None, 1.4)[number % 2])


def at_random(decoder, signals, conditions) -> list[torch.Tensor]:
    """Decodes the frames of each signal in steps of random streams; each ends after its last frame."""
    draw = random.Random(1)
    streams = [decoder.open(one) for one in conditions]
    left = [list(frames) for frames in signals]
    chunks = [[] for _ in signals]
    while open_ones := [i for i, frames in enumerate(left) if frames]:
        chosen = draw.sample(open_ones, draw.randint(1, len(open_ones)))
        decoded = decoder.decode([streams[i] for i in chosen], [left[i].pop(0) for i in chosen])
        for i, chunk in zip(chosen, decoded, strict=True):
            chunks[i].append(chunk)
            if not left[i]:
                chunks[i].append(decoder.flush(streams[i]))
    return [torch.cat(parts, dim=1) for parts in chunks]


#: With a semantic encoder, from whose codes of three frames the latent is predicted.
PREDICTED = {
    "sample_rate": 16_000,
    "semantic_layers": 1,
    "semantic_width": 16,
    "semantic_heads": 2,
    "prediction_frames": 3,
}


@pytest.mark.parametrize(
    "changes",
    [{}, {"attention_frames": 1}, {"hops_per_frame": 2, "strides": (2, 1), "ahead": 2}, PREDICTED],
)
def test_streams_that_come_and_go_are_each_exactly_what_they_are_alone(changes) -> None:
    tokenizer = tokenizer_of(**changes)
    signals = [random_frames(count, count) for count in (5, 1, 6, 2)]
    conditions = [given_to(number) for number in range(len(signals))]
    together = at_random(SharedDecoder(tokenizer), signals, conditions)
    for audio, frames, given in zip(together, signals, conditions, strict=True):
        alone = torch.cat(list(stream_audio(tokenizer, iter(frames), **given._asdict())), dim=1)
        assert audio.shape == (1, len(frames) * tokenizer.config.samples_per_frame)
        assert torch.equal(audio, alone)


def test_streams_of_other_numbers_of_codebooks_share_a_step() -> None:
    tokenizer = tokenizer_of()
    signals = [random_frames(4, seed)[:, :books] for seed, books in ((0, 6), (1, 2), (2, 6))]
    together = at_random(SharedDecoder(tokenizer), signals, [given_to(1)] * 3)
    for audio, frames in zip(together, signals, strict=True):
        alone = torch.cat(list(stream_audio(tokenizer, iter(frames), **given_to(1)._asdict())), dim=1)
        assert torch.equal(audio, alone)


def test_without_recovered_phases_they_are_equal_up_to_rounding() -> None:
    tokenizer = tokenizer_of(recover_phase=False)
    signals = [random_frames(count, count) for count in (5, 1, 3)]
    conditions = [given_to(0)._replace(contrast=None)] * 3
    together = at_random(SharedDecoder(tokenizer), signals, conditions)
    for audio, frames in zip(together, signals, strict=True):
        alone = torch.cat(list(stream_audio(tokenizer, iter(frames))), dim=1)
        torch.testing.assert_close(audio, alone, rtol=0, atol=1e-5)


def test_the_packaged_tokenizer_gives_the_same_samples_in_any_company() -> None:
    tokenizer = ConversationalRVQ.from_pretrained(PACKAGED / "tokenizer")
    generator = torch.Generator().manual_seed(2)
    signals = [torch.randint(0, 1024, (count, 16), generator=generator) for count in (4, 2, 3)]
    conditions = [Conditions(contrast=1.4)] * 3
    together = at_random(SharedDecoder(tokenizer), signals, conditions)
    for audio, frames in zip(together, signals, strict=True):
        alone = torch.cat(list(stream_audio(tokenizer, iter(frames), contrast=1.4)), dim=1)
        assert torch.equal(audio, alone)


def test_a_stream_without_frames_has_no_audio_and_an_error_changes_no_stream() -> None:
    decoder, tokenizer = SharedDecoder(tokenizer_of()), tokenizer_of()
    first, second = decoder.open(Conditions()), decoder.open(Conditions())
    assert decoder.flush(first).shape == (1, 0)
    frames = random_frames(4, 0)
    chunks = [decoder.decode([first], [frames[0]])[0]]
    with pytest.raises(ValueError, match="codes"):
        decoder.decode([first, second], [frames[1], frames[0] + 24])
    chunks += [decoder.decode([first], [frame])[0] for frame in frames[1:]]
    alone = torch.cat(list(stream_audio(tokenizer, iter(frames))), dim=1)
    assert torch.equal(torch.cat([*chunks, decoder.flush(first)], dim=1), alone)


def test_streams_of_mimi_have_states_of_their_own(csm_1b) -> None:
    mimi, decoder = csm_1b.tokenizer, stream_decoder(csm_1b.tokenizer)
    generator = torch.Generator().manual_seed(3)
    signals = [
        torch.randint(0, mimi.config.codebook_size, (count, mimi.config.n_codebooks), generator=generator)
        for count in (2, 3)
    ]
    together = at_random(decoder, signals, [Conditions()] * 2)
    for audio, frames in zip(together, signals, strict=True):
        assert torch.equal(audio, torch.cat(list(stream_audio(mimi, iter(frames))), dim=1))
