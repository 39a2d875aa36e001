"""LJSpeech's and Common Voice's tables."""

from tests.data.corpora.layouts.small_trees import ledger, prepared, said, sound, text


def test_ljspeech_has_a_conversation_a_chapter_and_takes_the_written_out_text(tmp_path) -> None:
    for name in ("LJ001-0001", "LJ001-0002", "LJ002-0001"):
        sound(tmp_path / f"in/LJ/wavs/{name}.wav")
    table = (
        'LJ001-0001|In 1456,|In fourteen fifty-six,\nLJ001-0002|"quoted|\nLJ002-0001|Last.\nLJ9|Gone.\nLJ8\n'
    )
    text(tmp_path / "in/LJ/metadata.csv", table)
    corpus = prepared(tmp_path)
    assert [entry[:3] for entry in said(corpus)] == [
        ("LJ001", "LJ", "In fourteen fifty-six,"),
        ("LJ001", "LJ", '"quoted'),
        ("LJ002", "LJ", "Last."),
    ]
    assert corpus.turns()[0].id == "LJ001-0001"
    assert "recording 'LJ9' is missing" in ledger(corpus) and "has one column" in ledger(corpus)


def test_common_voice_keeps_its_splits_and_counts_a_clip_once(tmp_path) -> None:
    for name in "abc":
        sound(tmp_path / f"in/clips/{name}.wav")
    head = "client_id\tpath\tsentence\tup_votes\n"
    text(tmp_path / "in/validated.tsv", head + 'x1\ta.wav\tSay "this.\t2\nx2\tb.wav\tSecond.\t2\n')
    text(tmp_path / "in/dev.tsv", head + "x2\tb.wav\tSecond.\t2\n")
    text(tmp_path / "in/other.tsv", head + "x3\tc.wav\tUnchecked.\t0\n")
    corpus = prepared(tmp_path)
    assert [entry[:3] for entry in said(corpus)] == [("b", "x2", "Second."), ("a", "x1", 'Say "this.')]
    assert corpus.turns("validation")[0].text == "Second."
    assert "its clips are not validated" in ledger(corpus)
