"""The script of the corpus: which conversation says what, by whom and how fast; a pure function of its index.

Every block of 20 conversations holds the same mixture, so the first hours are as balanced as the whole:
11 chats, 4 templates, 2 stretches of an acted script, 1 of sentences that cover rare sounds, and 2 twins. A
twin repeats an earlier conversation of the block with other speakers: the same text in another voice.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from csm.data.corpora.amazon_queen_script import clean_text, read_lines
from csm.data.corpora.synthetic_dialogues.chats import ABUSE, MOST_WORDS, Dialogue, chat_dialogues
from csm.data.corpora.synthetic_dialogues.coverage import SENTENCES
from csm.data.corpora.synthetic_dialogues.templates import template_dialogue
from csm.data.corpora.synthetic_dialogues.voices import SHARES, SyntheticSpeaker, held_out_speakers, speakers
from csm.data.manifest import split_of
from csm.system.files import hash_key

BLOCK = (
    "chat chat template chat lines chat twin chat template chat "
    "coverage chat chat template chat lines chat twin chat template"
).split()
#: Rates of whole conversations: a listener adapts to how the other speaks.
RATES = (0.86, 1.0, 1.0, 1.0, 1.0, 1.18)


@dataclass(frozen=True)
class Utterance:
    """One turn before it is spoken.

    Attributes:
        text: What is said.
        speaker: Who says it.
        speed: Factor on the teacher's rate.
    """

    text: str
    speaker: SyntheticSpeaker
    speed: float


@dataclass(frozen=True)
class Script:
    """One conversation before it is spoken.

    Attributes:
        id: Name of the conversation; a twin's ends in "-twin".
        kind: "chat", "template", "lines" or "coverage".
        split: Split of the text; twins share it.
        turns: Turns in order.
    """

    id: str
    kind: str
    split: str
    turns: tuple[Utterance, ...]


def scripts(cache: Path, is_word: Callable[[str], bool]) -> Iterator[Script]:
    """Yields every conversation in order, until the chats end; the same ones at every call.

    Args:
        cache: Folder of the packages' files.
        is_word: Whether a lower-case word has a known pronunciation.

    Raises:
        ValueError: A package cannot be fetched or is damaged.
    """
    chats = iter(sorted(chat_dialogues(cache, is_word), key=lambda chat: hash_key(chat[0])))
    acted = _acted()
    earlier: list[Script] = []
    for number in count():
        kind = BLOCK[number % len(BLOCK)]
        rng = random.Random(f"synthetic_dialogues/{number}")
        if kind == "twin":
            yield _twin(rng.choice(earlier), rng)
            earlier.clear()
            continue
        if kind == "chat":
            found = next(chats, None)
            if found is None:
                return
            name, dialogue = found
        elif kind == "lines":
            name, dialogue = next(acted)
        else:
            draw = template_dialogue if kind == "template" else _coverage
            name, dialogue = f"{kind}-{number:05d}", draw(rng)
        earlier.append(_cast(name, kind, dialogue, rng, split_of(name) if kind != "lines" else "train"))
        yield earlier[-1]


def _twin(original: Script, rng: random.Random) -> Script:
    """Returns the texts of a conversation by two other speakers."""
    first = original.turns[0].speaker
    dialogue = [(int(turn.speaker != first), turn.text) for turn in original.turns]
    taken = {turn.speaker.name for turn in original.turns}
    while True:
        twin = _cast(f"{original.id}-twin", original.kind, dialogue, rng, original.split)
        if not taken & {turn.speaker.name for turn in twin.turns}:
            return twin


def _cast(name: str, kind: str, dialogue: Dialogue, rng: random.Random, split: str) -> Script:
    """Draws two speakers and rates. Half of the test conversations have held-out speakers."""
    chosen = held_out_speakers() if split == "test" and rng.random() < 0.5 else speakers()
    names = list(chosen)
    rest = (1 - sum(SHARES.values())) / (len(names) - len(SHARES))
    first, second = names[0], names[0]
    while set(first.split("+")) & set(second.split("+")):  # two blends of one voice sound alike
        first, second = rng.choices(names, [SHARES.get(n, rest if rest > 0 else 1.0) for n in names], k=2)
    rate = rng.choice(RATES)
    pair = (chosen[first], chosen[second])
    turns = [
        Utterance(text, pair[who], round(pair[who].speed * rate * rng.uniform(0.96, 1.04), 3))
        for who, text in dialogue
    ]
    return Script(name, kind, split, tuple(turns))


def _coverage(rng: random.Random) -> Dialogue:
    return [(index % 2, text) for index, text in enumerate(rng.sample(SENTENCES, 6))]


def _acted() -> Iterator[tuple[str, Dialogue]]:
    """Stretches of the Amazon Queen's script, of training conversations alone; begins again at its end."""
    stretches: list[tuple[str, Dialogue]] = []
    lines: dict[str, list[tuple[str, str]]] = {}
    for line in read_lines():
        text = clean_text(line.text)
        if split_of(line.conversation) == "train" and _can_be_spoken(text):
            lines.setdefault(line.conversation, []).append((line.speaker, text))
    for conversation, spoken in lines.items():
        for part, first in enumerate(range(0, len(spoken) - 3, 8)):
            stretch = spoken[first : first + 8]
            roles = [role for role, _ in stretch]
            sides = [int(role != roles[0]) for role in roles]
            name = f"lines-{conversation}-{part:02d}"
            stretches.append((name, [(side, text) for side, (_, text) in zip(sides, stretch, strict=True)]))
    stretches.sort(key=lambda stretch: hash_key(stretch[0]))
    for again in count():
        for name, dialogue in stretches:
            yield (f"{name}-{again}" if again else name), dialogue


def _can_be_spoken(text: str) -> bool:
    words = text.split()
    return 0 < len(words) <= MOST_WORDS and not set("()<>*#&") & set(text) and not ABUSE.search(text)
