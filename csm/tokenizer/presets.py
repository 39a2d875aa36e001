"""Named sizes of the tokenizer: one for telephone-band speech on a laptop, one for 24 kHz."""

from __future__ import annotations

from csm.tokenizer.config import VOCODER_WIDTH, TokenizerConfig


def quickstart() -> TokenizerConfig:
    """Returns sizes for telephone-band speech at 11,025 Hz: at most 15 MiB of weights in half precision."""
    return TokenizerConfig(
        sample_rate=11_025,
        codebook_dim=128,
        hops_per_frame=9,
        strides=(3, 3),
        ahead=4,
        contrast=1.27,
        encoder_widths=(112, 192, 256),
        encoder_depths=(1, 2, 1),
        decoder_widths=(320, 208, 128),
        decoder_depths=(1, 2, 2),
        encoder_layers=1,
        decoder_layers=1,
        attention_expansion=1,
        recover_phase=True,
    )


def wideband() -> TokenizerConfig:
    """Returns sizes for speech at 24 kHz on a laptop: a semantic encoder like Whisper tiny's, a vocoder."""
    return TokenizerConfig(
        sample_rate=24_000,
        codebook_dim=128,
        acoustic_dim=VOCODER_WIDTH,
        hops_per_frame=8,
        strides=(4, 2),
        encoder_widths=(112, 192, VOCODER_WIDTH),
        encoder_depths=(1, 2, 1),
        decoder_widths=(320, 208, 128),
        decoder_depths=(1, 2, 2),
        encoder_layers=1,
        decoder_layers=1,
        attention_expansion=1,
        vocoder=True,
        semantic_layers=4,
        semantic_block_frames=2,
        prediction_frames=5,
        prediction_hidden=512,
    )


def speech_24khz() -> TokenizerConfig:
    """Returns sizes for 24 kHz speech at Mimi's frame rate and number of codebooks: 4.0 kbit/s.

    Of 51 million parameters 70 % run at the frame rate, 12.5 times per second of audio instead of 75 times at
    the STFT rate. 10 s cost 9.5 GFLOP to encode, the search included, and 13.0 to decode; transformers'
    EnCodec at 24 kHz needs 29.8 and 23.5, its Mimi 53.2 and 53.9 (torch.utils.flop_counter). Theirs are
    convolutions of few channels over many steps, these are wide matrix products:
    benchmarks/test_codec_speed.py compares the times.
    """
    return TokenizerConfig(
        sample_rate=24_000,
        n_codebooks=32,
        codebook_size=1024,
        codebook_dim=128,
        encoder_widths=(256, 384, 640),
        encoder_depths=(2, 3, 2),
        decoder_widths=(640, 448, 384),
        decoder_depths=(2, 3, 4),
        encoder_layers=4,
        decoder_layers=4,
        attention_heads=10,
    )
