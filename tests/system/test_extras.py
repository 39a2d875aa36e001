"""Every hint names csm-speech and an extra that exists."""

import re
import sys
from pathlib import Path

from csm.system.extras import DISTRIBUTION, EXTRA_OF, FROM_SOURCE, install_command, missing_package

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).resolve().parents[2]


def test_a_hint_names_the_extra_or_the_package_that_is_built_from_source() -> None:
    assert missing_package("transformers", "Mimi") == (
        "Mimi needs the package transformers: pip install 'csm-speech[hf]'"
    )
    assert install_command("pesq") == "pip install pesq"
    assert install_command("Resemblyzer") == "pip install --no-deps Resemblyzer"


def test_the_extra_of_every_hint_installs_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == DISTRIBUTION
    extras = {
        extra: {re.split(r"[<>=;]", line)[0].strip() for line in lines}
        for extra, lines in project["optional-dependencies"].items()
    }
    for package, extra in EXTRA_OF.items():
        assert package in extras[extra], f"{package} is not in the extra {extra}"
    assert not {*FROM_SOURCE} & set().union(*extras.values())


def test_no_page_or_message_writes_a_hint_of_its_own() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "csm").rglob("*.py")]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "'csm[" not in text, page
        assert set(re.findall(r"csm-speech\[(\w+)\]", text)) <= {*EXTRA_OF.values()}, page
