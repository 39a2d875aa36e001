"""Written dialogues for what chats lack: numbers, dates, prices, letters, names, homographs, repeated words.

Later turns repeat names and words of earlier ones, and Sesame's consistency words (either, route, data) come
twice in a dialogue: what a memory of the conversation can carry.
"""

from __future__ import annotations

import random

from csm.data.corpora.synthetic_dialogues.chats import Dialogue

NAMES = (
    "Alice Barbara Catherine Daniel Edward Frances George Hannah Isabel James Katie Laura Martin Nancy "
    "Oliver Patricia Robert Samuel Teresa Victor William Zoe Walter Julia Henry Charlotte Arthur Emily "
    "Frederick Grace Nathan Sophia Thomas Lucy Joseph Margaret Peter Eleanor Simon Rachel"
).split()
FAMILIES = (
    "Anderson Baker Carter Dawson Evans Fletcher Graham Harrison Jackson Kennedy Lawson Mitchell Nelson "
    "Parker Richards Shepherd Thornton Vaughan Watson Young Gallagher Hughes Bradshaw Chambers Douglas "
    "Goodwin"
).split()
PLACES = (
    "Boston Chicago Denver Seattle Dublin London Paris Berlin Toronto Houston Atlanta Portland "
    "Cambridge Oxford Liverpool Manchester Vienna Lisbon Geneva Sydney Melbourne Phoenix Dallas Detroit"
).split()
STREETS = "Maple Oak Church Station Market Bridge Garden River Willow Chestnut Harbour Victoria".split()
MONTHS = ("January February March April May June July August September October November December").split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
THINGS = (
    ("coffee", "coffees"), ("sandwich", "sandwiches"), ("ticket", "tickets"), ("chair", "chairs"),
    ("notebook", "notebooks"), ("lamp", "lamps"), ("jacket", "jackets"), ("bicycle", "bicycles"),
    ("umbrella", "umbrellas"), ("watch", "watches"), ("bottle", "bottles"), ("box", "boxes"),
)  # fmt: skip
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
).split()
ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
HOMOGRAPHS = (
    ("I read that book last year.", "Then read it again, it is better the second time."),
    ("Will you live in the city?", "Yes, and I will hear live music every night."),
    ("Close the door, please.", "It is too close to the window, I cannot reach it."),
    ("The wind is strong today.", "Then wind the rope around the post twice."),
    ("He wound the clock this morning.", "And the wound on his hand, has it healed?"),
    ("They will record the song on Friday.", "Then it will be a record to remember."),
    ("I object to that plan.", "What object would you rather use?"),
    ("The lead singer was late.", "Her bag was as heavy as lead."),
    ("She shed a tear at the end.", "Please do not tear the page."),
    ("We present the prize tonight.", "And what present did you buy for her?"),
    ("The desert is dry in summer.", "He would never desert his friends there."),
    ("Use the blue cup.", "What is the use of a cup without a handle?"),
)
EXCLAMATIONS = (
    "What a surprise!", "That is wonderful!", "Oh no, not again!", "Watch out!", "I can't believe it!",
    "How lovely!", "Well done!", "Hurry up, we're late!", "Good grief!", "At last!", "Stop that at once!",
)  # fmt: skip
REPLIES = (
    "Yes.", "No.", "Maybe.", "Of course.", "I see.", "Right.", "Not yet.", "Sure.", "Okay.", "Thank you.",
    "Mm, yes.", "Really?", "Why?", "Since when?", "Who told you that?", "Are you sure?",
    "I don't think so.", "Never mind.",
)  # fmt: skip


def number_words(number: int) -> str:
    """Returns a whole number from 0 to 999,999 in words."""
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10] + (f"-{ONES[number % 10]}" if number % 10 else "")
    if number < 1000:
        return f"{ONES[number // 100]} hundred" + (
            f" and {number_words(number % 100)}" if number % 100 else ""
        )
    rest = f" {number_words(number % 1000)}" if number % 1000 else ""
    return f"{number_words(number // 1000)} thousand{rest}"


def template_dialogue(rng: random.Random) -> Dialogue:
    """Returns one written dialogue with its names, numbers and words drawn."""
    turns = rng.choice(KINDS)(rng)
    if rng.random() < 0.3:
        turns.insert(rng.randrange(1, len(turns) + 1), rng.choice((*EXCLAMATIONS, *REPLIES)))
    return [(index % 2, text) for index, text in enumerate(turns)]


def _meeting(rng: random.Random) -> list[str]:
    name, day, hour = _name(rng), rng.choice(DAYS), rng.randint(1, 12)
    minutes = rng.choice(("", " fifteen", " thirty", " forty-five", " twenty"))
    date = f"{rng.choice(MONTHS)} the {rng.choice(ORDINALS)}"
    time = f"{ONES[hour]}{minutes}" if minutes else f"{ONES[hour]} o'clock"
    return [
        f"When does {name} arrive?",
        f"On {day}, {date}, at {time}.",
        f"{day} at {time}? I thought {name} was coming on {rng.choice(DAYS)}.",
        f"No, {name} changed the flight. It is {day} now.",
        f"Then I will meet {name} at the station in {rng.choice(PLACES)}.",
    ]


def _shop(rng: random.Random) -> list[str]:
    one, many = rng.choice(THINGS)
    count, price, cents = rng.randint(2, 40), rng.randint(1, 400), rng.choice((0, 25, 50, 75, 95, 99))
    cost = f"{number_words(price)} dollars" + (f" and {number_words(cents)} cents" if cents else "")
    return [
        f"How much is this {one}?",
        f"That {one} costs {cost}.",
        f"And for {number_words(count)} {many}?",
        f"{number_words(count).capitalize()} {many} are {number_words(min(price * count, 99_999))} dollars.",
        rng.choice(
            ("That is too much!", "I'll take them.", "Could you wait until Friday?", "What a bargain!")
        ),
    ]


def _telephone(rng: random.Random) -> list[str]:
    digits = [ONES[rng.randrange(10)] for _ in range(7)]
    first, last = ", ".join(digits[:3]), ", ".join(digits[3:])
    return [
        f"Could you give me {_name(rng)}'s telephone number?",
        f"Certainly. It is {' '.join(digits[:3])}, {' '.join(digits[3:])}.",
        f"Let me repeat that: {first}, then {last}?",
        rng.choice(("That's right.", "Exactly.", f"No, it ends in {digits[-1]}.", "Yes, that's correct.")),
    ]


def _spelling(rng: random.Random) -> list[str]:
    family, first = rng.choice(FAMILIES), _name(rng)
    letters = ", ".join(family.upper())
    return [
        "What name shall I write down?",
        f"{first} {family}.",
        f"How do you spell {family}?",
        f"{letters}.",
        f"Thank you, {first}. I have written {family}.",
    ]


def _address(rng: random.Random) -> list[str]:
    number, street, place = rng.randint(1, 950), rng.choice(STREETS), rng.choice(PLACES)
    return [
        f"Where does {_name(rng)} live now?",
        f"At {number_words(number)} {street} Street, in {place}.",
        f"Is {street} Street far from here?",
        f"{number_words(rng.randint(2, 60)).capitalize()} minutes by bus, {ONES[rng.randint(3, 19)]} by car.",
        f"{place} again! I was born there in nineteen {number_words(rng.randint(40, 99))}.",
    ]


def _consistency(rng: random.Random) -> list[str]:
    place, other, name = rng.choice(PLACES), rng.choice(PLACES), _name(rng)
    return rng.choice(
        (
            [
                f"Which route does {name} take to {place}?",
                f"Either route is fine, but the route by {other} is shorter.",
                "Neither route was open yesterday.",
                "Then take either the bridge or the ferry.",
            ],
            [
                "Have you seen the new data?",
                f"The data that {name} collected in {place}?",
                f"No, the data from {other}. Either the data are wrong, or we are.",
                "Neither would surprise me.",
            ],
            [
                f"I often think of {name}'s garden with the tomato plants.",
                "Often? You said you never liked tomatoes!",
                "I like neither tomatoes nor potatoes, but I like the garden.",
                f"{name} would be happy to hear that, in either case.",
            ],
            [
                "Is the schedule for the garage ready?",
                f"The schedule is ready, and {name} has read it.",
                "What does the schedule say about the route?",
                "It says that the route is closed until August.",
            ],
        )
    )


def _measure(rng: random.Random) -> list[str]:
    low, high = rng.randint(2, 60), rng.randint(61, 999)
    return [
        f"How far is it to {rng.choice(PLACES)}?",
        f"{number_words(high).capitalize()} kilometres, or {number_words(round(high * 0.62))} miles.",
        f"And how heavy is the {rng.choice(THINGS)[0]}?",
        f"{number_words(low).capitalize()} point {ONES[rng.randrange(1, 10)]} pounds.",
        f"About {number_words(rng.randint(1, 99))} percent more than last time, then.",
    ]


def _introduction(rng: random.Random) -> list[str]:
    first, second = rng.sample(NAMES, 2)
    return [
        f"Hello, my name is {first}.",
        f"Nice to meet you, {first}. I'm {second}.",
        f"{second}! Are you {rng.choice(NAMES)}'s {rng.choice(('brother', 'cousin', 'neighbour'))}?",
        f"Yes, {first}, I am. Do you come from {rng.choice(PLACES)}?",
        f"I moved there {number_words(rng.randint(2, 30))} years ago, {second}.",
    ]


def _homograph(rng: random.Random) -> list[str]:
    pairs = rng.sample(HOMOGRAPHS, 2)
    return [line for pair in pairs for line in pair]


def _name(rng: random.Random) -> str:
    return rng.choice(NAMES)


KINDS = (
    _meeting, _shop, _telephone, _spelling, _address, _consistency, _measure, _introduction, _homograph,
)  # fmt: skip
