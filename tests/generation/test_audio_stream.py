"""Streamed audio equals the whole, and a speech has its times and the reason why each turn ended."""

import pytest
import torch

from csm.generation.audio_stream import SpeechStream, stream_audio
from csm.generation.sampling import SamplingConfig
from csm.generation.session import Session
from csm.generation.voice_folder import PACKAGED
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


def test_a_chunk_is_yielded_before_the_next_frame_is_generated(tokenizer):
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


def test_no_frames_give_no_audio_and_chunks_of_no_frames_are_refused(tokenizer):
    assert list(stream_audio(tokenizer, iter(()))) == []
    with pytest.raises(ValueError, match="chunk_frames is 0: expected 1"):
        list(stream_audio(tokenizer, iter(()), chunk_frames=0))


def speech_of(tokenizer, session, *turns, **options):
    return SpeechStream(tokenizer, session, Voice("ANNA", 1, torch.ones(1, 8)), turns, **options)


def test_a_speech_comes_with_its_timing_and_its_turn_stays_in_the_session(tokenizer, tiny_model):
    session = Session(tiny_model(), SamplingConfig(max_seconds=0.8, seed=3))
    speech = speech_of(tokenizer, session, "Hello there.").whole()
    frames = session.turns[-1].turn.codes.shape[1]
    assert speech.timing.frames == frames and torch.equal(session.turns[-1].turn.codes, speech.codes)
    assert speech.waveform.shape == (1, frames * tokenizer.config.samples_per_frame)
    assert speech.timing.audio_s == pytest.approx(frames * 0.08)
    assert 0 < speech.timing.first_audio_s <= speech.timing.first_sound_s <= speech.timing.generation_s
    assert speech.endings == (speech.timing.ended,) == ("limit" if frames == 10 else "end_code",)


def test_a_turn_that_the_model_ends_differs_from_one_that_is_cut_off(tokenizer, tiny_model):
    model = tiny_model()
    reasons = {}
    for seed in range(30):
        session = Session(model, SamplingConfig(max_seconds=0.8, shortest=0.0, temperature=2.0, seed=seed))
        timing = speech_of(tokenizer, session, "Yes.").whole().timing
        reasons.setdefault(timing.ended, set()).add(timing.frames)
    assert reasons["limit"] == {10}
    assert max(reasons["end_code"]) < 10


def test_each_turn_has_its_own_reason_and_the_one_that_was_closed_says_so(tokenizer, tiny_model):
    session = Session(tiny_model(), SamplingConfig(max_seconds=0.4, shortest=9.0))
    stream = speech_of(tokenizer, session, "One.", "Two.", "Three.", pause=[torch.zeros(5).long()])
    for _ in range(8):
        next(stream)
    assert stream.sentence == "Two." and stream.endings == ("limit", "stopped")
    stream.close()
    assert stream.endings == ("limit", "stopped") and stream.timing.ended == "limit"
    assert stream.timing == stream.timing, "a closed stream has ended"
    session = Session(tiny_model(), SamplingConfig(max_seconds=0.4, shortest=9.0))
    stream = speech_of(tokenizer, session, "One.")
    next(stream)
    stream.close()
    assert stream.timing.ended == "stopped"


def test_the_limit_of_a_turn_is_the_shortest_of_time_context_and_expected_length(tokenizer, tiny_model):
    never = {"shortest": 99.0, "temperature": 0.0}
    for model, seconds, frames in (
        (tiny_model(max_context=20), 15.0, 20 - len(tiny_model().codec.encode_turn("Yes.", 1)) - 1),
        (tiny_model(), 0.24, 3),
        (tiny_model(), 15.0, None),
    ):
        session = Session(model, SamplingConfig(max_seconds=seconds, **never))
        speech = speech_of(tokenizer, session, "Yes.").whole()
        expected = session.turns[-1].length
        assert speech.endings == ("limit",)
        assert speech.timing.frames == (2 * expected + 12 if frames is None else frames)


def roughest_border(waveform: torch.Tensor, borders: list[int]) -> float:
    """Largest second difference within two samples of a border, over the largest anywhere else."""
    bends = waveform[0].diff(n=2).abs()
    at = torch.zeros(len(bends), dtype=torch.bool)
    for border in borders:
        at[max(0, border - 4) : border + 2] = True
    return float(bends[at].max() / bends[~at].max())


@torch.no_grad()
def test_chunks_meet_without_a_click_and_a_lost_sample_would_give_one():
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
