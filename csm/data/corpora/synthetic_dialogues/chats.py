"""Human chats of the package chitchat-dataset (MIT) as conversations that can be spoken.

Chat language is repaired where a rule suffices (capitals, apostrophes, closing marks) and left out where it
is not: a message with a word outside the pronunciation lexicon, an address, a handle or abuse ends the
conversation's excerpt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from csm.data.packages import Package, fetch, wheel_member

CHATS = Package(
    name="chitchat-dataset",
    version="0.9.0",
    file="chitchat_dataset-0.9.0-py3-none-any.whl",
    sha256="7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e",
)
MOST_WORDS, FEWEST_TURNS, MOST_TURNS = 26, 4, 10
ABUSE = re.compile(
    r"\b(fuck|shit|bitch|cunt|dick|cock|porn|rape|nazi|slut|whore|fag|nigg|retard|kill yourself|sex|horny|"
    r"ass\b|damn|hell\b|gay|hitler|suicid)",
    re.IGNORECASE,
)
WITHOUT_APOSTROPHE = {
    "im": "I'm", "ive": "I've", "dont": "don't", "doesnt": "doesn't", "didnt": "didn't", "cant": "can't",
    "wont": "won't", "isnt": "isn't", "arent": "aren't", "wasnt": "wasn't", "werent": "weren't",
    "havent": "haven't", "hasnt": "hasn't", "hadnt": "hadn't", "couldnt": "couldn't", "wouldnt": "wouldn't",
    "shouldnt": "shouldn't", "thats": "that's", "whats": "what's", "theres": "there's", "heres": "here's",
    "youre": "you're", "youve": "you've", "youll": "you'll", "theyre": "they're", "theyve": "they've",
    "weve": "we've", "hes": "he's", "shes": "she's", "itll": "it'll", "lets": "let's", "aint": "ain't",
    "gonna": "gonna", "u": "you", "ur": "your", "ya": "yeah", "yea": "yeah",
    "ok": "okay", "thx": "thanks", "pls": "please", "plz": "please", "tho": "though", "cuz": "because",
    "idk": "I don't know", "btw": "by the way", "omg": "oh my gosh", "i": "I",
}  # fmt: skip
#: Signs of laughter: no word is spoken for them.
LAUGHTER = re.compile(r"\b(?:(?:ha){2,}h?|lo+l|lmao|rofl|he(?:he)+)\b[!.]*", re.IGNORECASE)
QUESTION = re.compile(
    r"^(?:(?:so|and|but|oh|well|yeah|no)[, ]+)*"
    r"(?:what|who|where|when|why|how|which|do|does|did|are|is|was|were|have|has|can|could|would|will|should)\b",
    re.IGNORECASE,
)

#: Speaker (0 or 1) and text of every turn.
Dialogue = list[tuple[int, str]]


def chat_dialogues(cache: Path, is_word: Callable[[str], bool]) -> Iterator[tuple[str, Dialogue]]:
    """Yields (id, dialogue) of every usable excerpt, at most one a chat, in the order of the package.

    Args:
        cache: Folder of the packages' files.
        is_word: Whether a lower-case word has a known pronunciation.

    Raises:
        ValueError: The package cannot be fetched or is damaged.
    """
    chats = json.loads(wheel_member(fetch(CHATS, cache), "chitchat_dataset/dataset.json"))
    for name, chat in chats.items():
        if dialogue := excerpt(chat["messages"], is_word):
            yield f"chat-{name[:8]}", dialogue


def excerpt(messages: list[list[dict[str, str]]], is_word: Callable[[str], bool]) -> Dialogue | None:
    """Returns the longest usable stretch of a chat, or None where none has four turns of two people."""
    best: Dialogue = []
    current: Dialogue = []
    senders: list[str] = []
    for run in messages:
        text = line_of([message["text"] for message in run], is_word)
        sender = run[0]["sender"] if run else ""
        if sender not in senders:
            senders.append(sender)
        if text is None or len(senders) > 2:
            current = []
        elif not current or current[-1][0] != senders.index(sender):
            # Of two neighbouring runs of one sender the first stays.
            current.append((senders.index(sender), text))
        if len(current) > len(best):
            best = list(current)
        if len(best) == MOST_TURNS:
            break
    usable = len(best) >= FEWEST_TURNS and len({speaker for speaker, _ in best}) == 2
    return best if usable else None


def line_of(messages: list[str], is_word: Callable[[str], bool]) -> str | None:
    """Returns one turn's messages as sentences of at most 26 words, or None where they cannot be spoken."""
    sentences: list[str] = []
    words = 0
    for message in messages:
        sentence = repaired(message)
        if not sentence:
            continue
        tokens = re.findall(r"[A-Za-z']+", sentence)
        if ABUSE.search(sentence) or re.search(r"[^A-Za-z ,.!?'\-]", sentence):
            return None
        if not all(is_word(token.lower().strip("'")) for token in tokens):
            return None
        if words + len(tokens) > MOST_WORDS:
            break
        words += len(tokens)
        sentences.append(sentence)
    return " ".join(sentences) if words else None


def repaired(message: str) -> str:
    """Returns a chat message with capitals, apostrophes and a closing mark; "" where nothing is spoken."""
    message = message.replace("\u2019", "'").replace("&", " and ").replace("\n", " ")
    message = LAUGHTER.sub("", re.sub(r"[:;=][-']?[()DPp/|]", "", message))
    message = re.sub(r"([!?.,])[!?.,]+", r"\1", message)
    message = re.sub(r"\s+([!?.,])", r"\1", re.sub(r"([!?,.])(?=[A-Za-z])", r"\1 ", message))
    message = re.sub(r"\b[A-Z][A-Z']+\b", lambda match: match[0].lower(), message)  # shouting, not acronyms
    words = [WITHOUT_APOSTROPHE.get(word.lower(), word) for word in re.split(r"(\W+)", message)]
    # The split cuts "i'm" into "i", "'" and "m": its "i" becomes a capital like any other.
    text = re.sub(r"\s+", " ", "".join(words)).strip(" ,-")
    if not re.search(r"[A-Za-z0-9]", text):
        return ""
    text = re.sub(r"(^|[.!?] )([a-z])", lambda match: match[1] + match[2].upper(), text)
    if text[-1] not in ".!?":
        text += "?" if QUESTION.match(text.split(". ")[-1]) else "."
    return text
