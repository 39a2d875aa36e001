"""What a run was trained on, by content: digests that do not depend on where a corpus lies."""

from __future__ import annotations

from pathlib import Path

from csm.data.manifest import MANIFEST_NAME, REJECTS_NAME
from csm.system.digests import folder_digests, sha256_of, sha256_of_json


def corpus_digests(folders: str | Path) -> dict[str, str]:
    """Returns the SHA-256 of a corpus' manifest, and one of all its audio where the corpus lists it.

    Equal for the same corpus in another folder; empty where there is none. Several corpora (`data/a,data/b`)
    have a number each, in their order.
    """
    names = str(folders).split(",")
    found: dict[str, str] = {}
    for place, name in enumerate(names):
        found |= _digests_of(Path(name), "corpus" if len(names) == 1 else f"corpus {place}")
    return found


def _digests_of(root: Path, label: str) -> dict[str, str]:
    if not (root / MANIFEST_NAME).is_file():
        return {}
    found = {f"{label}/{MANIFEST_NAME}": sha256_of(root / MANIFEST_NAME)}
    audio = sorted((n, d) for n, d in folder_digests(root).items() if n not in (MANIFEST_NAME, REJECTS_NAME))
    if audio:
        found[f"{label}/audio"] = sha256_of_json(iter(audio))
    return found
