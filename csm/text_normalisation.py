"""English text as people write it, rewritten as words that the pronunciation lexicon covers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

from csm import text_numbers as numbers
from csm.text_numbers import NUMBER, number
from csm.text_tables import (
    ABBREVIATIONS,
    BEFORE_NUMBERS,
    COMPASS,
    COUNTED,
    CURRENCIES,
    DAYS,
    DOTTED_UNITS,
    ELEMENTS,
    FILE_ENDINGS,
    MONTHS,
    NUMBERED,
    NUMBERED_ROADS,
    ROADS,
    RULERS,
    SIZES,
    STATES,
    STATES_WITH_CODE,
    TITLES,
    UNITS,
    ZONES,
)

_INVISIBLE = re.compile(
    r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u20e3\ufe0e\ufe0f\ufeff\ud800-\udfff]"
)


_Rules = tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str] | str], ...]


def _any(words: Iterable[str]) -> str:
    """Returns a pattern of any of the words, the longest first."""
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_PAIRS = ("24/7", "9/11", "50/50", "20/20")  # no fractions
_UNIT, _DOTTED, _CURRENCY = _any(UNITS), _any(DOTTED_UNITS), _any(CURRENCIES)
_SIZE = f"(?i:{_any(SIZES)})"
# Units that no other word is, in letters: "10-min", "6-ft".
_LETTERED = _any(u for u in UNITS if u.isascii() and u.isalpha() and (len(u) > 1 or u in "gmLVW"))
_SQUARED = _any(unit for unit in UNITS if unit.endswith(("²", "³")))
_MONTH, _DAY = _any(MONTHS), _any(DAYS)
_NUMERALS = _any("II III IV VI VII VIII IX XI XII XIII XIV XV XVI XVII XVIII XIX".split())
_NO_NAMES = "The|An?|In|On|At|Of|My|Your|His|Her|Our|Their|This|That|And|Or|But|So|If|Is|Are|Was|Or|To|For"
# What follows an initial, and not a numeral that ends a sentence.
_INITIAL = r"\. (?!(?:He|She|It|They|His|Her|The|This|In|But|When|After)\b)[A-Z]"
# Numbers that are dialled and never counted.
_DIALLED = "911|999|988|112|000|[2-8]11"
_SIGNS = {"@": " at ", ".": " dot ", "/": " slash ", "-": " dash ", "_": " underscore ", ":": " colon ",
          "?": " question mark ", "=": " equals ", "&": " and ", "#": " hash ", "%": " percent ",
          "+": " plus "}  # fmt: skip


def spoken_text(text: str) -> str:
    """Rewrites numbers with letters, units, addresses, abbreviations and signs as words.

    A text of plain words and punctuation is returned unchanged but for its Unicode form (NFC). Whole numbers
    and capitals stay: pronunciation expands the first, and capitals mean emphasis.
    """
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", text))
    text = text if text.isascii() else "".join(map(_plain, text))
    for pattern, rewrite in _RULES:
        text = pattern.sub(rewrite, text)
    return "".join(" " if _silent(c) else c for c in text)


_WORD = re.compile(r"[^\W\d_](?:[^\W\d_]|[\u0300-\u036f]|['\u2019](?=[^\W\d_]))*")
_LETTERS = {"ß": "ss", "ẞ": "SS", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ł": "l",
            "Ł": "L", "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i", "ħ": "h",
            "Ħ": "H", "ŋ": "ng", "Ŋ": "Ng", "ŧ": "t", "Ŧ": "T", "ſ": "s"}  # fmt: skip


def unaccented(text: str, known: Callable[[str], bool] = lambda word: False) -> str:
    """Returns the text with the accented Latin letters of its words as plain ones.

    Args:
        text: Text.
        known: Whether a word, in lower case and Unicode form NFC, keeps its accents.
    """
    if text.isascii():
        return text
    text = unicodedata.normalize("NFC", text)
    return _WORD.sub(lambda word: word[0] if known(word[0].lower()) else _folded(word[0]), text)


def _folded(word: str) -> str:
    return "".join(_base(c) for c in word if not "\u0300" <= c <= "\u036f")


def _base(letter: str) -> str:
    base = unicodedata.normalize("NFD", letter)[0]
    return base if base.isascii() else _LETTERS.get(base, letter)


def _date(match: re.Match[str]) -> str:
    return f"{MONTHS[match[1]]} {numbers.ordinal(int(match[2]))}"


def _vulgar_fraction(match: re.Match[str]) -> str:
    return " " + unicodedata.normalize("NFKC", match[0]).replace("\u2044", "/")


def _initials(match: re.Match[str]) -> str:
    return f"{' '.join(match[1])} and {' '.join(match[2])}{' s' if match[3] else ''}"


def _ruler(match: re.Match[str]) -> str:
    value = numbers.roman(match[2])
    return f"{match[1]} the {numbers.ordinal(value)}" if value else match[0]


def _numbered(match: re.Match[str]) -> str:
    name, numeral = (part for part in match.groups() if part)
    value = numbers.roman(numeral)
    return f"{name} {number(str(value))}" if value else match[0]


def _hashtag(match: re.Match[str]) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", match[1])
    return "hashtag " + words.replace("_", " ")


def _file_name(match: re.Match[str]) -> str:
    name = match[1].lower() if match[1].isupper() and len(match[1]) > 4 else match[1]
    ending = match[2].lower()
    said = FILE_ENDINGS.get(ending) or " ".join(ending.upper())
    return " ".join("".join(_SIGNS.get(c, c) for c in f"{name}.").split()) + " " + said


def _formula(match: re.Match[str]) -> str:
    return " ".join(re.findall(r"[A-Z]|[0-9]+", match[0].upper()))


def _road(match: re.Match[str]) -> str:
    return match[1] + NUMBERED_ROADS[match[2]]


def _state(match: re.Match[str]) -> str:
    name = STATES[match[1]] if match[1] else STATES_WITH_CODE[match[3]]
    return f"{name} {numbers.digits(match[2] or match[4] or '')}".rstrip()


def _decimals(match: re.Match[str]) -> str:
    return f"point {numbers.digits(match[1])}{' percent' if match[2] else ''}"


def _plain(character: str) -> str:
    """Returns the ASCII letters and digits that a character is a variant of, else the character."""
    if character.isascii() or unicodedata.decomposition(character).startswith(("<super", "<fraction")):
        return character
    if (digit := unicodedata.decimal(character, None)) is not None:
        return str(digit)
    plain = unicodedata.normalize("NFKC", character)
    return plain if plain.isascii() and plain.isalnum() else character


def _silent(character: str) -> bool:
    """Whether a character is a sign that no rule reads: it would silence the word that it stands at."""
    if "\U0001f3fb" <= character <= "\U0001f3ff":
        return True
    kind = unicodedata.category(character)
    return kind == "So" or (not character.isascii() and kind in ("Sm", "Sk", "Po", "No"))


def _address(match: re.Match[str]) -> str:
    address = re.sub(r"^https?://", "", match[0])
    address = re.sub(r"^www(?=\.)", "w w w", address)
    spoken = "".join(_SIGNS.get(c, c) for c in address.rstrip("/"))
    return " ".join(spoken.split())


def _abbreviation(match: re.Match[str]) -> str:
    return ABBREVIATIONS[match[0].lower()]


# Rules in their order: a rule sees what the ones before it have left.
_WORD_RULES: _Rules = (
    (re.compile(r"\bhttps?://[^\s,;!<>\"']*\w/?|\bwww\.[\w./-]*\w/?"), _address),
    (re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)*\w"), _address),
    (re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, ABBREVIATIONS))})(?!\w)", re.I), _abbreviation),
    (re.compile(r"\b(?:[a-z0-9-]{1,63}\.){1,4}(?:com|org|net|edu|gov|io)\b(?:/[\w./-]*\w)?", re.I), _address),
    (re.compile(rf"(?<![\w/.@-])([\w-]+(?:\.[\w-]+)*)\.({_any(FILE_ENDINGS)})(?![\w-]|\.\w)", re.I),
     _file_name),
    (re.compile(r"(?<!\w)#([A-Za-z]\w*)"), _hashtag),
    (re.compile(r"(?<![^\s(])@(?:(?=[A-Za-z]\w)| ?(?=[0-9$€£]))"), "at "),
    (re.compile(r"(?<=\w) @ (?=\w)|(?<=\w) ?@ ?(?=[\w$€£])"), " at "),
    (re.compile(r"\bPhD(s?)\b"), lambda match: "P H D" + ("'s" if match[1] else "")),
    (re.compile(r"(?<=\w) Inc\b(?:\.(?! [A-Z]))?"), " Incorporated"),
    (re.compile(r"\biOS\b"), "I O S"),
    (re.compile(rf"\b({_any(TITLES)})\. (?=[A-Z])"), lambda match: TITLES[match[1]] + " "),
    (re.compile(rf"\b({_MONTH})\.? ([1-9]|[12][0-9]|3[01])(?:st|nd|rd|th)?\b(?![.:/]\d)"), _date),
    (re.compile(rf"(?<=[0-9] )({_MONTH})\b(?:\.(?= [a-z0-9]|,))?|"
                rf"\b({_MONTH})\b\.?(?= (?:19|20)[0-9]{{2}}\b)"),
     lambda match: MONTHS[match[1] or match[2]]),
    (re.compile(rf"\b({_MONTH}|May)\.? ?[-–] ?({_MONTH}|May)\b(?:\.(?= [a-z0-9]|,))?"),
     lambda match: f"{MONTHS.get(match[1], 'May')} to {MONTHS.get(match[2], 'May')}"),
    (re.compile(r"\b(Feb|Aug|Sept|Oct|Nov|Dec)\b(?:\.(?= [a-z]|,))?"), lambda match: MONTHS[match[1]]),
    (re.compile(rf"\b({_DAY})\.(?=,| [a-z0-9]| (?:{_MONTH})\b)"), lambda match: DAYS[match[1]]),
    (re.compile(rf"\b({_DAY}) ?[-–] ?({_DAY})\b"), lambda match: f"{DAYS[match[1]]} to {DAYS[match[2]]}"),
    (re.compile(rf"\b({_DAY})(?=,? [0-9]{{1,2}} (?:{'|'.join(MONTHS.values())})\b)"),
     lambda match: DAYS[match[1]]),
    (re.compile(rf"\b({_any(BEFORE_NUMBERS)})\. ?(?=[0-9])", re.I),
     lambda match: BEFORE_NUMBERS[match[1].lower()] + " "),
    (re.compile(rf"(?<=[0-9] )({_any(COMPASS)})\.? (?=(?:[A-Z][a-z]+|[0-9]+(?:st|nd|rd|th)) "
                rf"(?:{_any(NUMBERED_ROADS)}|Street|Avenue|Road)\b)"), lambda match: COMPASS[match[1]] + " "),
    (re.compile(rf"\b([0-9]+[A-Z]? (?:[A-Z][a-z]+ |[0-9]+(?:st|nd|rd|th) ){{1,3}})({_any(NUMBERED_ROADS)})"
                r"\b(?:\.(?=,| [a-z0-9&(]))?"), _road),
    (re.compile(rf"(?<=\w )({_any(ROADS)})\b(?:\.(?= [a-z&(]|,))?"), lambda match: ROADS[match[1]]),
    (re.compile(rf"(?<=[a-z], )(?:({_any(STATES)})(?: ([0-9]{{5}})|(?! [a-z]))|"
                rf"({_any(STATES_WITH_CODE)}) ([0-9]{{5}}))(?![\w-])"), _state),
    (re.compile(r"\b[Tt]el(?:\.:?|:) (?=[+(]?[0-9])"), "telephone "),
    (re.compile(r"\bca?\. ?(?=[0-9]{3,4}\b)"), "circa "),
    (re.compile(rf"\b({RULERS}) ([IVX]{{2,6}}|[VX](?!{_INITIAL}))\b(?![-&.]\w)"), _ruler),
    (re.compile(rf"\b({RULERS}) (I)(?!{_INITIAL})"
                r"(?=[.,;:!?)]|'s\b|$| (?:of|was|had|and|reigned|died|ruled|became)\b)"),
     _ruler),
    (re.compile(rf"\b((?i:{NUMBERED})) ([IVXLC]{{2,}})\b(?![-&])|\b({NUMBERED}) ([IVX])(?![\w'\u2019&-])"),
     _numbered),
    (re.compile(rf"\b(?!(?:{_NO_NAMES})\b)([A-Z][a-z]+) ({_NUMERALS})\b(?![-&])"), _numbered),
    (re.compile(r"\bWW(I{1,2})\b"), lambda match: f"World War {number(str(len(match[1])))}"),
    (re.compile(r"\bCtrl\b"), "Control"),
)  # fmt: skip
_TIME_RULES: _Rules = (
    (re.compile(r"(?<![\w.,/-])([12][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])(?![\w-])"),
     numbers.date),
    (re.compile(r"(?<![\w:.])([0-9]{1,2}):([0-5][0-9]):([0-5][0-9])(?![\w:]|\.[0-9])"), numbers.duration),
    (re.compile(r"(?<![\w:.])(1[3-9]|2[0-3]):([0-5][0-9])(?![\w:])"), numbers.clock),
    (re.compile(rf"(?<![\w:.-])([1-9]|1[0-2]):00(?![\w:.–-]\w| ?(?:[AaPp]\.?[Mm]|{ZONES})\b)"),
     r"\1 o'clock"),
    (re.compile(rf"\b({ZONES})\b(?: ?([+\u2212-])(?=[0-9]))?"), lambda match: " ".join(match[1])
     + ("" if not match[2] else " plus " if match[2] == "+" else " minus ")),
    (re.compile(r"\bAD(?= [0-9])|(?<=[0-9] )(?:AD|BCE?|CE)\b"), lambda match: " ".join(match[0])),
    (re.compile(r"(?<!\w)['\u2019](0[1-9]|[1-9][0-9])(?![\w'\u2019])"),
     lambda match: numbers.two_digits(match[1])),
    (re.compile(r"\b((?:1[1-9]|20)[0-9]{2})[-–/]([0-9]{2})(?![\w/–-]|\.[0-9])"),
     numbers.years),
)  # fmt: skip
_TELEPHONE_RULES: _Rules = (
    (re.compile(r"(?<![\w.,-])0[0-9]{2,4}(?: [0-9]{3,6}){1,3}(?![\w-]|[.,]\d)"), numbers.telephone),
    (re.compile(r"(?<![\w.+-])\+[0-9]{1,3}(?:[ .-](?:\([0-9]{1,4}\)|[0-9]{1,6})){2,6}(?![\w-]|[.,]\d)"),
     numbers.telephone),
    (re.compile(r"(?<![\w-])(?:1[- ])?(?:\([0-9]{3}\) ?|[0-9]{3}-)?[0-9]{3}-[0-9]{4}(?![\w-])"),
     numbers.telephone),
    (re.compile(r"(?<![\w.])[0-9]{3}\.[0-9]{3}\.[0-9]{4}(?!\w|\.\w)"), numbers.telephone),
    (re.compile(rf"(?<![\w.,$€£/+#:-])911(?![\w%/:+-]|[.,]\d| (?:{COUNTED}|people|more)\b)"),
     numbers.telephone),
    (re.compile(rf"\b([Cc]all|[Dd]ial|[Rr]ing|[Pp]hone|[Tt]ext) ({_DIALLED})(?![\w%]|[.,]\d)"),
     lambda match: f"{match[1]} {numbers.digits(match[2])}"),
    (re.compile(r"\b([Tt]ext (?:[\w'\"]+ )?to|[Cc]ode(?: is)?|PIN(?: is)?|ZIP) ([0-9]{4,8})(?![\w%]|[.,]\d)"),
     lambda match: f"{match[1]} {numbers.digits(match[2])}"),
)  # fmt: skip
_SIGN_RULES: _Rules = (
    (re.compile(r"\b([A-Z]{1,2})&([A-Z]{1,2})(s?)\b"), _initials),
    (re.compile(r"\bP/E\b"), "P E"),
    (re.compile(rf"\b(?=\w*[0-9])(?:(?:{ELEMENTS})[0-9]{{0,2}}){{2,}}(?![\w.-]\w|\w)"), _formula),
    (re.compile(r"(?<![\w.-])([A-Z]{1,3})-?([1-9])([0-9]{2})(?![\w-]|[.,]\d)"), numbers.model_number),
    (re.compile(r"(?<=\w)&(?=\w)"), " and "),
    (re.compile(r"\b([CF])#(?!\w)"), r"\1 sharp"),
    (re.compile(r"(?<=\b[A-Za-z])\+\+(?!\w)"), " plus plus"),
    (re.compile(r"(?<=[0-9])\+(?![\w+])"), " plus"),
    (re.compile(r"(?<![\w.])([0-9](?:\.[0-9]+)?)e([+\u2212-]?)([0-9]{1,2})(?![\w.])"), numbers.scientific),
    (re.compile(rf"(?<![\w.])({NUMBER}) ?()({_SQUARED})(?!\w)"), numbers.unit),
    (re.compile(rf"(?<!\w)({_SQUARED})(?!\w)"), lambda match: UNITS[match[1]]),
    (re.compile(r"(?<=[\w)])(?:([⁻]?[⁰¹²³⁴-⁹]+)|\^([-\u2212]?[0-9]{1,9}))(?: ?(" + _UNIT + r")(?!\w))?"),
     lambda match: numbers.power(match) + (f" {numbers.plural(UNITS[match[3]])}" if match[3] else "")),
    (re.compile(r"(?<=[0-9)]) ?[-–\u2212] ?(?=[0-9.]+(?: ?[-+*/×÷\u2212] ?[0-9.]+)* ?=)"), " minus "),
    (re.compile(r"(?<=[0-9]) ?\u2212 ?(?=[0-9])"), " minus "),
    (re.compile(r"(?<!\S)[-\u2212](?=[0-9])"), "minus "),
    (re.compile(r"(?<!\w)~ ?(?=[0-9$€£])"), "about "),
    (re.compile(r" ?≈ ?"), " about "),
    (re.compile(r" ?± ?"), " plus or minus "),
    (re.compile(r" ?× ?"), " times "),
    (re.compile(r" ?÷ ?"), " divided by "),
    (re.compile(r" ?≤ ?"), " at most "),
    (re.compile(r" ?≥ ?"), " at least "),
    (re.compile(r" ?≠ ?"), " is not "),
    (re.compile(r"(?<=\w) ?< ?(?=\.?[0-9])|<(?=[0-24-9]| [0-9])"), " less than "),
    (re.compile(r"(?<=\w) ?> ?(?=\.?[0-9])|(?<![-=>])>(?=[0-9])"), " more than "),
    (re.compile(r"∞"), " infinity "),
    (re.compile(r"√ ?"), " the root of "),
    (re.compile(r"§ ?(?=[0-9])"), " section "),
    (re.compile(r"№ ?"), " number "),
    (re.compile(r"\bw/ ?(?=\w)"), "with "),
    (re.compile(r"(?<![^\s(<>=~±-])\.([0-9]{1,15})( ?%)?(?!\w|[.,]\d)"), _decimals),
)  # fmt: skip
_MONEY_RULES: _Rules = (
    (re.compile(rf"(?<![A-Za-z])((?:{_CURRENCY}) ?{NUMBER})[-–](?=(?:{_CURRENCY}) ?[0-9])"), r"\1 to "),
    (re.compile(rf"(?<![A-Za-z])({_CURRENCY}) ?({NUMBER})(?:[-–]({NUMBER}))? ?({_SIZE})\b"),
     numbers.sized_money),
    (re.compile(rf"(?<![A-Za-z])({_CURRENCY}) ?({NUMBER})[-–]({NUMBER})(?![\w-]|[.,]\d)"),
     numbers.money_range),
    (re.compile(rf"(?<![A-Za-z])({_CURRENCY}) ?([0-9]{{1,15}}(?:,[0-9]{{3}}){{0,4}})\.([0-9]{{2}})"
                r"(?!\w|\.\w)"),
     numbers.price),
    # Whole dollars and pounds stay for the lexicon.
    (re.compile(rf"(?<![A-Za-z])(?![$£])({_CURRENCY}) ?({NUMBER})(?![\w.,]\w)"), numbers.amount),
    (re.compile(rf"(?<![\w.])({NUMBER})[-–](?={NUMBER} ?(?:{_SIZE} ?)?(?:{_CURRENCY})(?!\w))"), r"\1 to "),
    (re.compile(rf"(?<![\w.])({NUMBER}) ?(?:({_SIZE}) )?({_CURRENCY})(?!\w)"), numbers.amount_before_sign),
)  # fmt: skip
_NUMBER_RULES: _Rules = (
    (re.compile(r"[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞]"), _vulgar_fraction),
    (re.compile(r"(?<![\w.])[0-9]{1,9}(?:\.[0-9]{1,9}){2,}(?!\w|\.\w)"), numbers.version),
    (re.compile(rf"(?<![\w/.])(?:{'|'.join(_PAIRS)})(?![\w/])"), numbers.two_numbers),
    (re.compile(r"(?<![\w/.])([2-9]|10)/10(?![\w/])|(?<![\w/.])([2-9]|[1-9][0-9]{1,2})/100(?![\w/])"),
     lambda match: f"{match[1] or match[2]} out of {'10' if match[1] else '100'}"),
    (re.compile(r"(?<![\w/.])([0-9]{1,2})/(\1(?![\w/])|[0-9]{1,2}(?= stars?\b))"), r"\1 out of \2"),
    (re.compile(r"(?<![\w/])(?:([0-9]{1,4}) +)?([0-9]{1,2})/([2-9]|1[0-9])"
                rf"(?: ?(?:({_DOTTED})\.(?= [a-z])|({_LETTERED})(?![\w.]))|(?![\w/]))"), numbers.fraction),
    (re.compile(r"(?<!\w)([0-9]{3}0)'?s\b"), numbers.decade),
    (re.compile(r"(?<![\w.,'])'?([2-9]0)s\b"), numbers.short_decade),
    (re.compile(r"(?<![\w.,:/$-])0[0-9]{1,15}(?![\w:/-]|[.,]\d)"), numbers.telephone),
    (re.compile(r"(?<![\w.,])([0-9]{1,2})([0-9]{2})([pi])\b(?! ?[-+])"),
     lambda match: f"{number(match[1])} {numbers.two_digits(match[2])} {match[3].upper()}"),
    (re.compile(r"(?<=[0-9]) ?x ?(?=[0-9])"), " by "),
    (re.compile(rf"(?<![\w.])({NUMBER})x(?!\w)"), lambda match: number(match[1]) + " times"),
    (re.compile(rf"(?<![\w.])({NUMBER})(bn|[kmb]) (?={COUNTED}\b)", re.I),
     lambda match: f"{number(match[1])} {SIZES[match[2].lower()]} "),
    (re.compile(rf"(?<![\w.,:/$-])({NUMBER} ?(?:{_UNIT}))[-–](?={NUMBER} ?(?:{_UNIT})(?!\w))"), r"\1 to "),
    (re.compile(rf"(?<![\w.,:/$-])({NUMBER} ?%?) ?[-–] ?"
                rf"(?={NUMBER} ?(?:(?:{_DOTTED})\. [a-z]|(?:%|(?:{_UNIT})(?!\w))))"), r"\1 to "),
    (re.compile(rf"(?<![\w.,/-])({NUMBER})-({_LETTERED})(?!\w)"), numbers.compound),
    (re.compile(rf"(?<![\w.])({NUMBER}) ?(?:({_DOTTED})\.(?= [a-z])|({_UNIT})(?!\w))"), numbers.unit),
    (re.compile(r"(?<![\w.,])([0-9]{1,6}\.[0-9]{1,3})s\b|(?<![\w.,])([0-9]{1,3}) s\b"),
     lambda match: f"{number(match[1] or match[2])} second{'' if match[2] == '1' else 's'}"),
    (re.compile(r"(?<!\w)[\u0391-\u03a9\u03b1-\u03c9](?!\w)"),
     lambda match: unicodedata.name(match[0]).split()[-1].lower()),
    (re.compile(r"(?<!\w)(km/h|km/s|m/s)(?!\w)"), lambda match: UNITS[match[1]]),
    (re.compile(r"[⁰-⁹²³¹]"), lambda match: " " + unicodedata.normalize("NFKC", match[0])),
    (re.compile(rf"(?<![\w.])({NUMBER}) ?%"), lambda match: f"{number(match[1])} percent"),
    (re.compile(r"(?<![\w.,$£])[0-9]{1,3}(?:,[0-9]{3}){1,4}(?:\.[0-9]{1,15})?(?!\w|[,.]\d)"),
     lambda match: number(match[0])),
    (re.compile(r"(?<![\w.,])([0-9]{1,3}(?:,[0-9]{3})+)th\b"),
     lambda match: numbers.ordinal(int(match[1].replace(",", "")))),
    (re.compile(r"\bSt\. (?=[A-Z])"), "Saint "),
    (re.compile(r"(?:#|\bNo\. )(?=[0-9])"), "number "),
    (re.compile(r"(?<=\w) ?\+ ?(?=\w)|(?<!\S)\+(?=[0-9])"), " plus "),
    (re.compile(r"(?<=\w) ?= ?(?=\w)"), " equals "),
    (re.compile(r"(?<=[0-9])¢"), " cents"),
    (re.compile(r"\b([0-9])'([0-9]{1,2})\"(?!\w)"), r"\1 foot \2"),
    (re.compile(r"(?<![\w-])([0-9]{1,4})[-–]([0-9]{1,4})(?![\w-])"), r"\1 to \2"),
    (re.compile(r"(?<![\w:])(?:([0-9]{1,4}):([0-9])|([0-9]{1,3}):([0-9]{3,5})|([0-9]{3}):([0-9]{1,3})"
                r"|([0-9]{1,2}):([6-9][0-9]))(?![\w:])"),
     lambda match: " to ".join(part for part in match.groups() if part)),
    (re.compile(r"(?<=[0-9]) ?\* ?(?=[0-9])"), " times "),
    (re.compile(r"(?<=[0-9]) ?am\b(?!\.\w)"), " AM"),
    (re.compile(r"(?<=[0-9])( ?(?:[ap]m|[AP]M))[-–](?=[0-9])"), r"\1 to "),
    (re.compile(r"(?<=[^\W\d]) ?[—–] ?(?=[^\W\d])"), ", "),
    (re.compile(r"(?<=\w) ?--+ ?(?=\w)"), ", "),
    (re.compile("\u2026"), "..."),
    (re.compile(r"(?<![\w.,$£€:/])[0-9]{1,15}\.[0-9]{0,14}0(?!\w|[.,:/]\w)"), lambda match: number(match[0])),
    (re.compile(r"(?<=[0-9])/(?=[a-z]{2,})"), " per "),
    (re.compile(r"\band/or\b", re.I), "and or"),
    (re.compile(r"(?<![\w/])([0-9]+)/([0-9]+)(?![\w/])"), r"\1 slash \2"),
    (re.compile(r"(?<=[^\W\d])/(?=\w)|(?<=[0-9])/(?=[^\W\d])"), " slash "),
    (re.compile(r"(?<=[0-9])(?!(?:st|nd|rd|th|s)\b)(?=[A-Za-z])|(?<=[A-Za-z])(?=[0-9])"), " "),
)  # fmt: skip
_RULES = (*_WORD_RULES, *_TIME_RULES, *_TELEPHONE_RULES, *_SIGN_RULES, *_MONEY_RULES, *_NUMBER_RULES)
