"""Speakers keep their numbers when a training continues with another corpus."""

from csm.data.speakers import speaker_numbers


def test_a_new_model_counts_speakers_in_their_order():
    assert speaker_numbers(["ANN", "BEN", "CAT"]) == {"ANN": 0, "BEN": 1, "CAT": 2}


def test_known_ones_keep_their_numbers_and_new_ones_take_the_lowest_free():
    numbers = speaker_numbers(["ANN", "BEN", "CAT", "DAN"], {"CAT": 0, "BEN": 7, "EVE": 1})
    assert numbers == {"ANN": 2, "BEN": 7, "CAT": 0, "DAN": 3}
