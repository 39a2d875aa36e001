"""Every hint names csm-speech and an extra that exists."""

import re
from pathlib import Path

import pytest
from setuptools.dist import Distribution

from csm.system.extras import DISTRIBUTION, EXTRA_OF, FROM_SOURCE, install_command, missing_package

ROOT = Path(__file__).resolve().parents[2]


def test_a_hint_names_the_extra_or_the_package_that_is_built_from_source() -> None:
    assert missing_package("transformers", "Mimi") == (
        "Mimi needs the package transformers: pip install 'csm-speech[hf]'"
    )
    assert install_command("pesq") == "pip install pesq"
    assert install_command("Resemblyzer") == "pip install --no-deps Resemblyzer"


@pytest.fixture
def setup(monkeypatch) -> Distribution:
    """What setup.py declares."""
    from distutils.core import run_setup  # setuptools' own, on Python 3.12 and later too

    monkeypatch.chdir(ROOT)
    return run_setup("setup.py", stop_after="init")


def test_the_extra_of_every_hint_installs_the_package(setup) -> None:
    assert setup.get_name() == DISTRIBUTION
    assert setup.entry_points["console_scripts"] == ["csm = csm.cli:main"]
    for package, extra in EXTRA_OF.items():
        names = {re.split(r"[<>=;]", line)[0].strip() for line in setup.extras_require[extra]}
        assert package in names, f"{package} is not in the extra {extra}"
    everything = {re.split(r"[<>=;]", line)[0] for lines in setup.extras_require.values() for line in lines}
    assert not {*FROM_SOURCE} & everything


def test_no_page_or_message_writes_a_hint_of_its_own() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "csm").rglob("*.py")]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "'csm[" not in text, page
        assert set(re.findall(r"csm-speech\[(\w+)\]", text)) <= {*EXTRA_OF.values()}, page
