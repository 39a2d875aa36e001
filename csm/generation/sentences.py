"""Splits text that arrives in pieces into sentences that can be spoken one by one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from csm.text_numbers import is_before_number
from csm.text_tables import BEFORE_NUMBERS, DOTTED_UNITS

# Stop marks with what closes after them, and the space behind; or no space, between a small letter and a
# capital: "3.5", "e.g.this" and "Node.js" are not cut. A blank line ends a sentence without a mark.
_MARKS = re.compile(
    r"""(?<![.!?…])(?P<mark>[.!?…]+)(?P<closed>["'”’)\]»*_]*)"""
    r"""(?:\s+|(?<=[a-z][a-z][.!?])(?=[A-Z][a-z\s'’]))|\n[^\S\n]*\n\s*"""
)
# What may become one of these with the text to come, at the end of a text.
_UNFINISHED = re.compile(r"""(?:(?<![.!?…])[.!?…]+["'”’)\]»*_]*[A-Z]?|\n[^\S\n]*)\Z""")
_ITEM_NUMBER = re.compile(r"\W{0,20}\d{1,3}")
_SPACES = re.compile(r"\s+")
_WORD_BEFORE = re.compile(r"(?:[A-Za-z]+\.)*[A-Za-z]+$")
# In characters; the longest abbreviation and what stands before it are shorter.
_LOOKS_BACK = 60
# An item of a list in a sentence, or a stop after a space, as in ". . .".
_OPEN = re.compile(r"[:,;] \d{1,2}$|\s$")
_OPENING = re.compile(r"""["'“‘(\[«*_]+""")
_NEXT = re.compile(r"[A-Za-z]+|\d|.", re.DOTALL)
# Stand before a name or a noun, and never last.
_TITLES = frozenset(
    "Dr Mr Mrs Ms Messrs Prof Gen Sgt Capt Cpl Col Maj Adm Cmdr Gov Sen Rep Rev Hon Lt St Mt Ft Fr".split()
    + "vs e.g i.e approx cf viz".split()
)
_BEFORE_NUMBERS = frozenset(BEFORE_NUMBERS) | frozenset(
    "tel op jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri sat "
    "sun".split()
)
_WORDS = frozenset("jan mar jun mon wed sat sun".split())  # in small letters
# These may end a sentence: not before a small letter. The unit "in" is a word without a number before it.
_RUNNING = (_BEFORE_NUMBERS | frozenset(unit.lower() for unit in DOTTED_UNITS)) - {"in"} | frozenset(
    "inc ltd co corp bros jr sr etc dept est univ assoc ave rd blvd ln hwy bldg st a.m p.m avg incl "
    "misc".split()
)
_INCHES = re.compile(r"[0-9] $")
_TIMES = frozenset(
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May June July "
    "August September October November December Eastern Central Mountain Pacific EST EDT PST PDT CST GMT UTC "
    "Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec Mon Tue Tues Wed Thu Thurs Fri Sat Sun".split()
)
# Begin a sentence after initials; other capitals may belong to a name.
_STARTERS = frozenset(
    "A An The This That These Those There Here I He She It We You They My His Her Its Our Your Their And But "
    "Or So Then When While If As At In On For From With What Where Why Who How Is Are Was Were Do Does Did "
    "Not No Yes Now After Before Since Because Let".split()
)
# In characters. Longer sentences are cut at a comma or else between words: training turns are not longer.
LONGEST_SENTENCE = 160


def sentences(pieces: Iterable[str]) -> Iterator[str]:
    """Yields the sentences of a text, each as soon as it is complete; the last one at the end of the pieces.

    Args:
        pieces: Pieces of the text, cut anywhere; spaces at their ends count.

    Raises:
        ValueError: A word has more than LONGEST_SENTENCE characters; raised when it is reached.
    """
    waiting, searched = "", 0
    for piece in pieces:
        waiting += piece
        begin = _past(_SPACES, waiting, 0)
        while True:
            end, searched = _search(waiting, begin, max(begin, searched), complete=False)
            if end is None:
                break
            yield from _short_parts(waiting[begin:end])
            begin = _past(_SPACES, waiting, end)
        waiting, searched = waiting[begin:], max(0, searched - begin)
    begin = 0
    while True:
        end, searched = _search(waiting, begin, max(begin, searched), complete=True)
        yield from _short_parts(waiting[begin:end])
        if end is None:
            return
        begin = _past(_SPACES, waiting, end)


def first_end(text: str, complete: bool = False) -> int | None:
    """Returns where the first sentence of a text ends, with the space after it.

    Args:
        text: Text, which begins with a sentence.
        complete: Whether nothing follows the text.

    Returns:
        None: the text has no end, or what follows decides whether there is one.
    """
    return _search(text, 0, 0, complete)[0]


def _search(text: str, begin: int, searched: int, complete: bool) -> tuple[int | None, int]:
    """Returns the end of the sentence that begins at `begin`, and where a search of a longer text begins.

    Marks before `searched` end no sentence.
    """
    for found in _MARKS.finditer(text, searched):
        ends = _ends(text, begin, found, complete)
        if ends:
            return found.end(), found.end()
        if ends is None or found.end() == len(text):
            return None, found.start()
        searched = found.end()
    unfinished = _UNFINISHED.search(text, searched)
    return None, unfinished.start() if unfinished else len(text)


def _ends(text: str, begin: int, found: re.Match[str], complete: bool) -> bool | None:
    """Whether a sentence ends at marks; None: it depends on the text to come."""
    if found["mark"] is None:
        return True
    before = text[max(begin, found.start() - _LOOKS_BACK) : found.start()]
    follower = _follower(text, found.end(), complete)
    word = None if found["closed"] else _WORD_BEFORE.search(before)
    if found["mark"] == "." and word is not None:
        return _ends_after(word[0], before[: word.start()], follower)
    if found["mark"] == "." and _ITEM_NUMBER.fullmatch(text, begin, found.start()):
        return False  # the number of an item of a list
    if word is not None and word[0] == follower and found["mark"].startswith(("..", "…")):
        return False  # "I... I do."
    if found["closed"] or found["mark"].startswith(("..", "…")) or _OPEN.search(before):
        return None if follower is None else not (follower[:1].islower() or follower == ".")
    return True


def _past(signs: re.Pattern[str], text: str, place: int) -> int:
    """Returns where the signs end that stand at a place of a text: the place itself where there are none."""
    found = signs.match(text, place)
    return found.end() if found else place


def _follower(text: str, end: int, complete: bool) -> str | None:
    """Returns the word, digit or sign that follows; "" at the end; None where it has not arrived whole."""
    found = _NEXT.match(text, _past(_OPENING, text, end))
    if found is None or (found[0].isalpha() and found.end() == len(text)):
        return (found[0] if found else "") if complete else None
    return found[0]


def _ends_after(word: str, before: str, follower: str | None) -> bool | None:
    """Whether a sentence ends at the full stop after a word."""
    small = word.lower()
    if word in _TITLES and not (word == "St" and before.rstrip()):
        return False
    if word.islower() and word in _WORDS:
        return True
    if word == "in" and _INCHES.search(before):
        return None if follower is None else not follower.islower()
    initial = "." in word and small not in _RUNNING or (len(word) == 1 and word.isupper() and word != "I")
    if not initial and small not in _RUNNING and word not in _TITLES:
        return True
    if follower is None or not follower:
        return None if follower is None else True
    if follower.isdigit():
        return small not in _BEFORE_NUMBERS or not is_before_number(word, before)
    return _ends_before(follower, small, initial)


def _ends_before(follower: str, word: str, initial: bool) -> bool:
    """Whether a sentence ends at an abbreviation, in small letters, before what follows and is no number."""
    if follower.islower():
        return word == "no" and follower != "of"
    if follower in _TIMES:
        return False
    return follower in _STARTERS or not (initial or word in ("jr", "sr", "st"))


def _short_parts(sentence: str) -> Iterator[str]:
    """Yields the sentence, in parts of at most LONGEST_SENTENCE characters."""
    rest = " ".join(sentence.split())
    while len(rest) > LONGEST_SENTENCE:
        head = rest[: LONGEST_SENTENCE + 1]
        cut = max(head.rfind(mark) + 1 for mark in (", ", "; ", ": "))
        if cut < LONGEST_SENTENCE // 2:
            cut = head.rfind(" ")
        if cut <= 0:
            word = rest.split(" ", 1)[0]
            raise ValueError(
                f"a word of {len(word)} characters ({word[:20]}...) is too long to speak: expected at most "
                f"{LONGEST_SENTENCE}"
            )
        yield rest[:cut].strip()
        rest = rest[cut:].strip()
    if rest:
        yield rest
