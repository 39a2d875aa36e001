"""Text codecs: every text survives a round trip, every turn names its speaker, empty text is refused."""

import json

import pytest

from csm.pronunciation import EMPHASISED, PHONES, VOWELS, pronounced
from csm.text import (
    BOS,
    BUILT_IN,
    EOS,
    LISTEN,
    MAX_SPEAKERS,
    ByteCodec,
    EmphasisCodec,
    HuggingFaceCodec,
    PhoneCodec,
    TextCodec,
    aligned_as,
    text_codec,
)

EMPHATIC = "You said THAT, I never DID."
TEXTS = ["Hello.", "Grüße, 東京!", "a\nb", "\U0001f600", "x" * 500]


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory):
    """A word-level tokenizer.json with csm-1b's special tokens."""
    pytest.importorskip("tokenizers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<unk>",
        "[",
        "]",
        *map(str, range(10)),
        "hello",
        "there",
    ]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(words[:2])
    path = tmp_path_factory.mktemp("text") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.mark.parametrize("text", TEXTS)
def test_the_byte_codec_decodes_what_it_encodes(text) -> None:
    codec = ByteCodec()
    assert codec.decode(codec.encode_text(text)) == text
    assert codec.decode(codec.encode_turn(text, 3)) == text


def test_a_turn_in_bytes_is_begin_speaker_text_end() -> None:
    codec = ByteCodec()
    assert codec.encode_turn(" hi ", 2) == [BOS, codec.speaker_id(2), *b"hi", EOS]
    assert codec.listen_prefix(2) == [LISTEN, codec.speaker_id(2)]
    assert codec.encode_text("hi") == [*b"hi", codec.end_id]
    assert max(codec.encode_turn("hi", codec.max_speakers - 1)) < codec.vocab_size


def test_the_phone_codec_encodes_turns_in_phones_and_transcripts_in_bytes() -> None:
    codec, letters = PhoneCodec(), ByteCodec()
    assert text_codec("phones").vocab_size == codec.vocab_size == letters.vocab_size + len(PHONES)
    assert codec.encode_text("Hi, 2!") == letters.encode_text("Hi, 2!")
    assert codec.decode(codec.encode_text("Hi, 2!")) == "Hi, 2!"
    begin, speaker, *spoken, end = codec.encode_turn(" Ship, yes! 東 ", 2)
    assert [begin, speaker, end] == [BOS, codec.speaker_id(2), EOS]
    # Punctuation and words that are not English are bytes; the ids of phones follow all others.
    assert bytes(i for i in spoken if i < letters.vocab_size).decode() == ", ! 東"
    phones = [PHONES[i - letters.vocab_size] for i in spoken if i >= letters.vocab_size]
    assert phones == [symbol for symbol in pronounced("Ship, yes!") if symbol in PHONES]


def test_letters_without_a_phone_are_named_once(caplog) -> None:
    codec = PhoneCodec()
    codec.encode_turn("Hello, it is 5kg \u00b15 in the caf\u00e9.", 0)
    assert not caplog.messages
    codec.encode_turn("say \u6771", 0)
    codec.encode_turn("say \u6771 again", 0)
    (message,) = caplog.messages
    assert "U+6771" in message
    codec.encode_turn("a\u0436b", 0)  # inside a word, where no character of it is left
    assert "U+0436" in caplog.messages[1]


def test_invalid_utf8_is_decoded_to_replacement_characters() -> None:
    assert ByteCodec().decode([0xFF, ord("a"), EOS]) == "\ufffda"


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_empty_text_is_refused(text, tokenizer_file) -> None:
    for codec in (ByteCodec(), PhoneCodec(), HuggingFaceCodec(tokenizer_file)):
        for encode in (codec.encode_text, lambda t, codec=codec: codec.encode_turn(t, 0)):
            with pytest.raises(ValueError, match="text is empty"):
                encode(text)


@pytest.mark.parametrize("speaker", [-1, 128])
def test_a_speaker_out_of_range_is_refused(speaker) -> None:
    with pytest.raises(ValueError, match=rf"speaker is {speaker}: expected 0..127"):
        ByteCodec().encode_turn("hi", speaker)
    with pytest.raises(ValueError, match=rf"speaker is {speaker}: expected 0..127"):
        PhoneCodec().encode_turn("hi", speaker)


def test_a_larger_max_speakers_adds_an_id_for_each_speaker() -> None:
    for name, codec in (("bytes", ByteCodec()), ("phones", PhoneCodec())):
        more = text_codec(name, 200)
        assert more.vocab_size == codec.vocab_size + 200 - MAX_SPEAKERS
        assert more.speaker_id(199) == more.speaker_id(0) + 199
        assert max(more.encode_turn("hi", 199)) < more.vocab_size


def test_a_hugging_face_turn_has_the_layout_of_csm_1b(tokenizer_file) -> None:
    codec = text_codec(str(tokenizer_file))
    ids = codec.encode_turn("hello there", 7)
    assert ids[0] == 0 and ids[-1] == codec.end_id == 1
    assert codec.listen_prefix(7) == ids[:4]
    assert ids[4:] == codec.encode_text("hello there")
    assert codec.decode(ids) == "[ 7 ] hello there"


def test_speakers_have_different_ids(tokenizer_file) -> None:
    for codec in (ByteCodec(), HuggingFaceCodec(tokenizer_file)):
        ids = [codec.speaker_id(s) for s in range(3)]
        assert len(set(ids)) == 3
        assert all(i in codec.encode_turn("hello", s) for s, i in enumerate(ids))
    with pytest.raises(ValueError, match="speaker is -1"):
        HuggingFaceCodec(tokenizer_file).encode_turn("hello", -1)


def test_a_missing_codec_or_token_is_named(tokenizer_file, tmp_path) -> None:
    with pytest.raises(ValueError, match="expected 'bytes', 'phones', 'emphasis', 'none' or the path"):
        text_codec("llama")
    with pytest.raises(ValueError, match="<s>.*pass bos= and eos="):
        HuggingFaceCodec(tokenizer_file, bos="<s>")
    assert json.loads(tokenizer_file.read_text())["model"]["type"] == "WordLevel"


def test_a_model_without_a_text_tokenizer_refuses_text_and_names_the_fix() -> None:
    codec = text_codec("none")
    assert isinstance(codec, TextCodec)
    for call in (
        lambda: codec.encode_turn("hi", 0),
        lambda: codec.listen_prefix(0),
        lambda: codec.encode_text("hi"),
        lambda: codec.decode([1]),
        lambda: codec.speaker_id(0),
    ):
        with pytest.raises(ValueError, match="put tokenizer.json into its folder"):
            call()


def test_emphasised_vowels_have_ids_that_no_other_symbol_has() -> None:
    codec, plain = EmphasisCodec(), PhoneCodec()
    assert codec.vocab_size == plain.vocab_size
    ids, without = codec.encode_turn(EMPHATIC, 3), plain.encode_turn(EMPHATIC, 3)
    assert without == plain.encode_turn(EMPHATIC.lower(), 3) == codec.encode_turn(EMPHATIC.lower(), 3)
    changed = [a for a, b in zip(ids, without, strict=True) if a != b]
    assert len(changed) == 2 and all(1 <= a <= len(VOWELS) and codec.is_phone(a) for a in changed)
    assert not any(plain.is_phone(a) for a in changed)
    assert len(EMPHASISED) == len(VOWELS) < ord(" ")


def test_no_character_of_a_text_is_read_as_an_emphasised_vowel() -> None:
    codec = EmphasisCodec()
    for text in ("a\nb", "*\t*", "a\x01b\x10", "Stop.\r\nGo."):
        for ids in (codec.encode_turn(text, 0), codec.encode_text(text)):
            assert not [number for number in ids if number < ord(" ")], text
    assert codec.decode(codec.encode_text(EMPHATIC)) == "You said that, I never did."


def test_a_codec_is_aligned_as_one_with_as_many_symbols() -> None:
    for name in BUILT_IN:
        codec, aligned = text_codec(name), text_codec(aligned_as(name))
        assert len(codec.encode_turn(EMPHATIC, 0)) == len(aligned.encode_turn(EMPHATIC, 0))
    assert aligned_as("emphasis") == "phones" and aligned_as("bytes") == "bytes"
