"""Pairs of neighbouring phones are counted within a text, marks left out."""

from csm.data.corpora.synthetic_dialogues.coverage import SENTENCES, phone_pairs


def test_pairs_leave_out_stress_and_marks():
    assert phone_pairs(["kˈæt, ɪt"]) == {"kæ": 1, "æt": 1, "tɪ": 1, "ɪt": 1}


def test_pairs_do_not_cross_texts():
    assert phone_pairs(["ab", "cd"]) == {"ab": 1, "cd": 1}


def test_sentences_are_distinct():
    assert len(set(SENTENCES)) == len(SENTENCES) >= 80
