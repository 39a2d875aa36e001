"""Symbols are aligned to where they were synthesised, and a path is the best of all paths."""

import itertools
import math

import pytest
import torch

from csm.data.forced_alignment import (
    STEPS_PER_SECOND,
    SpokenText,
    align,
    best_paths,
    cepstra,
    symbols,
    train_aligner,
    uniform_paths,
)
from csm.text import ByteCodec, PhoneCodec

CODEC = ByteCodec()
RATE = 7500  # 100 samples a step


def paths_of(steps: int, letters: int) -> list[list[int]]:
    """Returns every path that stays or advances by one letter per step."""
    moves = itertools.combinations(range(1, steps), letters - 1)
    return [[sum(t >= move for move in chosen) for t in range(steps)] for chosen in moves]


@pytest.mark.parametrize(("steps", "letters"), [(1, 1), (5, 1), (5, 5), (7, 3), (9, 4)])
def test_the_best_path_is_the_best_of_all(steps, letters) -> None:
    generator = torch.Generator().manual_seed(steps * 10 + letters)
    scores = torch.full((3, 11, 6), -1e9)
    scores[:, :steps, :letters] = torch.randn(3, steps, letters, generator=generator)
    scores[1, :, :] = torch.randn(11, 6, generator=generator)  # a longer neighbour
    counts, lengths = torch.tensor([letters, 6, letters]), torch.tensor([steps, 11, steps])
    found = best_paths(scores, lengths, counts)
    for item in (0, 2):
        every = torch.tensor(paths_of(steps, letters))
        sums = scores[item, :steps].gather(1, every.T).sum(dim=0)
        assert found[item, :steps].tolist() == every[sums.argmax()].tolist()


def test_uniform_paths_give_all_letters_the_same_duration() -> None:
    paths = uniform_paths(torch.tensor([12, 7]), torch.tensor([4, 3]))
    assert paths[0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert torch.bincount(paths[1, :7]).tolist() == [3, 2, 2]


def spoken(index: int, generator: torch.Generator) -> tuple[SpokenText, torch.Tensor]:
    """Synthesises a text, a chord of 40 to 280 ms per letter between noise, and the end of each letter."""
    # No letter twice in a row: the boundary between two would be arbitrary.
    steps = torch.randint(1, 8, (12,), generator=generator)
    letters = (steps.cumsum(0) % 8).tolist()
    spent = torch.randint(3, 22, (len(letters) + 2,), generator=generator)
    pieces = []
    for letter, count in zip([None, *letters, None], spent.tolist(), strict=True):
        time = torch.arange(count * 100) / RATE
        tone = torch.zeros(len(time)) if letter is None else sum(
            torch.sin(2 * math.pi * (220 + 190 * letter) * k * time) / k for k in (1, 2, 3)
        )  # fmt: skip
        pieces.append(0.2 * tone + 0.003 * torch.randn(len(time), generator=generator))
    text = "".join("abcdefgh"[letter] for letter in letters)
    sound = torch.cat(pieces).unsqueeze(0)
    return SpokenText(f"t{index}", cepstra(sound, RATE), symbols(CODEC, text)), spent.cumsum(
        0
    ) / STEPS_PER_SECOND


def test_letters_are_aligned_to_where_they_were_synthesised() -> None:
    generator = torch.Generator().manual_seed(0)
    made = [spoken(index, generator) for index in range(72)]
    recordings = [item for item, _ in made]
    ends = align(train_aligner(recordings, 250, CODEC.vocab_size), recordings)
    errors = torch.cat([(ends[item.id] - truth).abs() for item, truth in made])
    even = [
        (torch.arange(1, len(truth) + 1) * (float(truth[-1]) / len(truth)) - truth).abs() for _, truth in made
    ]
    assert float(torch.cat(even).median()) > 0.06
    assert float(errors.median()) <= 2.01 / STEPS_PER_SECOND and float((errors < 0.06).float().mean()) > 0.9
    assert all(float(ends[item.id][-1]) == pytest.approx(float(truth[-1]), abs=1e-4) for item, truth in made)


def test_training_is_reproducible_and_keeps_the_random_state() -> None:
    generator = torch.Generator().manual_seed(1)
    recordings = [spoken(index, generator)[0] for index in range(4)]
    state = torch.get_rng_state()
    one, two = (train_aligner(recordings, 5, CODEC.vocab_size) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_recording_too_short_for_its_text_gets_uniform_durations() -> None:
    generator = torch.Generator().manual_seed(2)
    long, _ = spoken(0, generator)
    short = SpokenText("short", long.cepstra[:6], symbols(CODEC, "a much longer text"))
    ends = align(train_aligner([long, short], 3, CODEC.vocab_size), [long, short])["short"]
    torch.testing.assert_close(ends, torch.arange(1, 21) * (6 / 20 / STEPS_PER_SECOND))
    with pytest.raises(ValueError, match="recordings are too short"):
        train_aligner([short], 3, CODEC.vocab_size)


def test_cepstra_ignore_loudness_and_cover_every_step() -> None:
    sound = torch.randn(1, 1234, generator=torch.Generator().manual_seed(0))
    assert cepstra(sound, RATE).shape == (13, 32)
    torch.testing.assert_close(cepstra(4 * sound, RATE), cepstra(sound, RATE), atol=1e-3, rtol=1e-3)
    assert cepstra(sound[:, :1], RATE).shape == (1, 32)
    assert bool(cepstra(torch.zeros(1, 500), RATE).isfinite().all())


@pytest.mark.parametrize("codec", [ByteCodec(), PhoneCodec()])
def test_symbols_are_the_ids_of_a_turn_without_the_first(codec) -> None:
    for text in (" Hé! ", "ÀB", "Ship 2 東"):
        found = symbols(codec, text)
        assert len(found) == len(codec.encode_turn(text, 5)) - 1
        assert found.tolist() == symbols(codec, text).tolist() and int(found.max()) < codec.vocab_size
        assert (found[0], found[-1]) == (codec.speaker_id(0), codec.end_id)


def test_capitals_become_lower_case() -> None:
    assert bytes(symbols(CODEC, " Hé, AZ! ")[1:-1].tolist()).decode() == "hé, az!"
