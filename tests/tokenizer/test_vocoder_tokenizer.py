"""A tokenizer with a vocoder: codes and samples depend neither on the batch nor on how a stream is cut."""

import random

import pytest
import torch

from csm.generation.audio_stream import stream_audio
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.shared_decoder import Conditions, SharedDecoder
from tests.small_vocoder_tokenizer import FRAME, small_vocoder_tokenizer, voices

FRAMES = 4


@pytest.fixture(scope="module")
def tokenizer() -> ConversationalRVQ:
    return small_vocoder_tokenizer()


@pytest.fixture(scope="module")
def audio() -> torch.Tensor:
    return voices(2, FRAMES)


@pytest.fixture(scope="module")
@torch.no_grad()
def codes(tokenizer, audio) -> torch.Tensor:
    return tokenizer.encode(audio)[0]


@pytest.fixture(scope="module")
@torch.no_grad()
def waveform(tokenizer, codes) -> torch.Tensor:
    return tokenizer.decode(codes)


@pytest.mark.parametrize("samples", [1, FRAME, FRAME + 1])
@torch.no_grad()
def test_codes_are_exactly_batch_by_codebooks_by_the_frames_begun(tokenizer, audio, samples):
    codes, info = tokenizer.encode(audio[..., :samples])
    frames = -(-samples // FRAME)
    assert codes.shape == (2, 5, frames) and codes.dtype == torch.int64
    assert info.latent.shape == (2, frames, 176) and info.speaker.shape == (2, 8)
    assert tokenizer.decode(codes).shape == (2, 1, frames * FRAME)


@torch.no_grad()
def test_an_item_of_a_batch_has_the_codes_and_the_samples_it_has_alone(tokenizer, audio, codes, waveform):
    assert codes.unique().numel() > 8, "a test of constant codes shows nothing"
    assert float(waveform.std(dim=-1).min()) > 0
    for item in range(2):
        assert torch.equal(tokenizer.encode(audio[item : item + 1])[0][0], codes[item])
        assert torch.equal(tokenizer.decode(codes[item : item + 1])[0], waveform[item])


@pytest.mark.parametrize("chunks", [[1] * FRAMES, [1, 3]])
@torch.no_grad()
def test_a_stream_in_chunks_equals_the_whole_bit_by_bit(tokenizer, audio, codes, waveform, chunks):
    encoded, decoded = [], []
    with tokenizer.streaming(2):
        for part in audio.split([n * FRAME for n in chunks], dim=-1):
            encoded.append(tokenizer.encode(part)[0])
            decoded.append(tokenizer.decode(encoded[-1]))
        assert sum(part.shape[-1] for part in decoded) == waveform.shape[-1] - tokenizer.latency_samples
        decoded.append(tokenizer.flush())
        assert decoded[-1].shape == (2, 1, tokenizer.latency_samples)
        assert tokenizer.flush().shape[-1] == 0
    assert torch.equal(torch.cat(encoded, dim=-1), codes)
    assert torch.equal(torch.cat(decoded, dim=-1), waveform)


@torch.no_grad()
def test_a_stream_without_frames_has_no_samples_and_leaves_nothing_behind(tokenizer, audio, codes):
    with tokenizer.streaming(2):
        assert tokenizer.flush().shape == (2, 1, 0)
        tokenizer.encode(audio[..., :FRAME])
    assert torch.equal(tokenizer.encode(audio)[0], codes)
    with pytest.raises(ValueError, match="streaming"):
        tokenizer.flush()


@torch.no_grad()
def test_an_impulse_reaches_no_earlier_frame_and_a_code_no_sample_before_the_latency(
    tokenizer, audio, codes, waveform
):
    struck = audio.clone()
    struck[..., 2 * FRAME + 500] += 0.9
    changed = tokenizer.encode(struck)[0]
    assert torch.equal(changed[..., :2], codes[..., :2])
    assert not torch.equal(changed[..., 2], codes[..., 2])
    other = codes.clone()
    other[..., 2] = (other[..., 2] + 1) % 16
    moved = (tokenizer.decode(other) != waveform)[0, 0].nonzero()
    first = 2 * FRAME - tokenizer.latency_samples
    assert first <= int(moved.min()) < first + 240


@torch.no_grad()
def test_any_prefix_of_the_codebooks_is_found_alone_and_decodes(tokenizer, audio, codes):
    for count in range(1, 6):
        prefix, info = tokenizer.encode(audio[..., : 2 * FRAME], num_codebooks=count)
        assert torch.equal(prefix, codes[:, :count, :2])
        sound = tokenizer.decode(prefix)
        assert sound.shape == (2, 1, 2 * FRAME) and sound.isfinite().all()
        torch.testing.assert_close(tokenizer.quantizer.decode(prefix), info.latent, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_silence_and_full_scale_give_finite_sound(tokenizer):
    for level in (0.0, 1.0):
        codes, info = tokenizer.encode(torch.full((1, 1, FRAME), level))
        assert tokenizer.decode(codes).isfinite().all() and info.speaker.isfinite().all()


@torch.no_grad()
def test_speaker_and_emotion_change_the_sound(tokenizer, codes, waveform):
    assert not torch.equal(tokenizer.decode(codes, speaker=torch.eye(8)[:2]), waveform)
    assert not torch.equal(tokenizer.decode(codes, emotion=torch.eye(4)[:2]), waveform)


def test_streams_that_come_and_go_are_each_exactly_what_they_are_alone(tokenizer) -> None:
    draw = random.Random(1)
    signals = [
        torch.randint(0, 16, (count, 5), generator=torch.Generator().manual_seed(count))
        for count in (3, 1, 4)
    ]
    given = [Conditions(), Conditions(torch.eye(8)[:1]), Conditions(None, torch.eye(4)[1:2])]
    decoder = SharedDecoder(tokenizer)
    streams, left = [decoder.open(one) for one in given], [list(frames) for frames in signals]
    chunks: list[list[torch.Tensor]] = [[] for _ in signals]
    while open_ones := [number for number, frames in enumerate(left) if frames]:
        chosen = draw.sample(open_ones, draw.randint(1, len(open_ones)))
        decoded = decoder.decode([streams[i] for i in chosen], [left[i].pop(0) for i in chosen])
        for number, chunk in zip(chosen, decoded, strict=True):
            chunks[number].append(chunk)
            if not left[number]:
                chunks[number].append(decoder.flush(streams[number]))
    for parts, frames, one in zip(chunks, signals, given, strict=True):
        alone = torch.cat(list(stream_audio(tokenizer, iter(frames), **one._asdict())), dim=1)
        assert alone.shape == (1, len(frames) * FRAME)
        assert torch.equal(torch.cat(parts, dim=1), alone)


@torch.no_grad()
def test_the_packaged_form_analyses_alike_and_stays_as_it_is(tokenizer, audio, codes, tmp_path):
    """Features are weighted by numbers of half precision; only rounded codebooks may change a code."""
    with torch.no_grad():
        encoder = tokenizer.encoder
        encoder.centre.copy_(encoder.centre.half())
        encoder.scale.copy_(encoder.scale.half())
    codes = tokenizer.encode(audio)[0]
    tokenizer.save_pretrained(tmp_path / "one", half=True)
    packaged = ConversationalRVQ.from_pretrained(tmp_path / "one")
    assert torch.equal(packaged.encoder(audio[:, 0])[0], encoder(audio[:, 0])[0])
    rounded = packaged.encode(audio)[0]
    assert float((rounded != codes).float().mean()) < 0.1
    packaged.save_pretrained(tmp_path / "two", half=True)
    again = ConversationalRVQ.from_pretrained(tmp_path / "two")
    assert torch.equal(again.encode(audio)[0], rounded)
    tokenizer.save_pretrained(tmp_path / "whole")
    whole = ConversationalRVQ.from_pretrained(tmp_path / "whole")
    assert torch.equal(whole.encode(audio)[0], codes)
    assert torch.equal(whole.decode(codes), tokenizer.decode(codes))
