"""Texts with the words in capitals that their recordings emphasise, as `csm.text.EmphasisCodec` reads them.

No corpus is labelled with emphasis. What marks it can be measured where a text is aligned: an emphasised word
is higher, louder and slower than those around it (Fry 1958, Experiments in the Perception of Stress).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from csm.pronunciation import WORDS, can_emphasise
from csm.system.files import hash_key
from csm.text import EmphasisCodec

# Turns of fewer words have no words around.
FEWEST_WORDS = 4
# Deviations from the words around, of pitch, energy and rate together, above which a word is emphasised: one
# word in twenty.
PROMINENT = 3.0
# Share of turns whose words are marked: speech without marks has emphasis of its own too.
MARKED_SHARE = 0.5


def marked_text(
    codec: EmphasisCodec,
    name: str,
    text: str,
    ends: Float[Tensor, " L"],
    prosody: Float[Tensor, "T 3"],
) -> str:
    """Returns the text of a turn with the words in capitals that its recording emphasises.

    Half of the turns, by the hash of their id, stay as they are; so do those whose words are not those of
    their phones, because they hold numbers or abbreviations.

    Args:
        codec: Codec of the text.
        name: Id of the turn.
        text: Its text.
        ends: Frames at which the ids of `encode_turn` but its first end; none: not aligned.
        prosody: Log-F0, voicing and log energy of each frame.
    """
    if not len(ends) or not is_marked_turn(name) or any(character.isdigit() for character in text):
        return text
    words = [match.span() for match in WORDS.finditer(text)]
    spans = _spans(codec, text, ends)
    if len(words) != len(spans) or len(words) < FEWEST_WORDS:
        return text
    for (start, stop), score in zip(words, prominence(spans, prosody), strict=True):
        if score > PROMINENT and can_emphasise(text[start:stop]):
            marked = text[:start] + text[start:stop].upper() + text[stop:]
            # A part of a hyphened word would be read letter by letter.
            text = marked if _has_one_more(codec, text, marked) else text
    return text


def is_marked_turn(name: str) -> bool:
    """Returns whether the words of a turn are marked, by the hash of its id."""
    return hash_key(name)[0] < 256 * MARKED_SHARE


def _has_one_more(codec: EmphasisCodec, text: str, marked: str) -> bool:
    """Returns whether the marked text differs from the other in the vowels of one word alone."""
    before, after = codec.encode_turn(text, 0), codec.encode_turn(marked, 0)
    if len(before) != len(after):
        return False
    changed = [place for place, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    if not changed:
        return False
    return all(codec.is_phone(number) for number in after[changed[0] : changed[-1] + 1])


def prominence(spans: Sequence[tuple[float, float, int]], prosody: Float[Tensor, "T 3"]) -> list[float]:
    """Returns by how many deviations each word is higher, louder and slower than the others of its turn.

    Pitch is compared with its fall over the turn. The last word counts as no slower: speech slows down there.

    Args:
        spans: Of each word its first frame, its last and its number of phones.
        prosody: Log-F0, voicing and log energy of each frame.
    """
    rows = []
    for first, last, phones in spans:
        inside = prosody[int(first) : max(int(first) + 1, round(last))]
        if not len(inside):
            inside = prosody[-1:]
        voiced = inside[inside[:, 1] > 0.5, 0]
        pitch = voiced.max() if len(voiced) else torch.tensor(float("nan"))
        rows.append(torch.stack([pitch, inside[:, 2].max(), torch.tensor((last - first) / phones)]))
    values = torch.stack(rows).double()
    values[:, 2] = values[:, 2].clamp_min(1e-2).log()
    values[-1, 2] = values[:, 2].mean().minimum(values[-1, 2])
    values[:, 0] = _without_line(values[:, 0])
    spread = values.std(dim=0).clamp_min(1e-6)
    return ((values - values.mean(dim=0)) / spread).sum(dim=1).tolist()


def _without_line(pitch: Float[Tensor, " W"]) -> Float[Tensor, " W"]:
    """Returns pitches less the straight line through them; words without a pitch lie on it."""
    known = ~pitch.isnan()
    if known.sum() < 3:
        return torch.zeros_like(pitch)
    places = torch.arange(len(pitch), dtype=pitch.dtype)
    x, y = places[known], pitch[known]
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return torch.where(known, pitch - y.mean() - slope * (places - x.mean()), 0.0)


def _spans(codec: EmphasisCodec, text: str, ends: Float[Tensor, " L"]) -> list[tuple[float, float, int]]:
    """Returns the first frame, the last and the number of phones of each word, in the order of the text."""
    ids = codec.encode_turn(text, 0)[1:]
    if len(ids) != len(ends):
        return []
    times, spans, open_word = ends.tolist(), list[tuple[float, float, int]](), False
    for place, number in enumerate(ids):
        is_phone = codec.is_phone(number)
        if is_phone and open_word:
            first, _, count = spans[-1]
            spans[-1] = (first, times[place], count + 1)
        elif is_phone:
            spans.append((times[place - 1], times[place], 1))
        open_word = is_phone
    return spans
