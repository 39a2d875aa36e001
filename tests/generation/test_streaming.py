"""Streamed sound is the sound of the whole, and a turn's timing is told as it was."""

import pytest
import torch

from csm.generation.sampling import SamplingConfig
from csm.generation.session import Session
from csm.generation.streaming import speak_aloud, stream_audio
from csm.generation.talker import PACKAGED
from csm.generation.voices import Voice
from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.conversational_rvq import ConversationalRVQ


@pytest.fixture(scope="module")
def tokenizer() -> ConversationalRVQ:
    torch.manual_seed(0)
    config = TokenizerConfig(
        sample_rate=11_025,
        n_codebooks=6,
        codebook_size=24,
        semantic_codebooks=2,
        codebook_dim=8,
        encoder_widths=(16, 16, 16),
        encoder_depths=(1, 1, 1),
        decoder_widths=(16, 16, 16),
        decoder_depths=(1, 2, 1),
        speaker_dim=8,
        emotion_dim=4,
    )
    tokenizer = ConversationalRVQ(config).eval()
    tokenizer.quantizer.semantic.codebooks.normal_()
    tokenizer.quantizer.acoustic.codebooks.normal_()
    return tokenizer


@pytest.mark.parametrize("chunk_frames", [1, 3, 50])
@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize("frames", [1, 2, 10])
def test_chunks_end_to_end_are_what_decoding_at_once_gives(tokenizer, chunk_frames, conditioned, frames):
    codes = torch.randint(0, 24, (1, 6, frames), generator=torch.Generator().manual_seed(frames))
    voice = {"speaker": torch.ones(1, 8), "emotion": torch.ones(1, 4)} if conditioned else {}
    with torch.no_grad():
        whole = tokenizer.decode(codes, **voice)[0]
    chunks = list(stream_audio(tokenizer, iter(codes[0].T), chunk_frames=chunk_frames, **voice))
    streamed = torch.cat(chunks, dim=1)
    assert streamed.shape == whole.shape == (1, frames * tokenizer.config.samples_per_frame)
    assert all(chunk.shape[1] for chunk in chunks)
    torch.testing.assert_close(streamed, whole, rtol=0, atol=1e-5)


def test_a_chunk_is_heard_before_the_next_frame_is_made(tokenizer):
    made = []

    def frames():
        for number in range(5):
            made.append(number)
            yield torch.zeros(6, dtype=torch.int64)

    next(stream := stream_audio(tokenizer, frames()))
    assert made == [0]
    stream.close()
    with torch.no_grad():  # and whoever stops early leaves the tokenizer as it was
        tokenizer.decode(torch.zeros(1, 6, 2, dtype=torch.int64))
    assert not tokenizer.decoder.head.stream_state


def test_no_frames_are_no_sound_and_a_chunk_of_no_frames_is_refused(tokenizer):
    assert list(stream_audio(tokenizer, iter(()))) == []
    with pytest.raises(ValueError, match="chunk_frames is 0: expected 1"):
        list(stream_audio(tokenizer, iter(()), chunk_frames=0))


def test_a_spoken_turn_comes_with_its_timing_and_stays_in_the_session(tokenizer, tiny_model):
    voice = Voice("ANNA", 1, torch.ones(1, 8))
    session = Session(tiny_model(), SamplingConfig(max_seconds=0.8, seed=3))
    spoken = speak_aloud(session, tokenizer, "Hello there.", voice)
    frames = session.turns[-1].turn.codes.shape[1]
    assert spoken.timing.frames == frames
    assert spoken.waveform.shape == (1, frames * tokenizer.config.samples_per_frame)
    assert spoken.timing.audio_s == pytest.approx(frames * 0.08)
    assert 0 < spoken.timing.first_audio_s <= spoken.timing.generation_s
    assert spoken.timing.stopped == ("limit" if frames == 10 else "end")


def test_what_ends_by_itself_and_what_is_cut_off_are_told_apart(tokenizer, tiny_model):
    voice = Voice("ANNA", 1, torch.ones(1, 8))
    model = tiny_model()
    reasons = {}
    for seed in range(30):
        session = Session(model, SamplingConfig(max_seconds=0.8, shortest=0.0, temperature=2.0, seed=seed))
        timing = speak_aloud(session, tokenizer, "Yes.", voice).timing
        reasons.setdefault(timing.stopped, set()).add(timing.frames)
    assert reasons["limit"] == {10}
    assert max(reasons.get("end", {0})) < 10


def roughest_border(waveform: torch.Tensor, borders: list[int]) -> float:
    """Largest second difference within two samples of a border, over the largest anywhere else."""
    bends = waveform[0].diff(n=2).abs()
    at = torch.zeros(len(bends), dtype=torch.bool)
    for border in borders:
        at[max(0, border - 4) : border + 2] = True
    return float(bends[at].max() / bends[~at].max())


@torch.no_grad()
def test_no_click_is_heard_where_chunks_meet_and_one_would_be():
    """A steady low tone through the packaged tokenizer: any step stands out of it."""
    packaged = ConversationalRVQ.from_pretrained(PACKAGED / "tokenizer")
    time = torch.arange(30 * packaged.config.samples_per_frame) / packaged.config.sample_rate
    tone = 0.2 * torch.sin(2 * torch.pi * 150 * time) + 0.1 * torch.sin(2 * torch.pi * 300 * time)
    codes, _ = packaged.encode(tone[None, None])
    # The tone's own beginning is left out: it is no border.
    chunks = list(stream_audio(packaged, iter(codes[0].T)))[4:-2]
    borders = torch.tensor([chunk.shape[1] for chunk in chunks]).cumsum(0).tolist()[:-1]
    assert roughest_border(torch.cat(chunks, dim=1), borders) < 1.2
    # Five samples lost at every border, as of a decoder that counts its delay wrongly.
    clicking = [chunk[:, :-5] for chunk in chunks]
    borders = torch.tensor([chunk.shape[1] for chunk in clicking]).cumsum(0).tolist()[:-1]
    assert roughest_border(torch.cat(clicking, dim=1), borders) > 2.0
