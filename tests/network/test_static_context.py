"""Contexts at fixed addresses: a row of each conversation attends and reads as it does alone."""

import pytest
import torch

from csm.network.backbone import Backbone
from csm.network.cross_attention import CrossAttention
from csm.network.layers import KeyValueCache
from csm.network.model_config import CSMConfig
from csm.network.static_context import StaticCaches, StaticTexts, between_keys
from csm.network.voice_reading import VoiceReading
from csm.sequences.packed_batch import VoiceSpan

WIDTH, HEADS, CAPACITY = 16, 4, 21


@pytest.fixture(params=[HEADS, 2, 1], ids=["one head a group", "two heads", "four heads"])
def backbone(request) -> Backbone:
    torch.manual_seed(0)
    sizes = {"d_model": WIDTH, "n_layers": 2, "n_heads": HEADS, "n_kv_heads": request.param}
    return Backbone(CSMConfig(**sizes, num_codebooks=2, semantic_codebooks=1))


def grown(backbone: Backbone, rows: int) -> tuple[KeyValueCache, torch.Tensor]:
    """The cache of a conversation of this many rows."""
    cache = KeyValueCache(2, CAPACITY)
    x = torch.randn(rows, WIDTH)
    backbone(x, torch.arange(rows), cache)
    cache.advance(rows)
    return cache, x


@torch.no_grad()
def test_rows_of_conversations_of_any_length_come_out_as_each_does_alone(backbone) -> None:
    lengths = (1, 9, CAPACITY - 2, 4)
    caches = [grown(backbone, rows)[0] for rows in lengths]
    static = StaticCaches(backbone, len(lengths) + 1, CAPACITY, torch.zeros(()))
    places = (3, 1, 0, 4)  # place 2 has no conversation
    for place, cache in zip(places, caches, strict=True):
        static.load(place, cache)
    for _ in range(2):
        x = torch.randn(5, WIDTH)
        position = torch.full((5,), static.spare)
        for place, cache in zip(places, caches, strict=True):
            position[place] = cache.length
        together = backbone(x, position, static.attention(position))
        for place, cache in zip(places, caches, strict=True):
            at = torch.tensor([cache.length])
            alone = backbone(x[place : place + 1], at, cache)
            torch.testing.assert_close(together[place : place + 1], alone, atol=1e-5, rtol=1e-5)
            cache.advance(1)
    # What was computed here continues the conversation's own rows.
    for place, cache, rows in zip(places, caches, lengths, strict=True):
        kept = [tensor.clone() for layer in range(2) for tensor in cache.rows_from(layer)]
        for layer in range(2):
            for tensor in cache.rows_from(layer, rows):
                tensor.zero_()
        static.store(place, cache, rows)
        stored = [tensor for layer in range(2) for tensor in cache.rows_from(layer)]
        torch.testing.assert_close(stored, kept, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_place_is_free_of_what_was_in_it_before(backbone) -> None:
    static = StaticCaches(backbone, 1, CAPACITY, torch.zeros(()))
    for kept in (*static.keys, *static.values):
        kept.fill_(torch.nan)
    cache, _ = grown(backbone, 3)
    static.load(0, cache)
    at = torch.tensor([3])
    assert backbone(torch.randn(1, WIDTH), at, static.attention(at)).isfinite().all()


@pytest.fixture
def layers() -> list[CrossAttention]:
    torch.manual_seed(1)
    return [CrossAttention(WIDTH, HEADS, 1e4, 0.5) for _ in range(2)]


@torch.no_grad()
@pytest.mark.parametrize("window", [0, 3, 30])
def test_rows_read_the_text_of_their_turn_as_each_does_alone(layers, window) -> None:
    """Texts of more and of fewer ids than frames, and of as many; places before, at and beyond their ends."""
    stretched = [(5, 5), (3, 11), (14, 6), (1, 9), (7, 1)]
    readings = []
    for keys, length in stretched:
        source = torch.randn(keys, WIDTH)
        span = VoiceSpan(0, 1, 0, keys, length)
        readings.append(VoiceReading.pack([span], source, layers, window))
    static = StaticTexts(layers, 6, 14, window, torch.zeros(1, WIDTH))
    for index, (reading, (_, length)) in enumerate(zip(readings, stretched, strict=True)):
        static.load(index + 1, reading, length)
    for shift in range(1, 50, 3):
        places = [1, *((shift + 2 * index) for index in range(len(readings)))]
        reading = static.reading(torch.tensor(places))
        parts = [one.step(place) for one, place in zip(readings, places[1:], strict=True)]
        alone = VoiceReading.concat(parts)
        ours, theirs = (read.frame_text[read.key_of_query] for read in (reading, alone))
        assert torch.equal(ours[1:], theirs)
        x = torch.randn(6, WIDTH)
        for index, layer in enumerate(layers):
            together, each = layer(x, reading, index), layer(x[1:], alone, index)
            torch.testing.assert_close(together[1:], each, atol=1e-5, rtol=1e-5)
            assert together.isfinite().all()


def test_keys_on_both_sides_are_those_of_linear_resampling() -> None:
    for count, length in ((5, 5), (3, 11), (14, 6), (1, 9), (7, 1)):
        values = torch.randn(count)
        expected = torch.nn.functional.interpolate(values[None, None], size=length, mode="linear")[0]
        places = torch.arange(length).unsqueeze(0)
        left, right, weight = between_keys(places, torch.tensor([[length]]), torch.tensor([[count]]))
        torch.testing.assert_close(torch.lerp(values[left], values[right], weight), expected)
