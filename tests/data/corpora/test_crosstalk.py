"""A leak makes no speech on the other channel, whoever speaks there for themselves is kept."""

import numpy as np
import pytest

from csm.data.corpora.crosstalk import without_crosstalk

WINDOWS = 3_000


def talk(seed: int, leak_db: float, *, gain_db: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Returns who speaks [2, W], and the power of two leaking channels [2, W]."""
    rng = np.random.default_rng(seed)
    spoken, position, who = np.zeros((2, WINDOWS), bool), 10, 0
    while position < WINDOWS:
        length = int(rng.integers(20, 150))
        spoken[who, position : position + length] = True
        position += length + int(rng.integers(-30, 30))
        who = 1 - who
    own = spoken * 10 ** (rng.normal(-20, 3, spoken.shape) / 10)
    leaks = own[::-1] * 10 ** ((leak_db + rng.normal(0, 1, spoken.shape)) / 10)
    powers = (own + leaks + 1e-9) * np.array([[1.0], [10 ** (gain_db / 10)]])
    return spoken, powers


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("leak_db", "gain_db"), [(-20, 0), (-12, 0), (-20, 15), (-25, -12)])
def test_a_leak_is_no_speech_and_overlaps_are_kept(seed: int, leak_db: float, gain_db: float) -> None:
    spoken, powers = talk(seed, leak_db, gain_db=gain_db)
    detected = (spoken | spoken[::-1]).astype(float)  # the detector finds both speakers on both channels
    kept, leaks = without_crosstalk(detected, powers)
    for channel in range(2):
        alone = spoken[1 - channel] & ~spoken[channel]
        assert kept[channel][alone].mean() < 0.03
        assert kept[channel][spoken[channel]].mean() > 0.95
    assert {(leak.channel, leak.source) for leak in leaks} == {(0, 1), (1, 0)}
    expected = {1: leak_db + gain_db, 0: leak_db - gain_db}
    assert all(abs(leak.decibel - expected[leak.channel]) < 2 for leak in leaks)


@pytest.mark.parametrize("seed", range(5))
def test_channels_without_a_leak_stay_as_they_are(seed: int) -> None:
    spoken, powers = talk(seed, -70)
    kept, leaks = without_crosstalk(spoken.astype(float), powers)
    assert (kept == spoken).all() and not leaks


def test_a_channel_on_which_only_the_other_speaker_is_heard_has_no_speech() -> None:
    spoken, _ = talk(1, -20)
    powers = np.stack([spoken[0] * 0.01, spoken[0] * 0.0001]) + 1e-9
    kept, leaks = without_crosstalk(np.stack([spoken[0], spoken[0]]).astype(float), powers)
    assert (kept[0] == spoken[0]).all() and not kept[1].any()
    assert [(leak.channel, round(leak.decibel)) for leak in leaks] == [(1, -20)]


def test_two_channels_of_one_microphone_are_refused() -> None:
    spoken, powers = talk(2, -20)
    both = np.stack([powers[0], powers[0]])
    with pytest.raises(
        ValueError, match="channels 0 and 1 hold the same speech at the same level: expected one"
    ):
        without_crosstalk(np.ones_like(both) * spoken.any(0), both)


def test_one_channel_has_no_leak() -> None:
    spoken, powers = talk(3, -20)
    kept, leaks = without_crosstalk(spoken[:1].astype(float), powers[:1])
    assert (kept == spoken[:1]).all() and not leaks
