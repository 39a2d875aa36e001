"""Optional packages that evaluate speech: their import, their versions, the machine they run on."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
from pathlib import Path
from types import ModuleType

from csm.system.extras import missing_package

PACKAGES = (
    "torch numpy faster-whisper jiwer whisper-normalizer Resemblyzer speechmos distillmos pesq pystoi "
    "silero-vad praat-parselmouth"
).split()


class EvaluatorUnavailable(ImportError):
    """An evaluator's package or weights are not installed; the message says how to install them."""


class NotMeasurable(ValueError):
    """The inputs do not allow a metric; the message says what they lack."""


def optional_import(module: str, *, package: str, metric: str) -> ModuleType:
    """Imports an evaluator's module.

    Raises:
        EvaluatorUnavailable: The package cannot be imported; the message names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EvaluatorUnavailable(
            f"{missing_package(package, metric)} ({type(error).__name__}: {error})"
        ) from error


def package_version(package: str) -> str:
    """Returns the installed version of a distribution."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown version"


def software() -> dict[str, str]:
    """Returns the versions of Python and of every package that evaluates."""
    return {"python": platform.python_version(), **{name: package_version(name) for name in PACKAGES}}


def hardware() -> str:
    """Returns processor and architecture of this machine."""
    name = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux, or a processor that has no name there
    return f"CPU {name or 'unknown'}, {platform.machine()}"
