"""What pip installs: metadata, files, the wheel's tag, and a command that speaks without any extra."""

import importlib.util
import re
import shutil
import subprocess
import sys
from email.parser import Parser
from pathlib import Path
from types import ModuleType

import pytest
import soundfile
from setuptools.dist import Distribution

from csm import __version__
from csm.system.extras import DISTRIBUTION, EXTRA_OF

ROOT = Path(__file__).resolve().parents[1]
OPTIONAL = ("torchaudio", "deepspeed", "tensorboard", "matplotlib", "transformers", "tokenizers", "triton")


@pytest.fixture(scope="module")
def setup() -> ModuleType:
    """The module setup.py, which builds nothing when it is imported."""
    spec = importlib.util.spec_from_file_location("setup_of_csm", ROOT / "setup.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_wheel_needs_the_newest_glibc_that_its_library_asks_for(setup: ModuleType) -> None:
    machine = setup.platform.machine()
    assert setup.platform_tag(b"\0GLIBC_2.2.5\0GLIBC_2.27\0GLIBC_2.14\0") == f"manylinux_2_27_{machine}"
    assert setup.platform_tag(b"\0GLIBC_2.2.5\0GLIBCXX_3.4.29\0") == f"manylinux_2_17_{machine}"
    assert setup.platform_tag(b"") == f"linux_{machine}"


def test_the_compiled_library_has_no_python_version_in_its_name(setup: ModuleType) -> None:
    command = setup.BuildNative(Distribution())
    assert command.get_ext_filename("csm_kernels._native") == "csm_kernels/_native.so"


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked; built from a copy of the tree, which gains no build files."""
    folder = tmp_path_factory.mktemp("sdist")
    for name in sources():
        target = folder / "tree" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    program = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder / "tree", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (archive,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(archive, folder)
    return folder / archive.name.removesuffix(".tar.gz")


def sources() -> list[str]:
    """Returns the files of the repository; outside a clone, as in an unpacked sdist, those that build it."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True)
    if listed.returncode == 0:
        return [name for name in listed.stdout.decode().split("\n") if name and (ROOT / name).is_file()]
    ours = [
        path for part in ("csm", "kernels", "tests", "launch", "docs") for path in (ROOT / part).rglob("*")
    ]
    ours += [path for path in ROOT.iterdir() if path.is_file()]
    return [
        str(path.relative_to(ROOT)) for path in ours if path.is_file() and path.suffix not in (".so", ".pyc")
    ]


def test_the_source_distribution_holds_what_builds_and_tests_it(sdist: Path) -> None:
    missing = [name for name in sources() if not (sdist / name).is_file()]
    assert not missing, f"MANIFEST.in leaves out {missing}"
    assert not [*sdist.rglob("*.so"), *sdist.rglob("*.pyc")]


def test_the_metadata_names_licence_version_command_and_extras(sdist: Path) -> None:
    metadata = Parser().parsestr((sdist / "PKG-INFO").read_text(encoding="utf-8"))
    assert metadata["Name"] == DISTRIBUTION and metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    for name in metadata.get_all("License-File", []):
        assert (ROOT / name).is_file()
    assert {"LICENSE", "csm/weights/NOTICE.md"} <= {*metadata.get_all("License-File", [])}
    assert {*EXTRA_OF.values(), "dev", "bench"} == {*metadata.get_all("Provides-Extra", [])}
    commands = (sdist / "csm_speech.egg-info/entry_points.txt").read_text(encoding="utf-8")
    assert "csm = csm.cli:main" in commands


def test_no_optional_package_is_required(sdist: Path) -> None:
    metadata = Parser().parsestr((sdist / "PKG-INFO").read_text(encoding="utf-8"))
    lines = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    required = {re.split(r"[^\w.-]", line)[0] for line in lines}
    assert {"torch", "gruut"} <= required and not required & {*EXTRA_OF}


def test_a_wheel_carries_every_file_that_is_no_python_code(sdist: Path) -> None:
    program = """
from distutils.core import run_setup
command = run_setup("setup.py", stop_after="config").get_command_obj("build_py")
command.ensure_finalized()
for package, folder, _, names in command.data_files:
    print(*(f"{folder}/{name}" for name in names), sep="\\n")
"""
    run = [sys.executable, "-c", "import setuptools" + program]
    done = subprocess.run(run, cwd=sdist, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    carried = {*done.stdout.split()}
    packaged = [name for name in sources() if name.startswith(("csm/", "kernels/csm_kernels/"))]
    missing = [name for name in packaged if not name.endswith(".py") and name not in carried]
    assert not missing, f"pyproject.toml's package-data leaves out {missing}"


def test_the_changelog_begins_with_this_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert [name for name in headings if name != "Unreleased"][0] == __version__


def test_speaking_needs_no_optional_package(tmp_path: Path) -> None:
    program = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
sys.path[:0] = {[str(ROOT), str(ROOT / "kernels")]!r}
from csm.cli import main
sys.exit(main(["speak", "Hi.", "--quiet", "--output", "x.wav"]))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert soundfile.info(tmp_path / "x.wav").duration > 0.2
