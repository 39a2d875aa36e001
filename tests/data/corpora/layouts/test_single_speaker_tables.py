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


def test_a_table_that_is_no_text_leaves_the_other_folders_whole(tmp_path) -> None:
    for folder in ("a", "b"):
        sound(tmp_path / f"in/{folder}/wavs/{folder}-1.wav")
        text(tmp_path / f"in/{folder}/metadata.csv", f"{folder}-1|Say it.\n")
    (tmp_path / "in/a/metadata.csv").write_bytes(b"a-1|caf\xe9\n")
    corpus = prepared(tmp_path, layout="ljspeech")
    assert [entry[:3] for entry in said(corpus)] == [("b", "b", "Say it.")]
    assert "is no text in UTF-8" in ledger(corpus)


def test_ljspeech_takes_the_first_of_two_texts_of_a_recording(tmp_path) -> None:
    sound(tmp_path / "in/wavs/LJ1-1.wav")
    text(tmp_path / "in/metadata.csv", "LJ1-1|First.\nLJ1-1|Second.\n")
    corpus = prepared(tmp_path)
    assert [turn.text for turn in corpus.turns()] == ["First."]
    assert "line 2" in ledger(corpus) and "LJ1-1 has a text already" in ledger(corpus)


def test_common_voice_names_tables_that_cannot_be_read_and_clips_with_two_sentences(tmp_path) -> None:
    sound(tmp_path / "in/clips/a.wav")
    head = "client_id\tpath\tsentence\n"
    text(tmp_path / "in/dev.tsv", head + "x1\ta.wav\tFirst.\n")
    text(tmp_path / "in/validated.tsv", head + "x1\ta.wav\tSecond.\n")
    (tmp_path / "in/test.tsv").write_bytes(head.encode() + b"x1\ta.wav\tcaf\xe9\n")
    corpus = prepared(tmp_path)
    assert [turn.text for turn in corpus.turns()] == ["First."]
    assert "its clip says 'First.'" in ledger(corpus) and "is no text in UTF-8" in ledger(corpus)
