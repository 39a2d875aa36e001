"""Words that are higher, louder and slower than those around them are marked, in half of the turns."""

import pytest
import torch

from csm.data.code_shards import EncodedTurn
from csm.data.emphasis import PROMINENT, marked_text, prominence
from csm.data.manifest import Conversation, Corpus, Turn
from csm.data.turn_table_file import table_of
from csm.system.files import hash_key
from csm.text import EmphasisCodec, PhoneCodec

TEXT = "I never said that she took it."
CODEC = EmphasisCodec()
# A turn whose hash is in the half that is marked, and one that is not.
MARKED = next(name for name in map(str, range(99)) if hash_key(name)[0] < 128)
UNMARKED = next(name for name in map(str, range(99)) if hash_key(name)[0] >= 128)


def spoken(loud: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns ends of the symbols of TEXT and the prosody of a reading with one word emphasised."""
    return evenly(TEXT, loud)


def evenly(text: str, loud: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns ends of the symbols of a text and the prosody of a reading with one word emphasised."""
    ids = CODEC.encode_turn(text, 0)[1:]
    generator = torch.Generator().manual_seed(0)
    words = [CODEC.is_phone(number) for number in ids]
    place, now, ends, rows = -1, 0.0, [], []
    for index in range(len(ids)):
        place += words[index] and not (index and words[index - 1])
        emphasised = words[index] and place == loud
        now += 2.0 if emphasised else 1.0
        ends.append(now)
        while len(rows) < round(now):
            noise = 0.02 * torch.randn(3, generator=generator)
            pitch = 5.0 - 0.01 * len(rows) + 0.4 * emphasised
            rows.append(torch.tensor([pitch, 1.0, -3.5 + 1.0 * emphasised]) + noise * torch.tensor([1, 0, 1]))
    return torch.tensor(ends), torch.stack(rows)


@pytest.mark.parametrize("loud", range(7))
def test_the_emphasised_word_is_in_capitals_and_its_turn_as_long(loud: int) -> None:
    found = marked_text(CODEC, MARKED, TEXT, *spoken(loud))
    words = TEXT.split()
    expected = [w.upper() if i == loud and len(w) > 1 else w for i, w in enumerate(words)]
    # "it" in capitals is two letters.
    expected = ["it." if w == "IT." else w for w in expected]
    assert found == " ".join(expected)
    assert len(CODEC.encode_turn(found, 0)) == len(CODEC.encode_turn(TEXT, 0))


def test_other_turns_stay_as_they_are() -> None:
    ends, prosody = spoken(2)
    assert marked_text(CODEC, MARKED, TEXT, ends, prosody) == TEXT.replace("said", "SAID")
    assert marked_text(CODEC, UNMARKED, TEXT, ends, prosody) == TEXT
    # Not aligned; no text of numbers, whose words are others than the phones'; no part of a word.
    assert marked_text(CODEC, MARKED, TEXT, ends[:0], prosody) == TEXT
    for text in (
        "I paid 20 dollars and 5 cents.",
        "I don\u2019t have 5 dogs here today.",
        "Oh, I said that.",
    ):
        few = text.startswith("Oh") and text.replace("Oh, ", "")
        found = marked_text(CODEC, MARKED, few or text, *evenly(few or text, loud=2))
        assert found == (few or text)
    assert (
        marked_text(CODEC, MARKED, "Oh, I said that.", *evenly("Oh, I said that.", loud=2))
        != "Oh, I said that."
    )
    parts = "We read twenty-five books there."
    for loud in range(6):
        assert marked_text(CODEC, MARKED, parts, *evenly(parts, loud)).lower() == parts.lower()
        assert "FIVE" not in marked_text(CODEC, MARKED, parts, *evenly(parts, loud))


def test_half_of_all_turns_are_marked() -> None:
    ends, prosody = spoken(2)
    share = sum(marked_text(CODEC, f"t{n}", TEXT, ends, prosody) != TEXT for n in range(400)) / 400
    assert 0.4 < share < 0.6


def test_prominence_does_not_follow_level_and_slope() -> None:
    spans = [(0.0, 2.0, 2), (2.0, 4.0, 2), (4.0, 8.0, 3), (8.0, 10.0, 2), (10.0, 14.0, 2)]
    prosody = torch.randn(14, 3, generator=torch.Generator().manual_seed(3)).abs() * 0.1
    prosody[:, 1] = 1.0
    prosody[4:8, ::2] += 1.0
    first = prominence(spans, prosody)
    assert max(range(5), key=first.__getitem__) == 2 and first[2] > PROMINENT
    moved = prosody.clone()
    moved[:, 0] += 3.0
    moved[:, 2] -= 2.0
    assert prominence(spans, moved) == pytest.approx(first, abs=1e-4)
    # Silence and no pitch at all are no error.
    assert len(prominence(spans, torch.zeros(14, 3))) == 5


def test_a_table_marks_texts_for_a_codec_that_reads_marks(tmp_path) -> None:
    ends, prosody = spoken(2)
    turn = Turn(id=MARKED, conversation="c", index=0, speaker="A", text=TEXT, audio="a.wav", end=2.0)
    conversation = Conversation(id="c", split="train", turns=(turn,))
    corpus = Corpus(root=tmp_path, conversations=(conversation,), info={"name": "c"})
    codes = torch.zeros(4, len(prosody), dtype=torch.int16)
    encoded = {MARKED: EncodedTurn(MARKED, codes, prosody.half(), torch.zeros(4).half())}
    texts = {}
    for codec in (CODEC, PhoneCodec()):
        table = table_of(corpus, encoded, "train", codec, numbers={"A": 0}, ends={MARKED: ends})
        texts[type(codec)] = table.turn(0).text
        assert int(table.arrays["text_rows"][0]) == len(codec.encode_turn(TEXT, 0))
    assert texts == {EmphasisCodec: TEXT.replace("said", "SAID"), PhoneCodec: TEXT}
