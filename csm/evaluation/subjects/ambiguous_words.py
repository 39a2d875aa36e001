"""Words with two pronunciations: homographs, which the sentence decides, and words that vary by speaker.

The words are those of Sesame's two tests (Crossing the uncanny valley of conversational voice, 2025), of
which only the words are published; the sentences are our own, and five further homographs are added. The
phones are those of `csm/pronunciation.py`, without stress: General American, but for `row` as a quarrel.
"""

from __future__ import annotations

from dataclasses import dataclass

MARK = "_"  # stands for the word in a sentence


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One pronunciation of a word.

    Attributes:
        phones: Its phones.
        sentences: Sentences that take this pronunciation, "_" in place of the word.
        spelling: Words that sound like it, for a speaker that is to use it; empty for homographs.
    """

    phones: tuple[str, ...]
    sentences: tuple[str, ...] = ()
    spelling: str = ""


@dataclass(frozen=True, kw_only=True)
class AmbiguousWord:
    """A word with its two readings.

    Attributes:
        word: Its spelling.
        readings: The two pronunciations.
        published: Whether it is one of Sesame's words.
    """

    word: str
    readings: tuple[Reading, Reading]
    published: bool = True


def _homograph(word: str, *readings: tuple[str, str, str], published: bool = True) -> AmbiguousWord:
    first, second = (
        Reading(phones=tuple(phones.split()), sentences=tuple(sentences)) for phones, *sentences in readings
    )
    return AmbiguousWord(word=word, readings=(first, second), published=published)


HOMOGRAPHS = (
    _homograph(
        "lead",
        ("l ɛ d", "The old _ pipes must be replaced.", "The box was lined with _ and sealed."),
        ("l i d", "She will _ the group up the hill.", "Take the _ in the dance tonight."),
    ),
    _homograph(
        "bass",
        ("b eɪ s", "He plays the _ guitar in a band.", "Turn down the _ on that speaker."),
        ("b æ s", "We caught a large _ in the lake.", "They grilled the _ they had fished."),
    ),
    _homograph(
        "tear",
        ("t ɛ ɹ", "Please do not _ the paper.", "There is a _ in my new coat."),
        ("t ɪ ɹ", "A single _ ran down her cheek.", "He wiped a _ from his eye."),
    ),
    _homograph(
        "wound",
        ("w aʊ n d", "She _ the clock every evening.", "He _ the rope around a post."),
        ("w u n d", "The nurse cleaned the _ with care.", "His _ needs a clean bandage."),
    ),
    _homograph(
        "row",
        ("ɹ oʊ", "We sat in the front _ of the hall.", "Can you _ the boat to the shore?"),
        ("ɹ aʊ", "They had a loud _ about money.", "The neighbours had a _ last night."),
    ),
    _homograph(
        "wind",
        ("w ɪ n d", "A cold _ blew from the north.", "The _ took my hat away."),
        ("w aɪ n d", "Please _ the clock before bed.", "Now _ the string around the stick."),
        published=False,
    ),
    _homograph(
        "live",
        ("l ɪ v", "My parents _ near the sea.", "Where do you _ these days?"),
        ("l aɪ v", "The band played _ music all night.", "We watched a _ show on the stage."),
        published=False,
    ),
    _homograph(
        "close",
        ("k l oʊ s", "The shop is _ to the station.", "That was a very _ game."),
        ("k l oʊ z", "Did you _ the window upstairs?", "They _ the doors at six."),
        published=False,
    ),
    _homograph(
        "read",
        ("ɹ ɛ d", "I have already _ that book twice.", "She _ it to him last night."),
        ("ɹ i d", "He will _ the letter tomorrow.", "Please _ the first page aloud."),
        published=False,
    ),
    _homograph(
        "bow",
        ("b oʊ", "She tied a red _ in her hair.", "He shot with a _ and arrow."),
        ("b aʊ", "The actors took a _ at the end.", "You must _ before the queen."),
        published=False,
    ),
)


def _variants(word: str, *readings: tuple[str, str]) -> AmbiguousWord:
    first, second = (
        Reading(phones=tuple(phones.split()), spelling=spelling) for phones, spelling in readings
    )
    return AmbiguousWord(word=word, readings=(first, second))


VARIANTS = (
    _variants("aunt", ("æ n t", "ant"), ("ɔ n t", "awnt")),
    _variants("data", ("d eɪ t ə", "dayta"), ("d æ t ə", "datta")),
    _variants("envelope", ("ɛ n v ə l oʊ p", "envelope"), ("ɑ n v ə l oʊ p", "onvelope")),
    _variants("mobile", ("m oʊ b ə l", "moble"), ("m oʊ b aɪ l", "mo bile")),
    _variants("route", ("ɹ u t", "root"), ("ɹ aʊ t", "rout")),
    _variants("vase", ("v eɪ z", "vaze"), ("v ɑ z", "vahz")),
    _variants("either", ("i ð ɚ", "either"), ("aɪ ð ɚ", "eye there")),
    _variants("adult", ("ə d ʌ l t", "adult"), ("æ d ʌ l t", "add ult")),
    _variants("often", ("ɔ f ə n", "offen"), ("ɔ f t ə n", "often")),
    _variants("caramel", ("k ɛ ɹ ə m ə l", "carra mel"), ("k ɑ ɹ m ə l", "carmel")),
)

# One turn before and one turn after, for each word; both hold the word.
PAIRS = {
    "aunt": ("My _ is coming to visit.", "I think your _ will like it here."),
    "data": ("The new _ came in today.", "Then show me the _ at once."),
    "envelope": ("I put the _ on the desk.", "There is no _ on the desk."),
    "mobile": ("I left my _ phone at home.", "You can use my _ phone."),
    "route": ("Which _ did you take today?", "The same _ as last time."),
    "vase": ("The blue _ is on the table.", "I have a _ just like it."),
    "either": ("You can take _ of the two.", "I do not want _ of them."),
    "adult": ("Every _ needs a ticket.", "One _ and two children, please."),
    "often": ("Do you _ come to this place?", "I _ come here with my friends."),
    "caramel": ("I like the _ ice cream best.", "Then two _ creams, please."),
}
