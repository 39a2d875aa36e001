"""Shapes are exact, codes do not depend on the call, and streams equal wholes."""

import dataclasses

import pytest
import torch

from csm.tokenizer.conversational_rvq import ConversationalRVQ


@pytest.mark.parametrize("samples", [1, 639, 640, 641, 6400, 6401])
@torch.no_grad()
def test_codes_are_exactly_batch_by_codebooks_by_the_frames_begun(tokenizer, speech, samples):
    codes, info = tokenizer.encode(speech(2, samples))
    frames = -(-samples // 640)
    assert codes.shape == (2, 8, frames) and codes.dtype == torch.int64
    assert 0 <= codes.min() and codes.max() < 32
    assert info.semantic.shape == (2, frames, 16) and info.latent.shape == (2, frames, 40)
    assert info.speaker.shape == (2, 8) and info.emotion.shape == (2, 4)
    assert tokenizer.decode(codes).shape == (2, 1, frames * 640)


@torch.no_grad()
def test_the_mission_snippet_keeps_its_shape():
    rvq = ConversationalRVQ(n_codebooks=32, codebook_size=1024)
    codes, _ = rvq.encode(torch.randn(2, 1, 24_000) * 0.1)
    assert codes.shape == (2, 32, 13)
    assert rvq.decode(codes).shape == (2, 1, 13 * 1920)


@torch.no_grad()
def test_an_item_of_a_batch_has_the_codes_and_the_waveform_it_has_alone(tokenizer, speech):
    audio = speech(5, 9000)
    codes, info = tokenizer.encode(audio)
    assert codes.unique().numel() > 16, "a test of constant codes shows nothing"
    waveform = tokenizer.decode(codes, speaker=info.speaker, emotion=info.emotion)
    for item in range(5):
        alone, alone_info = tokenizer.encode(audio[item : item + 1])
        assert torch.equal(alone[0], codes[item])
        torch.testing.assert_close(alone_info.speaker[0], info.speaker[item], atol=1e-5, rtol=0)
        # The same embeddings to the last bit: recovered phases are sensitive to it.
        speaker, emotion = info.speaker[item : item + 1], info.emotion[item : item + 1]
        decoded = tokenizer.decode(alone, speaker=speaker, emotion=emotion)
        torch.testing.assert_close(decoded[0], waveform[item], atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [1, 500, 640, 3300])
@torch.no_grad()
def test_padding_changes_neither_codes_nor_embeddings(tokenizer, speech, length):
    audio = speech(2, length)
    alone, alone_info = tokenizer.encode(audio)
    padded = torch.nn.functional.pad(audio, (0, 5000))
    codes, info = tokenizer.encode(padded, torch.tensor([length, length]))
    assert torch.equal(codes[:, :, : alone.shape[2]], alone)
    torch.testing.assert_close(info.speaker, alone_info.speaker, atol=1e-5, rtol=0)
    torch.testing.assert_close(info.emotion, alone_info.emotion, atol=1e-5, rtol=0)


@pytest.mark.parametrize("chunks", [[1] * 9, [2, 3, 4], [9]])
@torch.no_grad()
def test_a_stream_in_chunks_equals_the_whole(tokenizer, speech, chunks):
    audio = speech(2, 9 * 640)
    codes, _ = tokenizer.encode(audio)
    waveform = tokenizer.decode(codes)
    encoded, decoded = [], []
    with tokenizer.streaming(2):
        for part in audio.split([n * 640 for n in chunks], dim=-1):
            encoded.append(tokenizer.encode(part)[0])
            decoded.append(tokenizer.decode(encoded[-1]))
        assert sum(part.shape[-1] for part in decoded) == waveform.shape[-1] - tokenizer.latency_samples
        decoded.append(tokenizer.flush())
        assert decoded[-1].shape == (2, 1, tokenizer.latency_samples)
        assert tokenizer.flush().shape[-1] == 0
    assert torch.equal(torch.cat(encoded, dim=-1), codes)
    torch.testing.assert_close(torch.cat(decoded, dim=-1), waveform, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_stream_shorter_than_its_latency_still_gives_every_sample(config):
    wide = ConversationalRVQ(dataclasses.replace(config, window_hops=8)).eval()
    assert wide.latency_samples > config.samples_per_frame
    codes = torch.randint(0, 32, (1, 8, 1))
    with wide.streaming(1):
        streamed = torch.cat([wide.decode(codes), wide.flush()], dim=-1)
    torch.testing.assert_close(streamed, wide.decode(codes), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_stream_leaves_nothing_behind_and_is_entered_once(tokenizer, speech):
    audio = speech(1, 3200)
    before = tokenizer.encode(audio)[0]
    with tokenizer.streaming(1):
        tokenizer.encode(audio)
        with pytest.raises(ValueError, match="already entered"), tokenizer.streaming(1):
            pass
    assert torch.equal(tokenizer.encode(audio)[0], before)
    with pytest.raises(ValueError, match="streaming"):
        tokenizer.flush()


@torch.no_grad()
def test_an_impulse_reaches_no_earlier_frame_and_the_output_no_earlier_than_the_latency(tokenizer, speech):
    audio = speech(1, 20 * 640)
    changed = audio.clone()
    place = 10 * 640 + 123
    changed[..., place] += 0.9
    codes, changed_codes = tokenizer.encode(audio)[0], tokenizer.encode(changed)[0]
    assert torch.equal(codes[..., :10], changed_codes[..., :10])
    assert not torch.equal(codes[..., 10], changed_codes[..., 10])
    other = codes.clone()
    other[..., 10] = (other[..., 10] + 1) % 32
    moved = (tokenizer.decode(codes) - tokenizer.decode(other))[0, 0].abs().gt(0).nonzero()
    first = 10 * 640 - tokenizer.latency_samples
    # The Hann window's first sample is 0, and its next ones may round away.
    assert first <= int(moved.min()) <= first + 8


@torch.no_grad()
def test_any_prefix_of_the_codebooks_is_found_alone_and_decodes(tokenizer, speech):
    audio = speech(2, 6400)
    codes, _ = tokenizer.encode(audio)
    for count in range(1, 9):
        prefix, info = tokenizer.encode(audio, num_codebooks=count)
        assert torch.equal(prefix, codes[:, :count])
        waveform = tokenizer.decode(prefix)
        assert waveform.shape == (2, 1, 6400) and waveform.isfinite().all()
        latent = tokenizer.quantizer.decode(prefix)
        torch.testing.assert_close(latent, info.latent, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_speaker_and_emotion_change_the_sound(tokenizer, speech):
    codes, info = tokenizer.encode(speech(1, 3200))
    plain = tokenizer.decode(codes)
    assert not torch.allclose(plain, tokenizer.decode(codes, speaker=info.speaker))
    assert not torch.allclose(plain, tokenizer.decode(codes, emotion=info.emotion))
    torch.testing.assert_close(info.speaker.norm(dim=-1), torch.ones(1))


def test_silence_and_full_scale_give_finite_sound(tokenizer):
    for audio in (torch.zeros(1, 1, 3200), torch.ones(1, 1, 3200)):
        with torch.no_grad():
            codes, info = tokenizer.encode(audio)
            assert tokenizer.decode(codes).isfinite().all() and info.speaker.isfinite().all()


def test_a_wrong_input_is_refused_before_anything_is_computed(tokenizer):
    audio = torch.zeros(2, 1, 800)
    with pytest.raises(ValueError, match="NaN"):
        tokenizer.encode(audio * float("nan"))
    with pytest.raises(ValueError, match="lengths"):
        tokenizer.encode(audio, torch.tensor([801, 800]))
    for count in (0, 9):
        with pytest.raises(ValueError, match="num_codebooks"):
            tokenizer.encode(audio, num_codebooks=count)
    with pytest.raises(ValueError, match="0..31"):
        tokenizer.decode(torch.full((1, 8, 3), 32))
