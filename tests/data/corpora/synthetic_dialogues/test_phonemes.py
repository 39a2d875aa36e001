"""espeak's IPA becomes Kokoro's letters; punctuation marks stay."""

import shutil

import pytest

from csm.data.corpora.synthetic_dialogues import phonemes

espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed (apt)")


@pytest.mark.parametrize(
    ("ipa", "british", "letters"),
    [
        ("a^ɪ hæd ɐ plˈe^ɪn", False, "I hæd ə plˈAn"),
        ("nˈo^ʊ", False, "nˈO"),
        ("nˈə^ʊ", True, "nˈQ"),
        ("lˈuːz", False, "lˈuz"),
        ("lˈuːz", True, "lˈuːz"),
        ("kˈæt^ʃ", False, "kˈæʧ"),
        ("wˈe^ə", True, "wˈɛː"),
        ("(fr)ʒˈe^ɪ(en)", False, "ʒˈA"),
        ("bˈʌʔn\u0329", False, "bˈʌtᵊn"),
    ],
)
def test_ipa_becomes_the_teachers_letters(ipa, british, letters):
    assert phonemes._letters(ipa, british) == letters


def test_marks_stand_where_the_text_has_them(monkeypatch):
    monkeypatch.setattr(phonemes, "_espeak", lambda clauses, british: list(clauses))
    assert phonemes.phonemize(["ab, cd -- uf... gh?", "ij!"]) == ["ab, cd— uf… gh?", "ij!"]


def test_a_missing_program_is_named(monkeypatch):
    phonemes._program.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="apt install espeak-ng"):
        phonemes.phonemize(["hello"])
    phonemes._program.cache_clear()


@espeak
def test_espeak_pronounces_clause_by_clause():
    assert phonemes.phonemize(["No, I do."]) == ["nˈO, I dˈu."]
    assert phonemes.phonemize(["The world."], british=True) == ["ðə wˈɜːld."]
