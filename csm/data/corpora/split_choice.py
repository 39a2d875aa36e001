"""Which conversations are held out: a share of them by the hash of their ids, or a list."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from csm.data.manifest import TEST_SHARE, VALIDATION_SHARE, hash_fraction, split_of

HeldOut: TypeAlias = "float | frozenset[str]"


@dataclass(frozen=True, kw_only=True)
class SplitChoice:
    """What of a corpus is held out.

    Attributes:
        validation, test: A share of the conversations from 0 to 1, or their ids; both None: what the source
            states, else `split_of`. Of one that is None, the usual share.

    Raises:
        ValueError: Shares that leave nothing to train on, or a conversation in both.
    """

    validation: HeldOut | None = None
    test: HeldOut | None = None

    def __post_init__(self) -> None:
        shares = [_share(self.test, TEST_SHARE), _share(self.validation, VALIDATION_SHARE)]
        if sum(shares) >= 1:
            raise ValueError(f"--test and --validation are {shares}: expected shares below 1 in total")
        if both := _ids(self.test) & _ids(self.validation):
            names = ", ".join(sorted(both)[:3])
            raise ValueError(f"--test and --validation both list {names}: list it once")

    def identity(self) -> dict[str, Any]:
        """Returns the fields that identify a corpus made with this choice; none where nothing was chosen."""
        given = {"validation": self.validation, "test": self.test}
        return {n: sorted(v) if isinstance(v, frozenset) else v for n, v in given.items() if v is not None}

    def of(self, conversation: str, stated: str | None) -> str:
        """Returns the split of a conversation.

        Args:
            conversation: Its id.
            stated: The split that the source states.
        """
        if self.validation is None and self.test is None:
            return stated or split_of(conversation)
        if conversation in _ids(self.test) | _ids(self.validation):
            return "test" if conversation in _ids(self.test) else "validation"
        fraction, test = hash_fraction(conversation), _share(self.test, TEST_SHARE)
        if fraction < test:
            return "test"
        return "validation" if fraction < test + _share(self.validation, VALIDATION_SHARE) else "train"

    def require_known(self, conversations: Iterable[str]) -> None:
        """Checks that the lists name conversations of the corpus.

        Raises:
            ValueError: One that it lacks.
        """
        known = set(conversations)
        for name, given in (("validation", self.validation), ("test", self.test)):
            if unknown := sorted(_ids(given) - known):
                raise ValueError(
                    f"--{name} lists {', '.join(unknown[:3])}: expected ids of conversations, such as "
                    f"{', '.join(sorted(known)[:3])}"
                )


def held_out(name: str, given: str | None) -> HeldOut | None:
    """Returns what an option holds out: a share, or the ids in a file, one a line.

    Raises:
        ValueError: It is neither.
    """
    if given is None:
        return None
    try:
        share = float(given)
    except ValueError:
        path = Path(given)
        if not path.is_file():
            raise ValueError(
                f"--{name} is {given}: expected a share such as 0.1, or a file of conversation ids"
            ) from None
        lines = path.read_text(encoding="utf-8").splitlines()
        return frozenset(line.strip() for line in lines if line.strip())
    if not 0 <= share < 1:
        raise ValueError(f"--{name} is {given}: expected a share from 0 to below 1, or a file of ids")
    return share


def _share(given: HeldOut | None, usual: float) -> float:
    if given is None:
        return usual
    return 0.0 if isinstance(given, frozenset) else given


def _ids(given: HeldOut | None) -> frozenset[str]:
    return given if isinstance(given, frozenset) else frozenset()
