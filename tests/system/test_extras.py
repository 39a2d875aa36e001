"""Every hint names csm-speech and an extra that exists."""

import re
from pathlib import Path

from csm.system.extras import EXTRA_OF, install_command, missing_package

ROOT = Path(__file__).resolve().parents[2]


def test_a_hint_names_the_extra_or_the_package_that_is_built_from_source() -> None:
    assert missing_package("transformers", "Mimi") == (
        "Mimi needs the package transformers: pip install 'csm-speech[hf]'"
    )
    assert install_command("pesq") == "pip install pesq"
    assert install_command("Resemblyzer") == "pip install --no-deps Resemblyzer"


def test_no_page_or_message_writes_a_hint_of_its_own() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "csm").rglob("*.py")]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "'csm[" not in text, page
        assert set(re.findall(r"csm-speech\[(\w+)\]", text)) <= {*EXTRA_OF.values()}, page
