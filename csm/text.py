"""Text <-> ids: bytes with a few control ids by default, phones, any Hugging Face tokenizer.json, or none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from csm.pronunciation import PHONES, pronounced
from csm.system.extras import missing_package

PAD, BOS, EOS, LISTEN = 256, 257, 258, 259
FIRST_SPEAKER, MAX_SPEAKERS = 260, 128


@runtime_checkable
class TextCodec(Protocol):
    """What the data pipeline and the generator need of a text tokenizer."""

    vocab_size: int
    end_id: int

    def encode_turn(self, text: str, speaker: int) -> list[int]:
        """Ids of a turn that will be spoken: begin, speaker, text, end."""
        ...

    def listen_prefix(self, speaker: int) -> list[int]:
        """Ids that announce a turn that is heard first and then written."""
        ...

    def encode_text(self, text: str) -> list[int]:
        """Ids of a text that is written, with the end id."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; control ids are left out."""
        ...

    def speaker_id(self, speaker: int) -> int:
        """The id that tells this speaker apart in `encode_turn` and `listen_prefix`."""
        ...


class ByteCodec:
    """UTF-8 bytes, four control ids and one id per speaker: no vocabulary to fetch, no text it cannot write.

    Ids: 0..255 bytes, 256 padding, 257 begin, 258 end, 259 listen, 260 on the speakers.

    Args:
        max_speakers: Speaker ids that get a row of their own.

    Raises:
        ValueError: From its methods, an empty text or a speaker outside 0..max_speakers - 1.
    """

    def __init__(self, max_speakers: int = MAX_SPEAKERS) -> None:
        self.max_speakers = max_speakers
        self.vocab_size = FIRST_SPEAKER + max_speakers
        self.end_id = EOS

    def encode_turn(self, text: str, speaker: int) -> list[int]:
        """Begin, speaker, bytes of the stripped text, end."""
        return [BOS, self.speaker_id(speaker), *self.encode_text(text)]

    def listen_prefix(self, speaker: int) -> list[int]:
        """Listen, speaker."""
        return [LISTEN, self.speaker_id(speaker)]

    def encode_text(self, text: str) -> list[int]:
        """Bytes of the stripped text, end."""
        return [*_something(text).encode("utf-8"), EOS]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the bytes among the ids; bytes that are no UTF-8 become U+FFFD."""
        return bytes(i for i in ids if i < PAD).decode("utf-8", errors="replace")

    def speaker_id(self, speaker: int) -> int:
        """The speaker's own id."""
        if not 0 <= speaker < self.max_speakers:
            raise ValueError(f"speaker is {speaker}: expected 0..{self.max_speakers - 1}")
        return FIRST_SPEAKER + speaker


class PhoneCodec(ByteCodec):
    """English is spoken from its phones and written in bytes.

    A few hours of speech do not teach how English is spelled. Ids: those of ByteCodec, then `PHONES`.

    Args:
        max_speakers: Speaker ids that get a row of their own.

    Raises:
        ValueError: As ByteCodec.
    """

    def __init__(self, max_speakers: int = MAX_SPEAKERS) -> None:
        super().__init__(max_speakers)
        self._phones = {phone: self.vocab_size + place for place, phone in enumerate(PHONES)}
        self.vocab_size += len(PHONES)

    def encode_turn(self, text: str, speaker: int) -> list[int]:
        """Begin, speaker, phones of the text with its spaces and marks (`pronounced`), end."""
        ids = [BOS, self.speaker_id(speaker)]
        for symbol in pronounced(_something(text)):
            phone = self._phones.get(symbol)
            ids += symbol.encode("utf-8") if phone is None else [phone]
        return [*ids, EOS]


class HuggingFaceCodec:
    """A tokenizer.json of the `tokenizers` library, with csm-1b's prompt layout: bos, "[speaker]text", eos.

    Args:
        path: The tokenizer.json.
        bos, eos: Tokens of the vocabulary.

    Raises:
        ValueError: The package tokenizers is missing, or the vocabulary lacks bos or eos; from its methods,
            an empty text or a negative speaker.
    """

    def __init__(
        self, path: Path | str, *, bos: str = "<|begin_of_text|>", eos: str = "<|end_of_text|>"
    ) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ValueError(missing_package("tokenizers", "reading a tokenizer.json")) from error
        self._tokenizer = Tokenizer.from_file(str(path))
        self.vocab_size = self._tokenizer.get_vocab_size()
        ids = {name: self._tokenizer.token_to_id(name) for name in (bos, eos)}
        missing = [name for name, value in ids.items() if value is None]
        if missing:
            raise ValueError(
                f"{path} has no token {missing}: pass bos= and eos= as its vocabulary names them"
            )
        self._bos, self.end_id = int(ids[bos] or 0), int(ids[eos] or 0)

    def encode_turn(self, text: str, speaker: int) -> list[int]:
        """Begin, "[speaker]text", end."""
        return [self._bos, *self._ids(self._tag(speaker) + _something(text)), self.end_id]

    def listen_prefix(self, speaker: int) -> list[int]:
        """Begin, "[speaker]"."""
        return [self._bos, *self._ids(self._tag(speaker))]

    def encode_text(self, text: str) -> list[int]:
        """The stripped text, end."""
        return [*self._ids(_something(text)), self.end_id]

    def speaker_id(self, speaker: int) -> int:
        """The last id of the speaker's number."""
        self._tag(speaker)
        return self._ids(str(speaker))[-1]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids without the vocabulary's special tokens."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    @staticmethod
    def _tag(speaker: int) -> str:
        if speaker < 0:
            raise ValueError(f"speaker is {speaker}: expected 0 or above")
        return f"[{speaker}]"


class NoTextCodec:
    """Of a model whose checkpoint came without its tokenizer: it refuses all text.

    Raises:
        ValueError: From all its methods; says how to give the model its tokenizer.
    """

    vocab_size = 0
    end_id = -1

    def encode_turn(self, text: str, speaker: int) -> list[int]:
        """Refused."""
        raise self._missing()

    def listen_prefix(self, speaker: int) -> list[int]:
        """Refused."""
        raise self._missing()

    def encode_text(self, text: str) -> list[int]:
        """Refused."""
        raise self._missing()

    def decode(self, ids: Sequence[int]) -> str:
        """Refused."""
        raise self._missing()

    def speaker_id(self, speaker: int) -> int:
        """Refused."""
        raise self._missing()

    @staticmethod
    def _missing() -> ValueError:
        return ValueError(
            "this model came without its text tokenizer: put tokenizer.json into its folder, or name one "
            "with CSMModel.from_pretrained(folder, text='path/to/tokenizer.json')"
        )


def _something(text: str) -> str:
    """The stripped text, which must not be empty."""
    if not text.strip():
        raise ValueError("text is empty: expected something to say")
    return text.strip()


# Codecs that need no file, by name; "none" is one more.
BUILT_IN: dict[str, type[ByteCodec]] = {"bytes": ByteCodec, "phones": PhoneCodec}


def text_codec(name: str, max_speakers: int = MAX_SPEAKERS) -> TextCodec:
    """The codec called "bytes" or "phones", none for "none", or the one of a tokenizer.json at this path.

    Args:
        name: Of the codec.
        max_speakers: Speaker ids of "bytes" and "phones"; the others have their own way to name speakers.

    Raises:
        ValueError: None of these names and no file.
    """
    if name == "none":
        return NoTextCodec()
    if name in BUILT_IN:
        return BUILT_IN[name](max_speakers)
    if not Path(name).is_file():
        raise ValueError(f"text codec {name!r}: expected 'bytes', 'phones' or the path of a tokenizer.json")
    return HuggingFaceCodec(name)
