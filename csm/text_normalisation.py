"""English text as people write it, rewritten as words that the pronunciation lexicon covers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

from csm import text_numbers as numbers
from csm.text_numbers import NUMBER, number
from csm.text_tables import (
    ABBREVIATIONS,
    AFTER_PRONOUN,
    BEFORE_NUMBERS,
    COMPASS,
    COUNTED,
    CURRENCIES,
    DAYS,
    DOTTED_UNITS,
    ELEMENTS,
    FIFTHS,
    FILE_ENDINGS,
    FORMULAS,
    KINDS,
    LETTERED,
    MONTH_NAMES,
    MONTHS,
    NUMBERED,
    NUMBERED_ROADS,
    OTHER_UNITS,
    ROADS,
    RULERS,
    RULERS_TITLES,
    SIZES,
    STATES,
    STATES_WITH_CODE,
    TENTHS,
    TITLES,
    UNITS,
    ZONES,
    ZONES_BESIDE_TIMES,
)

_INVISIBLE = re.compile(
    r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u20e3\ufe0e\ufe0f\ufeff\ud800-\udfff]"
)


_Rules = tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str] | str], ...]


def _any(words: Iterable[str]) -> str:
    """Returns a pattern of any of the words, the longest first."""
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_PAIRS = ("24/7", "9/11", "50/50", "20/20")  # no fractions
# A single letter is no unit and no size in "5 V-necks", "10 L.A. bars", "$20 T-shirts", "$10 M&Ms"; a size is
# one in "$20k-a-year".
_UNIT = (
    f"{_any(u for u in UNITS if u not in ('L', 'V', 'W', 'g'))}|"
    r"[LVW](?![-'\u2019&.][A-Za-z]| and [A-Z]\b)|g(?!-(?:force|string)|[&.][A-Za-z])"
)
_SIZE = (
    f"(?i:{_any(size for size in SIZES if len(size) > 1)}|"
    r"(?<![0-9])[bkmt](?![-'\u2019&./]\w| ?& ?[a-z]| and [a-z]\b| shirts?\b)|"
    r"(?<=[0-9])[bkmt](?!['\u2019&.][a-z]))"
)
_DOTTED, _CURRENCY = _any(DOTTED_UNITS), _any(CURRENCIES)
_CODES = _any(code for code in CURRENCIES if len(code) == 3 and code.isalpha() and code.isupper())
# Units that no other word is, in letters: "10-min", "6-ft".
_LETTERED = _any(u for u in UNITS if u.isascii() and u.isalpha() and (len(u) > 1 or u in "gmLVW"))
_SQUARED = _any(unit for unit in UNITS if unit.endswith(("²", "³")))
_QUARTER = "(?:NE|NW|SE|SW|[NSEW])"
_MONTH, _DAY = _any(MONTHS), _any(DAYS)
_NUMERALS = _any("II III IV VI VII VIII IX XI XII XIII XIV XV XVI XVII XVIII XIX".split())
_NO_NAMES = "The|An?|In|On|At|Of|My|Your|His|Her|Our|Their|This|That|And|Or|But|So|If|Is|Are|Was|Or|To|For"
# What follows an initial, and not a numeral that ends a sentence.
_INITIAL = r"\. (?!(?:He|She|It|They|His|Her|The|This|In|But|When|After)\b)[A-Z]"
# What follows a unit that stands for itself: not "a 5 kg bag".
_NO_NOUNS = (
    "of|and|or|to|per|in|on|at|for|from|is|was|are|an?|the|each|every|more|less|later|ago|away|before|after|than|"
    "with|by|twice|once|if|but|so|when|while|as|I"
)
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
    return f"{' '.join(match[1])} and {' '.join(match[2])}" + ("'s" if match[3] else "")


def _ruler(match: re.Match[str]) -> str:
    name, numeral = (part for part in match.groups() if part)
    value = numbers.roman(numeral)
    return f"{name} the {numbers.ordinal(value)}" if value else match[0]


def _war(match: re.Match[str]) -> str:
    return " ".join(
        number(str(len(part))) if part.startswith("I") else part.strip() for part in match.groups("") if part
    )


def _numbered(match: re.Match[str]) -> str:
    name, numeral = (part for part in match.groups() if part)
    value = numbers.roman(numeral)
    return f"{name} {number(str(value))}" if value else match[0]


def _hashtag(match: re.Match[str]) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", match[1])
    return "hashtag " + words.replace("_", " ")


def _file_name(match: re.Match[str]) -> str:
    name = re.sub(r"(?<![A-Za-z])[A-Z]{5,}(?![A-Za-z])", lambda capitals: capitals[0].lower(), match[1])
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


def _before_number(match: re.Match[str]) -> str:
    before = match.string[max(0, match.start() - 40) : match.start()]
    name = BEFORE_NUMBERS[match[1].lower()]
    return name + " " if numbers.is_before_number(match[1], before) else match[0]


def _inches(match: re.Match[str]) -> str:
    if not match[1]:
        return match[0]
    return f"{match[1]} inch{match[2]}" if match[2] else f"{match[1]} inches"


def _other_unit(name: str) -> Callable[[re.Match[str]], str]:
    """Returns what reads a number and this unit; groups: article, number."""
    return lambda match: (
        f"{match[1] or ''}{number(match[2])} {name if match[1] else numbers.counted(match[2], name)}"
    )


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
    (re.compile(r"\b[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)*\w"), _address),
    (re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, ABBREVIATIONS))})(?!\w)", re.I), _abbreviation),
    (re.compile(r"\b(?:[a-z0-9-]{1,63}\.){1,4}(?:com|org|net|edu|gov|io)\b(?:/[\w./-]*\w)?", re.I), _address),
    (re.compile(r"(?<!\S)\./(?=\w)"), ""),
    (re.compile(rf"(?<![\w/.@-])([\w-]+(?:\.[\w-]+)*)\.({_any(FILE_ENDINGS)})(?![\w-]|\.\w)", re.I),
     _file_name),
    (re.compile(r"(?<!\w)#([A-Za-z]\w*)"), _hashtag),
    (re.compile(r"(?<![^\s(])@([A-Za-z]\w+)"), lambda match: "at " + match[1].replace("_", " underscore ")),
    (re.compile(r"(?<![^\s(])@ ?(?=[0-9$€£])"), "at "),
    (re.compile(r"(?<=\w) @ (?=\w)|(?<=\w) ?@ ?(?=[\w$€£])"), " at "),
    (re.compile(r"\bPhD(s?)\b"), lambda match: "P H D" + ("'s" if match[1] else "")),
    (re.compile(r"(?<=\w) Inc\b(?:\.(?! [A-Z]))?"), " Incorporated"),
    (re.compile(r"\biOS\b"), "I O S"),
    (re.compile(rf"\b({LETTERED})(s?)\b"), lambda match: " ".join(match[1]) + ("'s" if match[2] else "")),
    (re.compile(rf"\b({_any(TITLES)})\. (?=[A-Z])"), lambda match: TITLES[match[1]] + " "),
    (re.compile(rf"\b({_MONTH})\.? ([1-9]|[12][0-9]|3[01])(?:st|nd|rd|th)?\b(?![.:/]\d)"), _date),
    (re.compile(rf"(?<=[0-9] )({_MONTH})\b(?:\.(?= [a-z0-9]|,))?|"
                rf"\b({_MONTH})\b\.?(?= (?:19|20)[0-9]{{2}}\b)"),
     lambda match: MONTHS[match[1] or match[2]]),
    (re.compile(rf"\b({_MONTH}|May)\.? ?[-–] ?({_MONTH}|May)\b(?:\.(?= [a-z0-9]|,))?"),
     lambda match: f"{MONTHS.get(match[1], 'May')} to {MONTHS.get(match[2], 'May')}"),
    (re.compile(r"\b(Feb|Aug|Sept|Oct|Nov|Dec)\b(?:\.(?= [a-z]|,))?"), lambda match: MONTHS[match[1]]),
    (re.compile(rf"\b({_DAY})\.(?=,| [a-z0-9]| (?:{_MONTH}|{'|'.join(MONTH_NAMES)})\b)"),
     lambda match: DAYS[match[1]]),
    (re.compile(r"\b(Tues?|Thu|Thurs?|Fri)(?=\.(?:\s|$))"), lambda match: DAYS[match[1]]),
    (re.compile(rf"(?<=\b[Oo]n )({_DAY})(?=\.(?:\s|$))"), lambda match: DAYS[match[1]]),
    (re.compile(rf"\b({_DAY}) ?[-–] ?({_DAY})\b"), lambda match: f"{DAYS[match[1]]} to {DAYS[match[2]]}"),
    (re.compile(rf"\b({_DAY})(?=,? [0-9]{{1,2}} (?:{'|'.join(MONTHS.values())})\b)"),
     lambda match: DAYS[match[1]]),
    (re.compile(rf"\b({_any(BEFORE_NUMBERS)})\. ?(?=[0-9])", re.I), _before_number),
    (re.compile(r"\b([Nn])o\. of\b"), r"\1umber of"),
    (re.compile(r"\bE(?:ST|st)\. (?=(?:1[5-9]|20)[0-9]{2}\b(?! [a-z]))"), "established "),
    (re.compile(rf"(?<=[0-9] )({_any(COMPASS)})\.? (?=(?:[A-Z][a-z]+|[0-9]+(?:st|nd|rd|th)) "
                rf"(?:{_any(NUMBERED_ROADS)}|Street|Avenue|Road)\b)"), lambda match: COMPASS[match[1]] + " "),
    (re.compile(r"\b([0-9]+[A-Z]? (?:[A-Z][a-z]+ |[A-Z] (?=St\b)|[0-9]+(?:st|nd|rd|th) ){1,3})"
                rf"({_any(NUMBERED_ROADS)})\b(?:\.(?=,| [a-z0-9&(]| {_QUARTER}\b))?"), _road),
    (re.compile(rf"(?<=\w )({_any(ROADS)})\b(?:\.(?= [a-z&(]|,| {_QUARTER}\b))?"),
     lambda match: ROADS[match[1]]),
    (re.compile(rf"\b({'|'.join(NUMBERED_ROADS.values())}),? (NE|NW|SE|SW)\b"),
     lambda match: f"{match[1]} {COMPASS[match[2]]}"),
    (re.compile(rf"(?<=[a-z], )(?:({_any(STATES)})(?: ([0-9]{{5}})|(?! [a-z]))|"
                rf"({_any(STATES_WITH_CODE)}) ([0-9]{{5}}))(?![\w-])"), _state),
    (re.compile(r"\b[Tt]el(?:\.:?|:) (?=[+(]?[0-9])"), "telephone "),
    (re.compile(r"\b[Pp]h(?:\.:?|:) (?=[+(]?[0-9])"), "phone "),
    (re.compile(r"\bca?\. ?(?=[0-9]{3,4}\b)"), "circa "),
    (re.compile(rf"\b({RULERS}) ([IVX]{{2,6}})\b(?![-&.]\w)"), _ruler),
    (re.compile(rf"\b((?:{RULERS_TITLES}) (?:{RULERS})) ([VX])(?!{_INITIAL})\b(?![-&.]\w)"), _ruler),
    (re.compile(rf"\b(?:({FIFTHS}) (V)|({TENTHS}) (X))(?!{_INITIAL})\b(?![-&.]\w)"), _ruler),
    (re.compile(rf"\b({RULERS}) (I)(?!{_INITIAL})"
                r"(?=[.,;:!?)]|['\u2019]s\b|\s*$| (?:of|and|reigned|died|ruled|became)\b)"), _ruler),
    (re.compile(rf"(?<![Tt]he )(?<!was )(?<!is )(?<!'s )\b({RULERS}) ([IVX])(?= (?:was|had)\b)"), _ruler),
    (re.compile(r"\bWW(?:(I{1,3})|([12]))\b"),
     lambda match: f"World War {match[2] or number(str(len(match[1])))}"),
    (re.compile(r"\b(World Wars?|Super Bowl) (I{1,3})(?:( and) (I{2,3}))?\b(?!&)"), _war),
    (re.compile(rf"\b((?i:{NUMBERED})) ([IVXLC]{{2,}})\b(?![-&])|\b({NUMBERED}) ([VX])(?![\w'\u2019&-])"),
     _numbered),
    # The pronoun follows in "the Episode I saw" and "the Type I like".
    (re.compile(rf"\b({KINDS}) (I)(?= (?!(?:{AFTER_PRONOUN}|\w{{2,}}(?:ed|ly))\b)[a-z])"), _numbered),
    (re.compile(rf"\b({NUMBERED}) (I)(?=[.,;:!?)\]]|\s*$| (?:of|and|or|is|to|through|in|on|at|by|from|for|"
                r"with|we|he|she|they|has|begins|ends|covers|deals|describes|explains|tells|contains|shows|starts)\b)"),
     _numbered),
    (re.compile(rf"(?:^|(?<=[.!?;:,] ))({NUMBERED}) (I)(?= (?:was|had)\b)"), _numbered),
    # Not the tube in "Give IV fluids".
    (re.compile(rf"\b(?!(?:{_NO_NAMES})\b)([A-Z][a-z]+) ({_NUMERALS})\b(?![-&]|(?<=IV) (?:fluids?|drips?|"
                r"lines?|bags?|antibiotics?|therapy|saline|drugs?|medications?|infusions?|treatments?|access)\b)"),
     _numbered),
    (re.compile(r"\bCtrl\b"), "Control"),
)  # fmt: skip
_TIME_RULES: _Rules = (
    (re.compile(r"((?:[0-9] ?(?:[ap]m|[AP]M)|[0-9]:[0-5][0-9]|\bat [0-9]{1,2}|o'clock) \(?)"
                rf"({ZONES_BESIDE_TIMES})\b(?! [A-Z]{{2}})"), lambda match: match[1] + " ".join(match[2])),
    (re.compile(r"\b(WET|MET|EAT|WAT|SAST)(?=\+[0-9]| \((?:UTC|GMT))"), lambda match: " ".join(match[1])),
    (re.compile(r"(?<![\w:.,])([0-9]{1,2}) ?h(?:rs?)? ?([0-9]{1,2}) ?m(?:ins?)?"
                r"(?: ?([0-9]{1,2}) ?s(?:ecs?)?)?\b(?![/-])"), numbers.duration),
    (re.compile(r"(?<![\w:.,])()([0-9]{1,3}) ?m ([0-9]{1,2}) ?s\b(?![/-])"), numbers.duration),
    (re.compile(r"(?<![\w:.])([0-9]{1,2}):([0-5][0-9])\.([0-9]{1,3})(?![\w:]|\.\w)"), numbers.lap),
    (re.compile(r"(?<![\w:.])1:([0-9]{1,3}(?:,[0-9]{3}){1,3})(?![\w,]|\.\d)"),
     lambda match: f"one to {number(match[1])}"),
    (re.compile(r"(?<![\w.,/-])([12][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])(?![\w-])"),
     numbers.date),
    (re.compile(r"(?<![\w:.])([0-9]{1,2}):([0-5][0-9]):([0-5][0-9])(?![\w:]|\.[0-9])"), numbers.duration),
    (re.compile(r"(?<![\w:.])(1[3-9]|2[0-3]):([0-5][0-9])(?![\w:])"), numbers.clock),
    (re.compile(rf"(?<![\w:.-])([1-9]|1[0-2]):00(?![\w:.–-]\w| ?(?:[AaPp]\.?[Mm]|{ZONES}|\(?[A-Z] [A-Z])\b)"),
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
    (re.compile(r"(?<![\w.,-])\(0[0-9]{2,4}\) ?[0-9]{3,4}(?:[ -][0-9]{3,6}){1,2}(?![\w-]|[.,]\d)"),
     numbers.telephone),
    (re.compile(rf"(?<![\w.,$€£/+#:-])(?<!(?:{_CODES}) )911"
                rf"(?![\w%/:+-]|[.,]\d| ?(?:{_CURRENCY})| (?:{COUNTED}|people|more)\b)"),
     numbers.telephone),
    (re.compile(rf"\b([Cc]all|[Dd]ial|[Rr]ing|[Pp]hone|[Tt]ext) ({_DIALLED})(?![\w%]|[.,]\d)"),
     lambda match: f"{match[1]} {numbers.digits(match[2])}"),
    (re.compile(r"\b([Tt]ext (?:[\w'\"]+ )?to|[Cc]ode(?::| is)?|PIN(?::| is| isn't| was)?|ZIP) ([0-9]{4,8})"
                r"(?![\w%]|[.,]\d)"),
     lambda match: f"{match[1]} {numbers.digits(match[2])}"),
)  # fmt: skip
_SIGN_RULES: _Rules = (
    (re.compile(r"\b([A-Z]{1,2})&([A-Z]{1,2})(s?)\b"), _initials),
    (re.compile(r"\bP/E\b"), "P E"),
    (re.compile(rf"\b(?!(?:{_CODES})[0-9])(?=\w*[0-9])(?:(?:{ELEMENTS})[0-9]{{0,2}}){{2,}}(?![\w.-]\w|\w)|"
                rf"\b(?:{FORMULAS})\b"), _formula),
    (re.compile(rf"(?<![\w.-])(?!(?:{_CODES})[0-9])([A-Z]{{1,3}})-?([0-9]{{1,3}})s(?![\w-])"),
     numbers.models),
    (re.compile(rf"(?<![\w.-])(?!(?:{_CODES})[0-9])([A-Z]{{1,3}})-?([1-9])([0-9]{{2}})(?![\w-]|[.,]\d)"),
     numbers.model_number),
    (re.compile(r"(?<=\w)&(?=\w)"), " and "),
    (re.compile(r"\b([CF])#(?!\w)"), r"\1 sharp"),
    (re.compile(r"(?<=\b[A-Za-z])\+\+(?!\w)"), " plus plus"),
    (re.compile(r"(?<=[0-9])\+(?![\w+])"), " plus"),
    (re.compile(r"(?<![\w.])([0-9](?:\.[0-9]+)?)e([+\u2212-]?)([0-9]{1,2})(?![\w.])"), numbers.scientific),
    (re.compile(rf"(?<![\w.])({NUMBER}) ?()({_SQUARED})(?!\w)"), numbers.unit),
    (re.compile(rf"(?<!\w)({_SQUARED})(?!\w)"), lambda match: UNITS[match[1]]),
    (re.compile(r"(?<=[\w)])(?:([⁻]?[⁰¹²³⁴-⁹]+)|\^([-\u2212]?[0-9]{1,9}))(?: ?(" + _UNIT + r")(?!\w))?"),
     lambda match: numbers.power(match) + (f" {numbers.plural(UNITS[match[3]])}" if match[3] else "")),
    (re.compile(r"(?<=[0-9)]) ?[-–\u2212] ?(?=[0-9.]{1,20}(?: ?[-+*/×÷\u2212] ?[0-9.]{1,20}){0,9} ?=)"),
     " minus "),
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
    (re.compile(rf"((?<![A-Za-z])(?:{_CURRENCY}) ?{NUMBER}|(?<![\w.]){NUMBER} ?(?:{_CURRENCY}))/"
                rf"(?:({_UNIT})(?!\w)|(?=[a-z]{{2}}))"),
     lambda match: f"{match[1]} per {UNITS[match[2]] if match[2] else ''}"),
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
    (re.compile(r"([½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞]|(?<![\w/.-])[0-9]{1,2}/[0-9]{1,2})[-–](?=[0-9½⅓⅔¼¾])"), r"\1 to "),
    (re.compile(r"[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞]"), _vulgar_fraction),
    (re.compile(r"(?<![\w.])([vV]?)([0-9]{1,9}(?:\.[0-9]{1,9}){2,})(?:-(alpha|beta|dev|pre|rc)\.?([0-9]{0,3})\b)?"
                r"(?!\w|\.\w)"), numbers.version),
    (re.compile(rf"(?<![\w/.])(?:{'|'.join(_PAIRS)})(?![\w/])"), numbers.two_numbers),
    (re.compile(r"(?<![\w/.])([2-9]|10)/10(?![\w/])|(?<![\w/.])([2-9]|[1-9][0-9]{1,2})/100(?![\w/])"),
     lambda match: f"{match[1] or match[2]} out of {'10' if match[1] else '100'}"),
    (re.compile(r"(?<![\w/.])([0-9]{1,2})/(\1(?![\w/])|[0-9]{1,2}(?= stars?\b))"), r"\1 out of \2"),
    (re.compile(r"(?<![\w/.-])([0-9]{1,3})-(?=(?:[1-9]|1[0-5])/(?:[2348]|16)(?![\w/-]))"), r"\1 "),
    (re.compile(r"(?<=[0-9]) st\.? (?=[0-9]{1,2} ?lbs?\b)"), " stone "),
    (re.compile(r"(?<![\w/])(?:([0-9]{1,4}) +)?([0-9]{1,2})/([2-9]|1[0-9])"
                rf"(?: ?(?:({_DOTTED})\.(?= [a-z])|({_LETTERED})(?![\w.]))|(?![\w/]))"), numbers.fraction),
    (re.compile(r"(?<!\w)([0-9]{3}0)'?s\b"), numbers.decade),
    (re.compile(r"(?<![\w.,'])'?([2-9]0)s\b"), numbers.short_decade),
    (re.compile(r"(?<![\w.,:/$-])0[0-9]{1,15}(?![\w:/-]|[.,]\d)"), numbers.telephone),
    (re.compile(r"(?<![\w.,])([0-9]{1,2})([0-9]{2})([pi])\b(?! ?[-+])"),
     lambda match: f"{number(match[1])} {numbers.two_digits(match[2])} {match[3].upper()}"),
    (re.compile(r"(?<=[0-9]) ?x ?(?=[0-9])"), " by "),
    (re.compile(rf"(?<![\w.])({NUMBER})x(?=(?: squared| cubed)? (?:[-\u2212] [0-9a-z(]|[+=] ?[-0-9a-z(])|"
                r"[+=][0-9a-z(])"), r"\1 x"),
    (re.compile(rf"(?<![\w.])({NUMBER})x(?!\w)"), lambda match: number(match[1]) + " times"),
    (re.compile(rf"(?<![\w.])({NUMBER})(bn|[kmb]) (?={COUNTED}\b)", re.I),
     lambda match: f"{number(match[1])} {SIZES[match[2].lower()]} "),
    (re.compile(rf"(?<![\w.,:/$-])({NUMBER} ?(?:{_UNIT}))[-–](?={NUMBER} ?(?:{_UNIT})(?!\w))"), r"\1 to "),
    (re.compile(rf"(?<![\w.,:/$-])({NUMBER} ?%?) ?[-–] ?"
                rf"(?={NUMBER} ?(?:(?:{_DOTTED})\. [a-z]|(?:%|(?:{_UNIT})(?!\w))))"), r"\1 to "),
    *((re.compile(rf"(?<![\w.])(\b[Aa]n? )?({NUMBER})[ -]?{unit}\.?(?={behind})"), _other_unit(name))
      for unit, (name, behind) in OTHER_UNITS.items()),
    (re.compile(r"(?<![\w.])(\b[Aa]n? )?([0-9]{5,9}|[0-9]{1,3},[0-9]{3}|[2-9][0-9]{3})[ -]?bps\b"),
     _other_unit("bit per second")),
    (re.compile(rf"(?<![\w.])({NUMBER})[ -]?pt(?:\b\.(?= [a-z])|(?!\w))"),
     lambda match: f"{number(match[1])} point"),
    (re.compile(rf"(?<![\w.])({NUMBER} ?(?!km/|m/s)(?:{_UNIT}))/(?:(?:({_UNIT})|(s))(?!\w)|(?=[a-z]{{3}}))"),
     lambda match: f"{match[1]} per {UNITS[match[2]] if match[2] else 'second' if match[3] else ''}"),
    (re.compile(rf"(?<![\w.,/-])({NUMBER})-(?:({_DOTTED})\.(?= [a-z])|({_LETTERED})(?!\w))"),
     numbers.compound),
    (re.compile(rf"(?:(?<=\b[Aa] )|(?<=\b[Aa]n )|(?<=[0-9] by ))({NUMBER}) ?(?:({_DOTTED})\.|({_UNIT}))"
                rf"(?= [A-Za-z0-9])(?! (?:{_NO_NOUNS})\b)"), numbers.compound),
    (re.compile(rf"(?<![\w.:])({NUMBER}) ?(?:({_DOTTED})\.(?= [a-z])|({_UNIT})(?!\w))"), numbers.unit),
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
    (re.compile(r"\b([0-9])['\u2019\u2032]([0-9]{1,2})[\"\u201d\u2033](?!\w)"), r"\1 foot \2"),
    # Inches, but not where a quotation closes.
    (re.compile(r"(?<![0-9])\"[^\"]*\"|\u201c[^\u201d]*\u201d|([0-9])[\"\u201d\u2033](?!\w)"
                r"(?! (?:he|she|they|we|I|says?|said|asked)\b)"
                r"( (?!(?:wide|long|tall|high|deep|thick|across|or|to|" + _NO_NOUNS + r")\b)\w)?"), _inches),
    (re.compile(r"(?<![\w-])([0-9]{1,4})[-–]([0-9]{1,4})(?![\w-])"), r"\1 to \2"),
    (re.compile(r"(?<![\w:])(?:([0-9]{1,4}):([0-9])|([0-9]{1,3}):([0-9]{3,5})|([0-9]{3}):([0-9]{1,3})"
                r"|([0-9]{1,2}):([6-9][0-9]))(?![\w:])"),
     lambda match: " to ".join(part for part in match.groups() if part)),
    (re.compile(r"(?<=[0-9]) ?\* ?(?=[0-9])"), " times "),
    (re.compile(r"(?<=[0-9])(st|nd|rd|th)-(?=[A-Za-z])"), r"\1 "),
    (re.compile(r"(?<=[0-9])(st|nd|rd|th) ?[-–] ?(?=[0-9]{1,3}(?:st|nd|rd|th)\b)"), r"\1 to "),
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
