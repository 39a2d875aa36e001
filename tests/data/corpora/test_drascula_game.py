"""The data files of Drascula: texts, talk sequences and dialogues are read, broken ones refused."""

import pytest

from csm.data.corpora.drascula_game import read_dialogue, read_sequences, read_texts
from tests.data.small_drascula import SEQUENCES, TEXTS, make_dat, make_dialogue

DAT = make_dat(TEXTS, SEQUENCES)


def test_the_english_texts_are_found_by_the_names_of_their_clips() -> None:
    assert read_texts(DAT) == TEXTS


def test_texts_are_code_page_437() -> None:
    assert read_texts(make_dat({"429": "A TOUPEÉ"}, {}))["429"] == "A TOUPEÉ"


def test_sequences_hold_what_is_said_in_order_and_no_other_command() -> None:
    assert read_sequences(DAT) == SEQUENCES


def test_one_line_of_the_bartender_is_in_draculas_table() -> None:
    assert read_sequences(make_dat({}, {"2:11": ["T1", "D82"]}))["2:11"] == ["T1", "D82"]


@pytest.mark.parametrize("content", [b"", b"DRACULA\6", b"DRASCULA\5" + DAT[9:]])
def test_another_file_is_refused(content: bytes) -> None:
    for read in (read_texts, read_sequences):
        with pytest.raises(ValueError, match=r"begins with .*: expected b'DRASCULA' and version 6"):
            read(content)


@pytest.mark.parametrize("kept", [9, 60, 400, len(DAT) - 1500])
def test_a_truncated_file_is_refused(kept: int) -> None:
    with pytest.raises(ValueError, match="ends inside a table"):
        read_texts(DAT[:kept])


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r\r\r\r\n"])
def test_the_options_of_a_dialogue_have_clips_and_answers(line_end: str) -> None:
    content = make_dialogue(["WHO ARE YOU?", "WHY?", "HOW?", "BYE."], [7, 8, 9, 10], [2, 2, 3], line_end)
    options = read_dialogue(content, "OP_1.CAL")
    assert [option.clip for option in options] == ["7", "8", "9", "10"]
    assert [option.answer for option in options] == [2, 2, 3, None]
    assert options[0].text == "WHO ARE YOU?"


@pytest.mark.parametrize("content", [b"", bytes(200), make_dialogue(["A"] * 4, [1, 2, 3], [1, 2, 3], "\n")])
def test_a_broken_dialogue_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"OP_1.CAL has the lines .*: expected four texts"):
        read_dialogue(content, "OP_1.CAL")
