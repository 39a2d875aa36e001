"""The named sizes: what they are for, and what a second of audio may cost."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from csm.recipes import named as recipes
from csm.tokenizer import presets
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.io.packed_weights import packed

SECONDS = 2


def test_the_quickstart_trains_the_quickstart_size():
    assert recipes.quickstart().tokenizer == recipes.telephone_tokenizer().tokenizer == presets.quickstart()
    assert presets.quickstart().sample_rate == 11_025


def test_the_quickstarts_packaged_form_fits_15_mb():
    state = packed(ConversationalRVQ(presets.quickstart()).state_dict())
    assert sum(value.nbytes for value in state.values()) < 14.98e6


def test_the_24_khz_size_is_of_mimis_class():
    config = presets.speech_24khz()
    assert (config.sample_rate, config.frame_rate, config.samples_per_frame) == (24_000, 12.5, 1920)
    assert (config.n_codebooks, config.codebook_size) == (32, 1024) and config.codebook_dim >= 128
    assert min(config.encoder_layers, config.decoder_layers) > 0
    with torch.device("meta"):
        count = sum(p.numel() for p in ConversationalRVQ(config).parameters())
    assert 30e6 < count < 80e6


@pytest.mark.parametrize(
    ("preset", "encode", "decode"),
    # GFLOP of a second. The 24 kHz size keeps to 60 % of transformers' EnCodec, 2.98 and 2.35 (24 kHz, 32
    # codebooks), in a form that runs several times as many of them a second.
    [(presets.quickstart, 0.24, 0.25), (presets.speech_24khz, 1.2, 1.4)],
)
@torch.no_grad()
def test_a_second_of_audio_stays_within_its_operations(preset, encode, decode):
    tokenizer = ConversationalRVQ(preset()).eval()
    frame = tokenizer.config.samples_per_frame
    frames = round(SECONDS * tokenizer.config.frame_rate)
    with FlopCounterMode(display=False) as counted:
        codes, _ = tokenizer.encode(torch.randn(1, 1, frames * frame) * 0.1)
    # The counter does not see the search's own operator: a row meets every vector of every level once.
    book = tokenizer.config.codebook_size * tokenizer.config.codebook_dim
    search = 2 * tokenizer.config.n_codebooks * frames * book
    assert (counted.get_total_flops() + search) / SECONDS <= encode * 1e9
    with FlopCounterMode(display=False) as counted:
        assert tokenizer.decode(codes).shape == (1, 1, frames * frame)
    assert counted.get_total_flops() / SECONDS <= decode * 1e9
