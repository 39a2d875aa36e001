"""English text as people write it, rewritten as words that the pronunciation lexicon covers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from num2words import num2words

_INVISIBLE = re.compile(
    r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u20e3\ufe0e\ufe0f\ufeff\ud800-\udfff]"
)
_UNITS = {
    "kg": "kilogram", "g": "gram", "mg": "milligram", "km": "kilometer", "m": "meter", "cm": "centimeter",
    "mm": "millimeter", "lb": "pound", "lbs": "pound", "oz": "ounce", "mph": "mile an hour",
    "ml": "milliliter",
    "kHz": "kilohertz", "Hz": "hertz", "MHz": "megahertz", "GHz": "gigahertz", "MB": "megabyte",
    "GB": "gigabyte", "TB": "terabyte", "kB": "kilobyte", "KB": "kilobyte", "ms": "millisecond",
    "hr": "hour", "hrs": "hour", "min": "minute", "mins": "minute", "sec": "second", "secs": "second",
    "°C": "degree Celsius", "°F": "degree Fahrenheit", "°": "degree", "kWh": "kilowatt hour",
    "kW": "kilowatt", "km/h": "kilometer an hour", "m/s": "meter a second", "m²": "square meter",
    "L": "liter", "V": "volt", "W": "watt", "dpi": "dot per inch",
}  # fmt: skip
_PLURALS = {"mile an hour": "miles an hour", "degree Celsius": "degrees Celsius",
            "degree Fahrenheit": "degrees Fahrenheit", "kilometer an hour": "kilometers an hour",
            "meter a second": "meters a second", "dot per inch": "dots per inch"}  # fmt: skip
_CURRENCIES = {"$": ("dollar", "cent"), "€": ("euro", "cent"), "£": ("pound", "penny")}
_COINS = {"cent": "cents", "penny": "pence"}
_SIZES = {
    "million": "million",
    "billion": "billion",
    "trillion": "trillion",
    "k": "thousand",
    "m": "million",
    "b": "billion",
    "bn": "billion",
    "t": "trillion",
}
_ABBREVIATIONS = {
    "e.g.": "for example", "i.e.": "that is", "etc.": "et cetera", "vs.": "versus",
    "approx.": "approximately",
    "dept.": "department", "a.m.": "AM", "p.m.": "PM",
    "ph.d.": "p h d", "w/o": "without",
}  # fmt: skip
# Before a name; in capitals, since "gen." or "sen." may end a sentence.
_TITLES = {
    "Prof": "Professor", "Gen": "General", "Sgt": "Sergeant", "Capt": "Captain", "Gov": "Governor",
    "Sen": "Senator", "Rev": "Reverend", "Lt": "Lieutenant", "Ft": "Fort",
}  # fmt: skip
_MONTHS = {
    "Jan": "January", "Feb": "February", "Mar": "March", "Apr": "April", "Jun": "June", "Jul": "July",
    "Aug": "August", "Sep": "September", "Sept": "September", "Oct": "October", "Nov": "November",
    "Dec": "December",
}  # fmt: skip
_NUMBER = r"[0-9]{1,15}(?:,[0-9]{3}){0,4}(?:\.[0-9]{1,15})?"  # longer ones have no name
_SIGNS = {"@": " at ", ".": " dot ", "/": " slash ", "-": " dash ", "_": " underscore ", ":": " colon ",
          "?": " question mark ", "=": " equals ", "&": " and ", "#": " hash ", "%": " percent ",
          "+": " plus "}  # fmt: skip


def spoken_text(text: str) -> str:
    """Rewrites numbers with letters, units, addresses, abbreviations and signs as words.

    A text of plain words and punctuation is returned unchanged but for its Unicode form (NFC). Whole numbers
    and capitals stay: pronunciation expands the first, and capitals mean emphasis.
    """
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", text))
    for pattern, rewrite in _RULES:
        text = pattern.sub(rewrite, text)
    return "".join(
        " " if unicodedata.category(c) == "So" or "\U0001f3fb" <= c <= "\U0001f3ff" else c for c in text
    )


def _number(written: str) -> str:
    return str(num2words(written.replace(",", ""))).replace("-", " ").replace(",", "")


def _unit(match: re.Match[str]) -> str:
    one = _UNITS[match[2]]
    plural = _PLURALS.get(one, one if one.endswith("hertz") else one + "s")
    return f"{_number(match[1])} {one if match[1] == '1' else plural}"


def _money(match: re.Match[str]) -> str:
    whole, _ = _CURRENCIES[match[1]]
    return f"{_number(match[2])} {_SIZES[match[3].lower()]} {whole}s"


def _price(match: re.Match[str]) -> str:
    whole, part = _CURRENCIES[match[1]]
    coins = part if int(match[3]) == 1 else _COINS[part]
    return f"{_amount(match[2], whole)} and {_number(str(int(match[3])))} {coins}"


def _amount(number: str, currency: str) -> str:
    return f"{_number(number)} {currency}{'' if number == '1' else 's'}"


def _date(match: re.Match[str]) -> str:
    return f"{_MONTHS[match[1]]} {num2words(int(match[2]), to='ordinal')}".replace("-", " ")


def _vulgar_fraction(match: re.Match[str]) -> str:
    return " " + unicodedata.normalize("NFKC", match[0]).replace("\u2044", "/")


def _short_decade(match: re.Match[str]) -> str:
    return _number(match[1])[:-1] + "ies"


def _decade(match: re.Match[str]) -> str:
    words = str(num2words(int(match[1]), to="year")).replace("-", " ")
    return words[:-1] + "ies" if words.endswith("y") else words + "s"


def _fraction(match: re.Match[str]) -> str:
    top, bottom = int(match[2]), int(match[3])
    part = {2: "half", 4: "quarter"}.get(bottom) or str(num2words(bottom, to="ordinal")).replace("-", " ")
    many = "halves" if part == "half" else part + "s"
    count = "a" if match[1] and part == "half" else _number(match[2])
    whole = f"{_number(match[1])} and " if match[1] else ""
    return f"{whole}{count} {part if top == 1 else many}"


def _digits(match: re.Match[str]) -> str:
    return " ".join(_number(c) for c in match[0] if c.isdigit())


def _version(match: re.Match[str]) -> str:
    return " point ".join(_number(part) for part in match[0].split("."))


def _address(match: re.Match[str]) -> str:
    address = re.sub(r"^https?://", "", match[0])
    address = re.sub(r"^www(?=\.)", "w w w", address)
    spoken = "".join(_SIGNS.get(c, c) for c in address.rstrip("/"))
    return " ".join(spoken.split())


def _abbreviation(match: re.Match[str]) -> str:
    return _ABBREVIATIONS[match[0].lower()]


_RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str] | str], ...] = (
    (re.compile(r"\bhttps?://[^\s,;!<>\"']*\w/?|\bwww\.[\w./-]*\w/?"), _address),
    (re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)*\w"), _address),
    (re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, _ABBREVIATIONS))})(?!\w)", re.I), _abbreviation),
    (re.compile(r"\b(?:[a-z0-9-]{1,63}\.){1,4}(?:com|org|net|edu|gov|io)\b(?:/[\w./-]*\w)?", re.I), _address),
    (re.compile(rf"\b({'|'.join(_TITLES)})\. (?=[A-Z])"), lambda match: _TITLES[match[1]] + " "),
    (re.compile(rf"\b({'|'.join(_MONTHS)})\.? ([1-9]|[12][0-9]|3[01])(?:st|nd|rd|th)?\b(?![.:/]\d)"), _date),
    (re.compile(r"(?<!\S)[-\u2212](?=[0-9])"), "minus "),
    (re.compile(rf"([$€£])({_NUMBER}) ?(million|billion|trillion|bn|[kmbt])\b", re.I), _money),
    (re.compile(r"([$€£])([0-9]{1,15}(?:,[0-9]{3}){0,4})\.([0-9]{2})(?![\w.])"), _price),
    (re.compile(rf"€({_NUMBER})(?![\w.,]\w)"), lambda match: _amount(match[1], "euro")),
    (re.compile(rf"¥({_NUMBER})(?![\w.,]\w)"), lambda match: f"{_number(match[1])} yen"),
    (re.compile(rf"(?<![\w.])({_NUMBER}) ?([$€£])(?!\w)"),
     lambda match: _amount(match[1], _CURRENCIES[match[2]][0])),
    (re.compile(r"[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞]"), _vulgar_fraction),
    (re.compile(r"(?<![\w.])[0-9]{1,9}(?:\.[0-9]{1,9}){2,}(?!\w|\.\w)"), _version),
    (re.compile(r"(?<![\w-])(?:\([0-9]{3}\) ?|[0-9]{3}-)?[0-9]{3}-[0-9]{4}(?![\w-])"), _digits),
    (re.compile(r"(?<![\w/])(?:([0-9]{1,4}) +)?([0-9]{1,2})/([2-9]|1[0-9])(?![\w/])"), _fraction),
    (re.compile(r"(?<!\w)([0-9]{3}0)'?s\b"), _decade),
    (re.compile(r"(?<![\w.,'])'?([2-9]0)s\b"), _short_decade),
    (re.compile(r"(?<![\w.,:/$-])0[0-9]{1,15}(?![\w:/-]|[.,]\d)"), _digits),
    (re.compile(r"(?<![\w.,$£])[0-9]{1,3}(?:,[0-9]{3}){1,4}(?:\.[0-9]{1,15})?(?!\w|[,.]\d)"),
     lambda match: _number(match[0])),
    (re.compile(rf"(?<![\w.])({_NUMBER})x(?!\w)"), lambda match: _number(match[1]) + " times"),
    (re.compile(rf"(?<![\w.])({_NUMBER}) ?(" + "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
                + r")(?!\w)"), _unit),
    (re.compile(r"\bSt\. (?=[A-Z])"), "Saint "),
    (re.compile(r"(?:#|\bNo\. )(?=[0-9])"), "number "),
    (re.compile(r"(?<=\w) ?\+ ?(?=\w)|(?<!\S)\+(?=[0-9])"), " plus "),
    (re.compile(r"(?<=\w) ?= ?(?=\w)"), " equals "),
    (re.compile(r"(?<=[0-9])¢"), " cents"),
    (re.compile(r"\b([0-9])'([0-9]{1,2})\"(?!\w)"), r"\1 foot \2"),
    (re.compile(r"(?<![\w-])([0-9]{1,4})[-–]([0-9]{1,4})(?![\w-])"), r"\1 to \2"),
    (re.compile(r"(?<![\w:])([0-9]):([0-9])(?![\w:])"), r"\1 to \2"),
    (re.compile(r"(?<=[0-9])x(?=[0-9])"), " by "),
    (re.compile(r"(?<=[^\W\d]) ?[—–] ?(?=[^\W\d])"), ", "),
    (re.compile(r"(?<=\w) ?--+ ?(?=\w)"), ", "),
    (re.compile("\u2026"), "..."),
    (re.compile(rf"(?<![\w.])({_NUMBER}) ?%"), lambda match: f"{_number(match[1])} percent"),
    (re.compile(r"(?<=[0-9])(?!(?:st|nd|rd|th|s)\b)(?=[A-Za-z])|(?<=[A-Za-z])(?=[0-9])"), " "),
)  # fmt: skip
