"""Drascula's texts in capitals become sentences."""

import pytest

from csm.data.corpora.drascula_texts import OTHER_WORDS, SPOKEN, sentence_case


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("IT'S B.J.! ARE YOU ALL RIGHT B.J.?", "It's B.J.! Are you all right B.J.?"),
        ("SET B.J. AND ME FREE", "Set B.J. and me free."),
        ("NO. I WON'T, DRASCULA!", "No. I won't, Drascula!"),
        ("WELL...THAT DOESN'T MATTER. I ALWAYS", "Well...that doesn't matter. I always."),
        ("YES, WELL... I THINK I'LL GO", "Yes, well... I think I'll go."),
        ("WHAT A MEAN GUY!. JUST BECAUSE", "What a mean guy! Just because."),
        ('IT WAS  "EL COYOTE", MY TWIN', 'It was "El Coyote", my twin.'),
        ('"DEAR JOHNNY"', '"Dear Johnny"'),
        ("HUH?. BY THE WAY", "Huh? By the way."),
        ("WEARS A TOUPEÉ  HE SURE IS DRASCULA!", "Wears a toupeé he sure is Drascula!"),
        ("PROFESSOR VON BRAUN'S IGLOO", "Professor Von Braun's igloo."),
    ],
)
def test_capitals_become_sentence_case(written: str, spoken: str) -> None:
    assert sentence_case(written) == spoken
    assert sentence_case(spoken) == spoken


def test_a_clip_has_other_words_or_a_corrected_text_not_both() -> None:
    assert not set(SPOKEN) & set(OTHER_WORDS) and all(SPOKEN.values()) and all(OTHER_WORDS.values())
