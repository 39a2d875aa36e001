"""The file of word times."""

import pytest

from csm.data.word_times import Word, read_words, rounded, write_words


def test_words_are_read_as_they_were_written_and_no_words_are_no_file(tmp_path) -> None:
    words = {"a": (Word("caf\u00e9,", 0.1, 0.25), Word('"so"', 0.3, 0.4)), "b": ()}
    write_words(tmp_path, [("b", ())])
    assert not list(tmp_path.iterdir()) and read_words(tmp_path) == {}
    write_words(tmp_path, words.items())
    assert read_words(tmp_path) == {"a": words["a"]}


def test_times_are_rounded_to_microseconds() -> None:
    assert rounded([Word("a", 1 / 3, 2 / 3)]) == (Word("a", 0.333333, 0.666667),)


@pytest.mark.parametrize("line", ["no json", '{"turn": "a"}', '{"turn": "a", "words": [["x", 1]]}', "5"])
def test_a_line_of_another_form_is_one_error_with_its_number(tmp_path, line: str) -> None:
    (tmp_path / "words.jsonl").write_text('{"turn": "a", "words": []}\n' + line + "\n")
    with pytest.raises(ValueError, match="line 2: expected turn and words"):
        read_words(tmp_path)
