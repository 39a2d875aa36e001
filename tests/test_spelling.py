"""Spelling keeps letters, and what CTC's best symbols read is the text again."""

import random

from csm.spelling import LETTERS, outputs_needed, read_letters, spell


def written(text):
    return "".join(LETTERS[symbol] for symbol in spell(text))


def test_spelling_keeps_letters_apostrophes_and_single_spaces():
    assert written("  Hello,  WORLD - it's o'clock_") == "hello world it's o'clock"
    assert spell("") == spell("?!") == []
    assert 0 not in spell("any_blank _ here") and len(set(LETTERS)) == len(LETTERS) == 29


def test_numbers_are_spelled_as_they_are_spoken():
    assert written("It's 5 km, 1990s style") == "it's five kilometers nineteen nineties style"
    assert written("Room 20, the 3rd of 1,200") == "room twenty the third of one thousand two hundred"
    assert written("In 1995.") == "in nineteen ninety five"
    assert not set(written("9" * 1000 + " x 07")) & set("0123456789")


def test_a_spelling_with_repeats_and_blanks_reads_as_its_text_and_needs_as_many_outputs_as_stated():
    draws = random.Random(0)
    for _ in range(200):
        text = " ".join("".join(draws.choices("abl", k=draws.randint(1, 5))) for _ in range(3))
        symbols, outputs = spell(text), []
        for symbol in symbols:
            if outputs and outputs[-1] == symbol:
                outputs.append(0)
            outputs.append(symbol)
        assert len(outputs) == outputs_needed(symbols)
        stretched = [
            s for symbol in outputs for s in [symbol] * draws.randint(1, 3) + [0] * draws.randint(0, 1)
        ]
        assert read_letters(outputs) == read_letters(stretched) == text
