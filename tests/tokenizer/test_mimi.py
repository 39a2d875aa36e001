"""Mimi behind the tokenizer's interface, on a small random model of transformers."""

import sys

import pytest
import torch

from csm.tokenizer.mimi import MimiTokenizer

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def mimi():
    torch.manual_seed(0)
    config = transformers.MimiConfig(
        hidden_size=32,
        num_filters=4,
        codebook_size=32,
        codebook_dim=16,
        vector_quantization_hidden_dimension=16,
        num_quantizers=6,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=32,
        upsample_groups=32,
        sliding_window=20,
    )
    model = transformers.MimiModel(config)
    for name, buffer in model.named_buffers():
        if name.endswith("cluster_usage") or name.endswith("initialized"):
            buffer.fill_(1.0)
        elif name.endswith("embed_sum"):
            buffer.copy_(torch.randn(buffer.shape) * 0.1)
    return MimiTokenizer(model)


def audio(batch, samples):
    return 0.1 * torch.randn(batch, 1, samples, generator=torch.Generator().manual_seed(1))


def test_its_config_has_the_sizes_that_users_of_the_codes_need(mimi):
    config = mimi.config
    assert (config.sample_rate, config.frame_rate, config.samples_per_frame) == (24_000, 12.5, 1920)
    assert (config.n_codebooks, config.codebook_size, config.semantic_codebooks) == (6, 32, 1)


@pytest.mark.parametrize("samples", [1, 1920, 1921, 9000])
def test_codes_are_exactly_batch_by_codebooks_by_the_frames_begun(mimi, samples):
    codes, info = mimi.encode(audio(2, samples))
    frames = -(-samples // 1920)
    assert codes.shape == (2, 6, frames) and codes.dtype == torch.int64
    assert info.frames.tolist() == [frames] * 2
    assert mimi.decode(codes).shape == (2, 1, frames * 1920)


def test_an_item_of_a_batch_has_the_codes_it_has_alone(mimi):
    whole = audio(3, 9600)
    codes, _ = mimi.encode(whole)
    assert codes.unique().numel() > 8, "a test of constant codes shows nothing"
    for item in range(3):
        assert torch.equal(mimi.encode(whole[item : item + 1])[0][0], codes[item])


def test_padding_does_not_change_codes(mimi):
    alone, _ = mimi.encode(audio(1, 5000))
    padded, info = mimi.encode(torch.nn.functional.pad(audio(1, 5000), (0, 7000)), torch.tensor([5000]))
    assert int(info.frames) == 3 and torch.equal(padded[..., :3], alone)


def test_fewer_codebooks_are_a_prefix_and_decode(mimi):
    codes, _ = mimi.encode(audio(1, 5000))
    few = MimiTokenizer(mimi.model, n_codebooks=3)
    assert torch.equal(few.encode(audio(1, 5000))[0], codes[:, :3])
    assert mimi.decode(codes[:, :3]).shape == (1, 1, 3 * 1920)
    for count in (0, 1, 7):
        with pytest.raises(ValueError, match="n_codebooks"):
            MimiTokenizer(mimi.model, n_codebooks=count)


def test_a_folder_is_saved_by_transformers_and_read_here(mimi, tmp_path):
    mimi.model.save_pretrained(tmp_path)
    again = MimiTokenizer.from_pretrained(tmp_path)
    assert again.config == mimi.config
    assert torch.equal(again.encode(audio(1, 5000))[0], mimi.encode(audio(1, 5000))[0])
    with pytest.raises(ValueError, match="no Mimi in"):
        MimiTokenizer.from_pretrained(tmp_path / "nowhere")


def test_without_transformers_one_line_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"csm-speech\[hf\]"):
        MimiTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(1, 2, 800), "mix channels down"),
        (torch.zeros(1, 1, 0), "no samples"),
        (torch.full((1, 1, 800), float("nan")), "NaN"),
    ],
)
def test_audio_of_another_form_is_refused(mimi, wrong, message):
    with pytest.raises(ValueError, match=message):
        mimi.encode(wrong)


def test_codes_of_another_form_are_refused(mimi):
    for wrong in (torch.full((1, 6, 2), 32), torch.full((1, 6, 2), -1)):
        with pytest.raises(ValueError, match="0..31"):
            mimi.decode(wrong)
    with pytest.raises(ValueError, match="int64"):
        mimi.decode(torch.zeros(1, 6, 2))
    for count in (0, 7):
        with pytest.raises(ValueError, match="1 <= K <= 6"):
            mimi.decode(torch.zeros(1, count, 2, dtype=torch.int64))


def test_fewer_codebooks_may_be_searched_in_one_call(mimi):
    codes, _ = mimi.encode(audio(1, 5000))
    for count in (1, 3, 6):
        assert torch.equal(mimi.encode(audio(1, 5000), num_codebooks=count)[0], codes[:, :count])
    for count in (0, 7):
        with pytest.raises(ValueError, match=f"num_codebooks is {count}: expected 1 to 6"):
            mimi.encode(audio(1, 5000), num_codebooks=count)


def test_the_semantic_codebook_decodes_alone(mimi):
    codes, _ = mimi.encode(audio(1, 5000))
    assert float(mimi.decode(codes[:, :1]).abs().max()) > 0


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_chunks_add_up_to_the_whole_without_clicks(mimi, frames):
    # 48 frames are 96 steps of the transformer, whose window is 20.
    codes = torch.randint(0, 32, (2, 6, 48), generator=torch.Generator().manual_seed(frames))
    whole = mimi.decode(codes)
    with mimi.streaming(2):
        chunks = [mimi.decode(part) for part in codes.split(frames, dim=2)]
    assert [chunk.shape[2] for chunk in chunks[:-1]] == [1920 * frames] * (len(chunks) - 1)
    assert float(whole.abs().max()) > 0.01, "a test of silence shows nothing"
    torch.testing.assert_close(torch.cat(chunks, dim=2), whole, atol=1e-5, rtol=0)
    assert not torch.allclose(mimi.decode(codes[..., frames : 2 * frames]), chunks[1], atol=1e-4), "no past"
    assert mimi.flush().shape[2] == mimi.latency_samples == 0


def test_streams_of_one_model_are_independent(mimi):
    codes = torch.randint(0, 32, (2, 1, 6, 5), generator=torch.Generator().manual_seed(3))
    other = mimi.with_own_state()
    assert other.model is mimi.model
    with mimi.streaming(1), other.streaming(1):
        frames = [codes[..., t : t + 1] for t in range(5)]
        turns = [(mimi.decode(frame[0]), other.decode(frame[1])) for frame in frames]
    for number, chunks in enumerate(zip(*turns, strict=True)):
        torch.testing.assert_close(torch.cat(chunks, 2), mimi.decode(codes[number]), atol=1e-5, rtol=0)


def test_a_stream_that_is_entered_twice_or_encodes_is_refused(mimi):
    with mimi.streaming(1):
        with pytest.raises(ValueError, match="already entered"), mimi.streaming(1):
            pass
        with pytest.raises(ValueError, match="decode alone"):
            mimi.encode(audio(1, 1920))
    with pytest.raises(ValueError, match="batch_size is 0"), mimi.streaming(0):
        pass


def test_what_mimi_has_not_is_refused(mimi):
    codes = torch.zeros(1, 6, 2, dtype=torch.int64)
    _, info = mimi.encode(audio(1, 1920))
    assert info.speaker.shape == info.emotion.shape == (1, 0)
    mimi.decode(codes, speaker=info.speaker, emotion=info.emotion)
    with pytest.raises(ValueError, match="speaker has width 8"):
        mimi.decode(codes, speaker=torch.ones(1, 8))
    with pytest.raises(ValueError, match="contrast is 1.5"):
        mimi.decode(codes, contrast=1.5)


def test_its_own_folder_has_the_same_codes(mimi, tmp_path):
    mimi.save_pretrained(tmp_path, half=True)
    again = MimiTokenizer.from_pretrained(tmp_path)
    assert torch.equal(again.encode(audio(1, 5000))[0], mimi.encode(audio(1, 5000))[0])
