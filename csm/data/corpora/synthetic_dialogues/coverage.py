"""Sentences with rare sounds and rare neighbours of sounds; `phone_pairs` counts what a corpus covers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

SENTENCES = (
    "The usual treasure gave him no pleasure.", "A beige garage hides behind the azure lake.",
    "Those thieves threw thirty things through the theatre.", "The boy enjoyed the noisy toy.",
    "Joyce's voice annoyed the choir boys.", "Which witch wished for the wicked watch?",
    "Eight apes ate eighty apricots.", "George's judge urged the general to change the budget.",
    "Church children chose cheap cheese and chips.", "Shall she sell fresh fish in the shade?",
    "A vague vision vanished in the evening.", "Zebras gaze lazily at the zoo's roses.",
    "Uncle Hugh used a huge cube of blue glue.", "The young singer sang a long song on the swing.",
    "Bring the strong string and hang it among the things.", "How now, brown cow, out on the ground?",
    "The crowd in town found the house loud.", "Poor tourists endure the pure rural air.",
    "Near here, the deer appear every year.", "There, in the square, a rare bear stared at the chair.",
    "Sparks start in the dark yard of the large barn.", "More stores close before the north door opens.",
    "Her nurse heard the first bird early on Thursday.", "Fire and iron tire the quiet lion.",
    "Our flower shower lasted an hour.", "Twelfth months and sixths are hard to say.",
    "He asked for masks, desks, tasks and discs.", "Texts and contexts perplex the next clerks.",
    "Glimpsed from the cliffs, the ships drifted adrift.",
    "Strengths and lengths stretch the sixth branch.", "Split the splendid splinters and spread the straw.",
    "Squirrels squeeze through the squeaky square screen.", "Thrushes thrive on three thrilling thrones.",
    "Shrimps shrink and shrivel on the shrubs.", "Smooth snakes sneak, sniff and snore.",
    "Dwarves dwell and twist between twelve twins.", "Quick queens quietly question the quaint quartet.",
    "Few views of the music museum amuse the mule.", "Cute pupils argue about beautiful computers.",
    "Yellow yachts yield beyond the yard.", "Onions, opinions and millions of canyons are familiar.",
    "Both brothers bathe beneath the other path.", "With these clothes they soothe and breathe.",
    "Measure the leisure of the casual decision.", "An explosion of confusion led to the invasion.",
    "The version of the conversion was Asian and Persian.",
    "Edge the hedge and lodge the badge on the bridge.", "Orange cabbage and sausage damage the village.",
    "Hanging rings ping, ding and bong along.", "Banks think pink ink sinks in junk trunks.",
    "Anger lingers on hungry fingers.", "Robbed, begged and hugged, he lived and loved.",
    "Bathed and breathed, judged and charged, buzzed and grazed.", "Film the elm and help the shelf.",
    "Solve the golf bulb and the false pulse.", "Cold gold rolled and told the whole world.",
    "Milk and silk sulk in bulk.", "Eighth widths, fifths and tenths add up.",
    "Obvious objects obtain subtle absence.", "Admit the advice of the admiral's advantage.",
    "Ignore the enigma of the magnet's signal.", "Atlas and athletes settle for little bottles.",
    "Hidden gardens widen, sudden and wooden.", "Cotton kittens and mittens rotten in Britain.",
    "Go away over the open ocean, though slow.", "See each eager eagle eat evenly.",
    "I buy my own ivory island.", "They obey eight able aides.",
    "Do it too, you two, in the cool pool room.", "Put the good book on the wooden foot hook.",
    "Odd, Otto ought to author awful laws.", "Up above, under other oven gloves.",
    "And an actor had a hat at half past.", "Every ember ever entered the empty end.",
    "It is in his image, isn't it?", "Why would we whistle while we wait?",
    "Has Hannah's hero hidden his hammer here?", "Pop a pop-up pipe, Papa.",
    "Did Dad's dog dig a deep ditch?", "Kick the cook's cocoa cake quickly.",
    "Get Greg's grey goggles again.", "Tight tents tilt toward Tim's tower.",
    "Baby Bobby bribed the barber.", "Fifty-five furious fathers fought for four forts.",
    "Vivian's velvet vests vary over five valves.",
)  # fmt: skip


def phone_pairs(sequences: Iterable[str]) -> Counter[str]:
    """Counts neighbouring phoneme letters, stress marks and punctuation left out."""
    pairs: Counter[str] = Counter()
    for sequence in sequences:
        letters = [letter for letter in sequence if letter.isalpha() and letter not in "ˈˌː"]
        pairs.update(map("".join, zip(letters, letters[1:], strict=False)))
    return pairs
