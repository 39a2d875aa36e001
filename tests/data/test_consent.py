"""Consent is entered by speaker, kept in corpus.json and asked for where no licence stands."""

import json

import pytest

from csm.data.consent import consents, parsed_consents, record_consents, without_consent
from csm.data.manifest import CORPUS_NAME, MANIFEST_NAME, Conversation, Turn, read_corpus, write_manifest


def corpus(root, speakers=("ANNA", "BEN"), **info):
    root.mkdir()
    turns = tuple(
        Turn(
            id=f"{root.name}{n}", conversation=root.name, index=n, speaker=name, text="x", audio="a", end=1.0
        )
        for n, name in enumerate(speakers)
    )
    write_manifest(root / MANIFEST_NAME, [Conversation(id=root.name, split="train", turns=turns)])
    (root / CORPUS_NAME).write_text(json.dumps({"name": "own", **info}), encoding="utf-8")
    return read_corpus(root)


def test_statements_are_kept_beside_what_corpus_json_holds(tmp_path):
    own = corpus(tmp_path / "own")
    assert without_consent(own) == ["ANNA", "BEN"] and consents(own) == {}
    record_consents(own, parsed_consents(["ANNA = signed 2026-11-01"], own.speakers()))
    record_consents(own, {"BEN": "a=b"})
    again = read_corpus(tmp_path / "own")
    assert consents(again) == {"ANNA": "signed 2026-11-01", "BEN": "a=b"} and again.info["name"] == "own"
    assert without_consent(again) == []


def test_a_corpus_with_a_licence_asks_nobody_and_joined_corpora_keep_their_statements(tmp_path):
    assert without_consent(corpus(tmp_path / "public", licence="CC BY 4.0")) == []
    record_consents(corpus(tmp_path / "one"), {"ANNA": "yes"})
    corpus(tmp_path / "two", speakers=("CID",))
    joined = read_corpus(f"{tmp_path / 'one'},{tmp_path / 'two'}")
    assert consents(joined) == {"ANNA": "yes"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ANNA", "expected SPEAKER=STATEMENT"),
        ("=yes", "expected SPEAKER=STATEMENT"),
        ("ANNA= ", "expected SPEAKER=STATEMENT"),
        ("GODOT=yes", "names 'GODOT': expected one of ANNA, BEN"),
    ],
)
def test_other_forms_are_refused(text, said):
    with pytest.raises(ValueError, match=said):
        parsed_consents([text], ["ANNA", "BEN"])


def test_another_value_in_corpus_json_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"corpus.json: consent is \['ANNA'\]: expected a text"):
        consents(corpus(tmp_path / "own", consent=["ANNA"]))
