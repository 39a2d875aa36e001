"""Fields of entries in other people's files: read by name, checked, never guessed."""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any


def field(entry: Any, *names: str) -> Any:
    """Returns the value of the first of several names that an entry has.

    Raises:
        ValueError: It has none; the message names a key that is spelled like one of them.
    """
    if not isinstance(entry, Mapping):
        raise ValueError(f"is {type(entry).__name__}: expected an object with {' or '.join(names)}")
    for name in names:
        if name in entry:
            return entry[name]
    if (near := _near(entry, names)) is not None:
        key, name = near
        raise ValueError(f"{name} is missing: the entry has {key!r}; rename it to {name}")
    raise ValueError(
        f"{' or '.join(names)} is missing: the entry has {', '.join(map(str, entry)) or 'nothing'}"
    )


def optional(entry: Mapping[str, Any], *names: str) -> Any:
    """Returns the value of the first of several names, None where the entry has none of them.

    Raises:
        ValueError: A key is spelled like one of them.
    """
    for name in names:
        if name in entry:
            return entry[name]
    if (near := _near(entry, names)) is not None:
        raise ValueError(f"{near[0]!r} is spelled like {near[1]}: expected that name; rename it")
    return None


def _near(entry: Mapping[str, Any], names: Sequence[str]) -> tuple[str, str] | None:
    """Returns a key that is spelled like one of the names, with that name."""
    return next(((str(key), name) for name in names for key in entry if _alike(str(key), name)), None)


def text_of(value: Any, name: str = "text") -> str:
    """Returns a transcript with single spaces.

    Raises:
        ValueError: It is null, no string, empty, or holds a control character or a lone surrogate.
    """
    if value is None:
        raise ValueError(f"{name} is null: expected the words that are said")
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}: expected a string with the words that are said")
    text = " ".join(value.split())
    if not text:
        raise ValueError(f"{name} is empty: expected the words that are said")
    return _encodable(text, name)


def speaker_of(value: Any, name: str = "speaker") -> str:
    """Returns a speaker's name, from a string or a whole number.

    Raises:
        ValueError: It is null, empty, or of another kind.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"{name} is {'null' if value is None else repr(value)}: expected a name")
    # A folder's name may be other bytes than UTF-8, which Python holds as surrogates of its own.
    shown = re.sub("[\udc80-\udcff]", lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", value)
    cleaned = " ".join(shown.split())
    if not cleaned:
        raise ValueError(f"{name} is empty: expected a name")
    return _encodable(cleaned, name)


def _encodable(text: str, name: str) -> str:
    if (control := re.search("[\x00-\x1f\x7f-\x9f]", text)) is not None:
        raise ValueError(f"{name} holds the control character {control[0]!r}: expected text; export it again")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} holds the lone surrogate {text[error.start]!r}: expected text; export it again"
        ) from error
    return text


def label_of(value: Any, name: str) -> str | None:
    """Returns a label such as an emotion, None where it is null or empty.

    Raises:
        ValueError: It is neither a string nor a whole number.
    """
    return None if value in (None, "") else speaker_of(value, name)


def channel_of(value: Any, name: str = "channel") -> int:
    """Returns the number of a channel, from a whole number or its digits.

    Raises:
        ValueError: It is no whole number of 0 or more.
    """
    if isinstance(value, str) and value.isdecimal() and value.isascii():
        return int(value)
    if isinstance(value, float) and value.is_integer() and value >= 0:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError(f"{name} is {'null' if value is None else repr(value)}: expected 0, 1, ...")


def seconds_of(value: Any, name: str) -> float:
    """Returns a time in seconds.

    Raises:
        ValueError: It is no number of 0 or more.
    """
    try:
        seconds = math.nan if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{name} is {value!r}: expected seconds, 0 or more")
    return seconds


def _alike(key: str, name: str) -> bool:
    """Returns whether a key is another spelling of a name: by case, Unicode form, or one letter."""
    folded = unicodedata.normalize("NFKC", key).casefold().strip(" _-")
    if key == name:
        return False
    return folded == name or (len(name) > 3 and difflib.SequenceMatcher(None, folded, name).ratio() > 0.85)


def stated_length(entry: object) -> float | None:
    """Returns end - start of an entry in seconds, None where it states none that can be."""
    if not isinstance(entry, Mapping):
        return None
    start, end = entry.get("start"), entry.get("end")
    if not isinstance(start, int | float) or not isinstance(end, int | float):
        return None
    return float(end - start) if 0 <= start < end < 1e9 else None
