"""The packaged excerpt as a corpus folder, made once for all tests of this folder."""

import pytest

from csm.data.corpora.amazon_queen import prepare_excerpt
from csm.data.manifest import Corpus


@pytest.fixture(scope="session")
def excerpt(tmp_path_factory) -> Corpus:
    return prepare_excerpt(tmp_path_factory.mktemp("corpora") / "amazon_queen_excerpt")
