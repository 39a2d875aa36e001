"""Damaged files of every kind end in one line (`python tests/fuzz.py --mutations 2000` does more of it)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("csm_fuzz", Path(__file__).with_name("fuzz.py"))
assert _spec is not None and _spec.loader is not None
fuzz = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fuzz)


@pytest.mark.parametrize("kind", sorted(fuzz.KINDS))
def test_no_mutation_of_a_file_is_a_traceback_or_a_wrong_success(kind: str) -> None:
    assert fuzz.fuzz(kind, 40, seed=1) == []
