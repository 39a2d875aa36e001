"""Matches of written numbers, and the words that they are read as."""

from __future__ import annotations

import re
import unicodedata

from num2words import num2words

from csm.text_tables import BEFORE_SMALL, CURRENCIES, DOTTED_UNITS, MONTH_NAMES, SIZES, UNITS, Currency

NUMBER = r"[0-9]{1,15}(?:,[0-9]{3}){0,4}(?:\.[0-9]{1,15})?"  # longer ones have no name
_HEAD = re.compile(r"(.*?)((?: (?:per|an?) .*| Celsius| Fahrenheit)?)")
_UNCHANGED = ("hertz", "horsepower")
_BEFORE_SMALL = {word: re.compile(f"(?:{before})$", re.I) for word, before in BEFORE_SMALL.items()}
_LOOKS_BACK = 20  # characters: what stands before a word of BEFORE_SMALL is shorter
_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}


def number(written: str) -> str:
    """Returns a number's words; decimals digit by digit."""
    whole, point, decimals = written.replace(",", "").partition(".")
    words = str(num2words(int(whole))).replace("-", " ").replace(",", "")
    return words if not point else f"{words} point {digits(decimals)}"


def ordinal(value: int) -> str:
    """Returns a number as an ordinal: "twenty first"."""
    return str(num2words(value, to="ordinal")).replace("-", " ")


def digits(written: str) -> str:
    """Returns the names of the digits of a text."""
    return " ".join(str(num2words(int(c))) for c in written if "0" <= c <= "9")


def two_digits(written: str) -> str:
    """Returns two digits as they end a time or a year: "hundred", "o five", "twelve"."""
    if written == "00":
        return "hundred"
    return f"o {number(written[1])}" if written[0] == "0" else number(written)


def roman(numeral: str) -> int | None:
    """Returns the value of a Roman numeral of 1 to 399, None where it is none."""
    if not re.fullmatch(r"C{0,3}(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})", numeral):
        return None
    values = [_ROMAN[letter] for letter in numeral]
    signs = [-1 if a < b else 1 for a, b in zip(values, [*values[1:], 0], strict=True)]
    return sum(sign * value for sign, value in zip(signs, values, strict=True))


def is_before_number(word: str, before: str) -> bool:
    """Returns whether an abbreviation such as "fig", before a full stop and a number, belongs to the number.

    Args:
        word: The abbreviation; "no" and "sec" in small letters may be words that end a sentence.
        before: The text before it, with the space between them.
    """
    pattern = _BEFORE_SMALL.get(word)
    return pattern is None or pattern.search(before[-_LOOKS_BACK:]) is not None


def plural(name: str) -> str:
    """Returns the name of several of a unit: "miles an hour"."""
    found = _HEAD.fullmatch(name)
    assert found is not None
    head = found[1] + ("es" if found[1].endswith("inch") else "s")
    if found[1].endswith("foot"):
        head = found[1][:-4] + "feet"
    return name if found[1].endswith(_UNCHANGED) else head + found[2]


def unit(match: re.Match[str]) -> str:
    """Reads a number and its unit; groups: number, unit with a full stop, unit."""
    return f"{number(match[1])} {counted(match[1], _unit(match))}"


def counted(written: str, one: str) -> str:
    """Returns the name of a unit as it stands behind a number."""
    return one if written == "1" else plural(one)


def compound(match: re.Match[str]) -> str:
    """Reads "10-min" and "a 5 kg bag"; groups: number, unit with a full stop, unit."""
    return f"{number(match[1])} {_unit(match)}"


def _unit(match: re.Match[str]) -> str:
    return DOTTED_UNITS[match[2]] if match[2] else UNITS[match[3]]


def fraction(match: re.Match[str]) -> str:
    """Reads "2 1/2 tsp"; groups: whole, top, bottom, unit with a full stop, unit."""
    top, bottom = int(match[2]), int(match[3])
    part = {2: "half", 4: "quarter"}.get(bottom) or ordinal(bottom)
    many = "halves" if part == "half" else part + "s"
    count = "a" if match[1] and part == "half" else number(match[2])
    whole = f"{number(match[1])} and " if match[1] else ""
    one = DOTTED_UNITS[match[4]] if match[4] else UNITS.get(match[5] or "", "")
    of = f" {plural(one) if whole else one}" if one else ""
    return f"{whole}{count} {part if top == 1 else many}{of}"


def sized_money(match: re.Match[str]) -> str:
    """Reads "$5-10M"; groups: sign, number, end of the range, size."""
    return _range(match) + f" {SIZES[match[4].lower()]} {CURRENCIES[match[1]].many}"


def money_range(match: re.Match[str]) -> str:
    """Reads "$5-10"; groups: sign, number, end of the range."""
    return f"{_range(match)} {CURRENCIES[match[1]].many}"


def price(match: re.Match[str]) -> str:
    """Reads "$3.50"; groups: sign, whole number, two digits."""
    return _price(CURRENCIES[match[1]], match[2], match[3])


def amount(match: re.Match[str]) -> str:
    """Reads "EUR 50"; groups: sign, number."""
    return _amount(match[2], CURRENCIES[match[1]])


def amount_before_sign(match: re.Match[str]) -> str:
    """Reads "50 million EUR"; groups: number, size, sign."""
    currency = CURRENCIES[match[3]]
    if match[2]:
        return f"{number(match[1])} {SIZES[match[2].lower()]} {currency.many}"
    whole, _, part = match[1].partition(".")
    return _price(currency, whole, part) if len(part) == 2 else _amount(match[1], currency)


def date(match: re.Match[str]) -> str:
    """Reads "2024-03-15"; groups: year, month, day."""
    year = str(num2words(int(match[1]), to="year")).replace("-", " ")
    return f"{MONTH_NAMES[int(match[2]) - 1]} {ordinal(int(match[3]))}, {year}"


def years(match: re.Match[str]) -> str:
    """Reads the years "2019-20", or the month "2024-03"; groups: year, two digits."""
    if (month := int(match[2])) <= min(int(match[1][2:]), 12) and month:
        return f"{MONTH_NAMES[month - 1]} {match[1]}"
    return f"{match[1]} to {two_digits(match[2])}"


def duration(match: re.Match[str]) -> str:
    """Reads "2:01:39" and "2h 41m"; groups: hours, minutes, seconds, each or none."""
    parts = [
        (int(value or 0), name)
        for value, name in zip(match.groups(), ("hour", "minute", "second"), strict=True)
    ]
    said = [f"{number(str(value))} {name if value == 1 else name + 's'}" for value, name in parts if value]
    return " ".join(said) or "zero seconds"


def lap(match: re.Match[str]) -> str:
    """Reads "1:23.456"; groups: minutes, seconds, decimals."""
    minutes = f"{number(match[1])} minute{'' if match[1] == '1' else 's'}"
    return f"{minutes} {number(f'{int(match[2])}.{match[3]}')} seconds"


def clock(match: re.Match[str]) -> str:
    """Reads a time of the afternoon on a clock of 24 hours; groups: hours, minutes."""
    return f"{number(match[1])} {two_digits(match[2])}"


def decade(match: re.Match[str]) -> str:
    """Reads "1990s"; groups: year."""
    return _several(str(num2words(int(match[1]), to="year")).replace("-", " "))


def _several(words: str) -> str:
    """Returns a number's words as a noun of several: "sixteens", "fifties", "sixes"."""
    if words.endswith("y"):
        return words[:-1] + "ies"
    return words + ("es" if words.endswith("x") else "s")


def short_decade(match: re.Match[str]) -> str:
    """Reads "90s"; groups: number."""
    return number(match[1])[:-1] + "ies"


def telephone(match: re.Match[str]) -> str:
    """Reads each digit of a match, and a plus before them."""
    said = digits(match[0])
    return "plus " + said if match[0].startswith("+") else said


def version(match: re.Match[str]) -> str:
    """Reads "v3.11.2-rc1"; groups: "v", numbers, name of a preliminary version, its number."""
    said = " point ".join(number(part) for part in match[2].split("."))
    name = {"rc": "R C"}.get(match[3].lower(), match[3]) if match[3] else ""
    return " ".join(part for part in (match[1], said, name, match[4]) if part)


def two_numbers(match: re.Match[str]) -> str:
    """Reads "24/7"."""
    return " ".join(number(part) for part in match[0].split("/"))


def model_number(match: re.Match[str]) -> str:
    """Reads "F-150"; groups: letters, first digit, last two digits."""
    return f"{match[1]} {number(match[2])} {two_digits(match[3])}"


def models(match: re.Match[str]) -> str:
    """Reads "F-16s"; groups: letters, number of at most three digits."""
    if len(match[2]) < 3 or match[2][0] == "0":
        return f"{match[1]} {_several(number(match[2]))}"
    return f"{match[1]} {number(match[2][0])} {_several(two_digits(match[2][1:]))}"


def power(match: re.Match[str]) -> str:
    """Reads an exponent; groups: raised digits, or digits after a caret."""
    exponent = unicodedata.normalize("NFKC", match[1] or match[2]).replace("\u2212", "-")
    said = exponent.replace("-", "minus ")
    return {"2": " squared", "3": " cubed"}.get(exponent, f" to the power of {said}")


def scientific(match: re.Match[str]) -> str:
    """Reads "6.02e23"; groups: number, sign, exponent."""
    minus = "minus " if match[2] in ("-", "\u2212") else ""
    return f"{match[1]} times 10 to the power of {minus}{int(match[3])}"


def _range(match: re.Match[str]) -> str:
    return number(match[2]) + (f" to {number(match[3])}" if match[3] else "")


def _amount(written: str, currency: Currency) -> str:
    return f"{number(written)} {currency.one if written == '1' else currency.many}"


def _price(currency: Currency, whole: str, part: str) -> str:
    if not int(part):
        return _amount(whole, currency)
    if not currency.coin:
        return f"{number(f'{whole}.{part}')} {currency.many}"
    coins = currency.coin if int(part) == 1 else currency.coins
    return f"{_amount(whole, currency)} and {number(str(int(part)))} {coins}"
