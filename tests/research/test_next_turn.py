"""The probe finds what a voice says of the next turn where it was planted, and nothing where it was not."""

import torch

from csm.research.next_turn import END, Pair, next_turn_scores
from csm.research.question import Claim, Measured
from csm.research.verdict import decide
from csm.spelling import spell

WORDS = ("yes indeed", "not at all", "why would you", "go home now")


def pairs(count: int, seed: int, *, planted: bool) -> list[Pair]:
    """Turns of one text; where planted, code 0 of the first one names the words of the second."""
    g = torch.Generator().manual_seed(seed)
    found = []
    for number in range(count):
        word = int(torch.randint(4, (), generator=g))
        codes = torch.randint(8, (4, 5), generator=g)
        if planted:
            codes[0] = word
        after = torch.tensor([*spell(WORDS[word]), END])
        before = torch.tensor(spell("so"))
        found.append(Pair(f"{seed}/{number}", f"{seed}/{number // 2}", before, codes, after))
    return found


def measured(planted: bool, steps: int) -> list[Measured]:
    train, tested = pairs(120, 0, planted=planted), pairs(60, 1, planted=planted)
    given = {"vocab": 8, "steps": steps}
    return [
        Measured(
            arm, seed, next_turn_scores(train, tested, range(2), seed=seed, permuted=arm == "other", **given)
        )
        for seed in (0, 1)
        for arm in ("own", "other")
    ]


CLAIM = Claim("The own voice says more.", "next_turn_nats", "own", "other", 0.005)


def test_a_planted_relation_is_supported() -> None:
    (verdict,) = decide([CLAIM], measured(True, 40))
    assert verdict.decision == "supported" and verdict.difference > 0.03


def test_without_a_relation_nothing_is_supported() -> None:
    (verdict,) = decide([CLAIM], measured(False, 8))
    assert verdict.decision != "supported" and abs(verdict.difference) < 0.05


def test_the_text_alone_has_no_voice_and_a_seed_repeats(tmp_path) -> None:
    train = pairs(20, 0, planted=True)
    a, b = (next_turn_scores(train, train[:4], None, vocab=8, steps=2, seed=3) for _ in range(2))
    assert a == b and [score.weight for score in a.scores] == [len(pair.after) for pair in train[:4]]
