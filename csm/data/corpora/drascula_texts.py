"""Texts of Drascula as they are spoken: sentence case, other words of the actors, clips without them."""

from __future__ import annotations

import re

# Names and other words that keep their capitals in the middle of a sentence.
_NAMES = (
    "Alucsard Etereum|B.J.|Billie|Billie Jean|Blur|Braun|British|CD|Choifrusky|Christmas|"
    "Constantino|Danube|Desiderio|Desiderioooo|Drascula|El Coyote|Elvis|Emilio de Paz|Emma|"
    "Evaristo|Fernan|Fernando Lancha|Frank|French|Fruskynstein|Ganimedes|Garcia|Gibraltar|God|"
    "Hacker|Hamlet|Igor|Japanese|Jesus|John|Johnny|Juliet|Kleenex|Ltd|Margaret|McGyver|"
    "Microchof|Miguel Bose|OK|Oxford|Pelayo|Plato|Poltergeist|South America|Stevie Wonder|"
    "Superman|Tchaikovsky|Thatcher|Thatchers|Tibet|Transilvania|Transilvanian|TV|Von Braun|"
    "Woody Allen|Yoda|Yule Brinner"
).split("|")
_NAME = re.compile(
    r"(?<!\w)(" + "|".join(map(re.escape, sorted(_NAMES, key=len, reverse=True))) + r")(?!\w)", re.I
)
_SPELLING = {name.lower(): name for name in _NAMES}
# The end of a sentence; three dots are a pause, and "B.J." is a name.
_BEGINNING = re.compile(r"((?:^|(?:[!?]|(?<!\.\.)(?<!B\.J)\.)[\"')]*\s+)[\"'(]*)([a-zé])")

# Clip -> what is said where it is plainly not the text in drascula.dat: 2 recognisers (tiny.en, base), or one
# and the file of a dialogue, agree on it. Other lines differ from their texts by a word here and there.
SPOKEN = {
    "D26": "PUT THAT CIGARETTE OUT NOW! I CAN'T STAND YOU ANYMORE!",
    "D28": "SO, DOES THAT BREW HAVE THE OPPOSITE EFFECT?",
    "D82": "NO, NOTHING",
    "I17": (
        "NEITHER DO I. FIRST OF ALL, THE NUMBERS ARE VERY SMALL, AND ALSO I CAN'T SEE MUCH AT THIS DISTANCE"
    ),
    "P6": "AND?",
    "VB27": "OH, THAT'S EASY. JUST USING THE LIGHT OF ONE CRUCIFIX IS ENOUGH TO DESTROY HIM",
    "8": "THIS WINDOW IS STOPPING THE GAME FROM WORKING PROPERLY",
    "28": "FORBIDDEN TO PUT UP POSTERS",
    "48": "NOPE",
    "105": "HOW'S THE FAMILY?",
    "156": "NO, I'M NOT ONE OF THOSE WHO PUT USED BUBBLE GUM IN THE MOUTH",
    "166": "OMELETTE, 1 POUND, FRIED FISH, 80 P, MAYONNAISE POTATOES, 1 POUND 10",
    "167": "BEST BURGERS ON THIS SIDE OF THE DANUBE, ONLY FOR 1 POUND 60!",
    "207": "AND IT'S NOT EVEN COLD OR ANYTHING",
    "235": "WHAT ARE YOU DOING HERE, PHILOSOPHIZING INSTEAD OF EATING SOME PEOPLE?",
    "237": "HEY, COULD YOU SAY AGAIN ALL THAT ABOUT PRE-EVOLUTIONARY RELATIONSHIPS?",
    "239": "NO, I'D RATHER NOT SAY ANYTHING, IN CASE YOU GET ANGRY OR SOMETHING...",
    "252": "WHAT A SHIT OF A GAME IS THIS IN WHICH THE PROTAGONIST DIES!",
    "256": "I CAN SUPPORT THE TORTURE IN ADDITION TO CREATING IT",
    "258": "WELL, I'VE ALREADY TOLD YOU WHAT YOU WANTED TO KNOW. NOW RELEASE US AND LEAVE US IN PEACE",
    "278": "WELL, NO",
    "290": "TELL, HOW DID YOU GET TO END UP HERE",
    "295": "THE THING IS THAT I DON'T FEEL LIKE TALKING RIGHT NOW",
    "339": "OH, AT LAST!",
    "367": "WHAT'S YOUR LANGUAGE? TRANSILVANIAN?",
    "368": "WHO IS THAT UNCLE DESIDERIO?",
    "369": "WHAT'S THE MATTER WITH THAT DRASCULA?",
    "370": "WHO IS THAT GUY NAMED VON BRAUN?",
    "372": "AND WHERE CAN I FIND VON BRAUN?",
    "379": "PLEASE HELP ME! THE LIFE OF MY GIRLFRIEND DEPENDS ON YOU!",
    "382": "DON'T BE AFRAID. WE WILL BEAT DRASCULA TOGETHER",
    "397": "WHY WOULDN'T DRASCULA KILL YOU?",
    "407": "HELLO? HELLO?",
    "472": "IT'S THE KING. YOU DIDN'T IMAGINE THAT, DID YOU?",
    "489": "NO, I'M A REALLY GOOD PERSON",
}

# Clip -> why its words are not its text; what they are is not clear enough to be a text.
OTHER_WORDS = {
    "D67": "both recognisers find 'You better have ...'",
    "E10": "both recognisers find 'Yeah, it's you'",
    "122": "it holds two lines, 122 and 123",
    "255": "a recogniser finds '..., but you'll never get the answer', the other one nothing of the text",
    "257": "a recogniser finds 'No, no, please, please, I'll talk to you ...', the other one none of it",
    "259": "the sentences have another order and the name is Spanish",
    "268": "both recognisers find 'Hello'",
    "296": "whistles stand for words",
}


def sentence_case(text: str) -> str:
    """Returns a text in capitals in sentence case, with its names and without doubled marks and spaces."""
    text = re.sub(r"\s+", " ", text).strip().lower()
    text = re.sub(r"([!?])\.(?!\.)", r"\1", text)  # "BEAUTIFUL!." and "HERE B.J.?."
    text = re.sub(r"\bi\b", "I", text)
    text = _NAME.sub(lambda match: _SPELLING[match[1].lower()], text)
    text = _BEGINNING.sub(lambda match: match[1] + match[2].upper(), text)
    return text if text.endswith((".", "!", "?", '"', ")")) else f"{text}."
