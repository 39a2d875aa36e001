"""Text codecs (text <-> ids): UTF-8 bytes, phones, a Hugging Face tokenizer.json, or none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from csm.pronunciation import EMPHASISED, PHONES, STRESS, pronounced, silent_letters, without_emphasis
from csm.system.extras import missing_package
from csm.system.log import log

PAD, BOS, EOS, LISTEN = 256, 257, 258, 259
FIRST_SPEAKER, MAX_SPEAKERS = 260, 128


@runtime_checkable
class TextCodec(Protocol):
    """The interface of a text tokenizer that data, network and generation use.

    Attributes:
        vocab_size: Number of text ids.
        end_id: Id that ends a text.
    """

    vocab_size: int
    end_id: int

    def encode_turn(self, text: str, speaker: int) -> list[int]:
        """Returns the ids of a turn to speak: begin, speaker, text, end."""
        ...

    def listen_prefix(self, speaker: int) -> list[int]:
        """Returns the ids before a turn whose audio is transcribed: listen, speaker."""
        ...

    def encode_text(self, text: str) -> list[int]:
        """Returns the ids of a transcript: text, end."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids without the control ids."""
        ...

    def speaker_id(self, speaker: int) -> int:
        """Returns the id that identifies this speaker in `encode_turn` and `listen_prefix`."""
        ...


class ByteCodec:
    """UTF-8 bytes, four control ids and one id per speaker: it covers every text without a vocabulary file.

    Ids: 0..255 bytes, 256 padding, 257 begin, 258 end, 259 listen, from 260 on the speakers.

    Args:
        max_speakers: Number of speaker ids.

    Raises:
        ValueError: From its methods: the text is empty, or the speaker is outside 0..max_speakers - 1.
    """

    def __init__(self, max_speakers: int = MAX_SPEAKERS) -> None:
        self.max_speakers = max_speakers
        self.vocab_size = FIRST_SPEAKER + max_speakers
        self.end_id = EOS

    def encode_turn(self, text: str, speaker: int) -> list[int]:
        """Returns begin, speaker, bytes of the stripped text, end."""
        return [BOS, self.speaker_id(speaker), *self.encode_text(text)]

    def listen_prefix(self, speaker: int) -> list[int]:
        """Returns listen, speaker."""
        return [LISTEN, self.speaker_id(speaker)]

    def encode_text(self, text: str) -> list[int]:
        """Returns the bytes of the stripped text, end."""
        return [*_stripped(text).encode("utf-8"), EOS]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the bytes among the ids; invalid UTF-8 becomes U+FFFD."""
        return bytes(i for i in ids if i < PAD).decode("utf-8", errors="replace")

    def speaker_id(self, speaker: int) -> int:
        """Returns 260 + speaker."""
        if not 0 <= speaker < self.max_speakers:
            raise ValueError(
                f"speaker is {speaker}: expected 0..{self.max_speakers - 1}; number the speakers from 0, or "
                f"train with a larger model.max_speakers"
            )
        return FIRST_SPEAKER + speaker


class PhoneCodec(ByteCodec):
    """English phones for turns to speak, UTF-8 bytes for transcripts.

    English spelling cannot be learned from a few hours of speech. Ids: those of ByteCodec, then `PHONES`.

    Args:
        max_speakers: Number of speaker ids.

    Raises:
        ValueError: As ByteCodec.
    """

    def __init__(self, max_speakers: int = MAX_SPEAKERS) -> None:
        super().__init__(max_speakers)
        self._phones = {phone: self.vocab_size + index for index, phone in enumerate(PHONES)}
        self.vocab_size += len(PHONES)
        self._numbers = {*self._phones.values()}
        self._named: set[str] = set()

    def encode_turn(self, text: str, speaker: int) -> list[int]:
        """Returns begin, speaker, phones with spaces and punctuation marks (`pronounced`), end.

        Words without phones are encoded as bytes. Letters and digits that no phone stands for are named in a
        warning, each once.
        """
        ids = [BOS, self.speaker_id(speaker)]
        symbols = self._symbols(_stripped(text))
        self._name_silent(
            silent_letters(text).union(s for s in symbols if s.isalnum() and s not in self._phones)
        )
        for symbol in symbols:
            phone = self._phones.get(symbol)
            ids += symbol.encode("utf-8") if phone is None else [phone]
        return [*ids, EOS]

    def is_phone(self, number: int) -> bool:
        """Returns whether an id stands for a phone."""
        return number in self._numbers

    def _symbols(self, text: str) -> tuple[str, ...]:
        return pronounced(text)

    def _name_silent(self, letters: set[str]) -> None:
        """Warns of letters that no phone stands for."""
        new = sorted(letters - self._named)
        if new:
            self._named.update(new)
            log.warning(
                "text has letters without a sound: %s; expected English; write them in English letters",
                ", ".join(f"{letter} (U+{ord(letter):04X})" for letter in new),
            )


class EmphasisCodec(PhoneCodec):
    """Phones, and vowels of their own for what a word in capitals stresses.

    Ids: those of PhoneCodec; the emphasised vowels have the bytes 1 to 16, control characters. Texts lose
    theirs: each stretch of spaces, tabs and line breaks is one space. A text has as many ids as in
    PhoneCodec.
    In transcripts a word in capitals has lower case, where the lexicon holds it.

    Args:
        max_speakers: Number of speaker ids.

    Raises:
        ValueError: As ByteCodec.
    """

    def __init__(self, max_speakers: int = MAX_SPEAKERS) -> None:
        super().__init__(max_speakers)
        self._phones |= {vowel: index for index, vowel in enumerate(EMPHASISED, start=1)}
        self._numbers = {*self._phones.values()}

    def stressed_ids(self) -> dict[int, int]:
        """Returns the id of the stressed vowel of each emphasised one."""
        return {self._phones[one]: self._phones[one.removeprefix(STRESS)] for one in EMPHASISED}

    def encode_text(self, text: str) -> list[int]:
        """Returns the bytes of the text without emphasis, end."""
        return super().encode_text(without_emphasis(_without_controls(text)))

    def _symbols(self, text: str) -> tuple[str, ...]:
        return pronounced(_without_controls(text), emphasis=True)


class HuggingFaceCodec:
    """A tokenizer.json of the `tokenizers` library in csm-1b's prompt layout: bos, "[speaker]text", eos.

    Args:
        path: Path of the tokenizer.json.
        bos, eos: Begin and end token, as the vocabulary spells them.

    Raises:
        ValueError: The package tokenizers is missing, or the vocabulary lacks bos or eos; from its methods:
            the text is empty or the speaker is negative.
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
                f"{path} lacks the tokens {missing}; pass bos= and eos= as its vocabulary spells them"
            )
        self._bos, self.end_id = int(ids[bos] or 0), int(ids[eos] or 0)

    def encode_turn(self, text: str, speaker: int) -> list[int]:
        """Returns begin, "[speaker]text", end."""
        return [self._bos, *self._ids(self._tag(speaker) + _stripped(text)), self.end_id]

    def listen_prefix(self, speaker: int) -> list[int]:
        """Returns begin, "[speaker]"."""
        return [self._bos, *self._ids(self._tag(speaker))]

    def encode_text(self, text: str) -> list[int]:
        """Returns the ids of the stripped text, end."""
        return [*self._ids(_stripped(text)), self.end_id]

    def speaker_id(self, speaker: int) -> int:
        """Returns the last id of the speaker's number."""
        self._tag(speaker)
        return self._ids(str(speaker))[-1]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the ids without the vocabulary's special tokens."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    @staticmethod
    def _tag(speaker: int) -> str:
        if speaker < 0:
            raise ValueError(f"speaker is {speaker}: expected 0 or above; number the speakers from 0")
        return f"[{speaker}]"


class NoTextCodec:
    """The codec of a model whose checkpoint came without a text tokenizer: every method raises.

    Raises:
        ValueError: From its methods; the message says how to give the model its tokenizer.
    """

    vocab_size = 0
    end_id = -1

    def encode_turn(self, text: str, speaker: int) -> list[int]:
        """Raises ValueError."""
        raise self._missing()

    def listen_prefix(self, speaker: int) -> list[int]:
        """Raises ValueError."""
        raise self._missing()

    def encode_text(self, text: str) -> list[int]:
        """Raises ValueError."""
        raise self._missing()

    def decode(self, ids: Sequence[int]) -> str:
        """Raises ValueError."""
        raise self._missing()

    def speaker_id(self, speaker: int) -> int:
        """Raises ValueError."""
        raise self._missing()

    @staticmethod
    def _missing() -> ValueError:
        return ValueError(
            "this model has no text tokenizer: put tokenizer.json into its folder, or name one "
            "with CSMModel.from_pretrained(folder, text='path/to/tokenizer.json')"
        )


def _without_controls(text: str) -> str:
    """Returns the text without control characters; each stretch of white space is one space."""
    return "".join(character for character in " ".join(text.split()) if character >= " ")


def _stripped(text: str) -> str:
    """Returns the stripped text, which must not be empty."""
    if not text.strip():
        raise ValueError(
            "text is empty: expected at least one character that is no space; give the turn a text"
        )
    return text.strip()


# Codecs without a file, by name. `text_codec` also accepts "none".
BUILT_IN: dict[str, type[ByteCodec]] = {"bytes": ByteCodec, "phones": PhoneCodec, "emphasis": EmphasisCodec}


def aligned_as(name: str) -> str:
    """Returns the name of the codec whose symbols are aligned for this one: one symbol stands for each id."""
    return "phones" if name == "emphasis" else name


def text_codec(name: str, max_speakers: int = MAX_SPEAKERS) -> TextCodec:
    """Returns a text codec by its name or by the path of a tokenizer.json.

    Args:
        name: "bytes", "phones", "emphasis", "none" (a codec that raises), or a path.
        max_speakers: Number of speaker ids of the first three; a tokenizer.json spells speakers as text.

    Raises:
        ValueError: `name` is neither a known name nor a file.
    """
    if name == "none":
        return NoTextCodec()
    if name in BUILT_IN:
        return BUILT_IN[name](max_speakers)
    if not Path(name).is_file():
        raise ValueError(
            f"text codec is {name!r}: expected {', '.join(map(repr, BUILT_IN))}, 'none' or the path of a "
            f"tokenizer.json; "
            f"check the name, or that the file exists"
        )
    return HuggingFaceCodec(name)
