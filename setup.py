"""What pyproject.toml cannot say: how the CPU kernels are compiled, and the tag of a wheel with them."""

import platform
import re
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

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
OLDEST_GLIBC = 17  # manylinux_2_17, the oldest that pip of every supported Python accepts


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

    def get_ext_filename(self, fullname: str) -> str:
        """Returns a name without a Python version: the library is plain C and no Python module."""
        return f"{Path(*fullname.split('.'))}.so"

    def copy_extensions_to_source(self) -> None:
        """Copies the library into the source tree, and removes those named after a Python version there."""
        super().copy_extensions_to_source()
        for stale in Path(NATIVE).glob("_native.*.so"):  # Python's import system would prefer it
            stale.unlink()


class AnyPythonWheel(bdist_wheel):
    """A wheel for every Python 3 on this platform."""

    def get_tag(self) -> tuple[str, str, str]:
        libraries = [*Path(self.bdist_dir).rglob("_native.so")]
        return "py3", "none", platform_tag(libraries[0].read_bytes() if libraries else b"")


def platform_tag(library: bytes) -> str:
    """Returns the platform tag of a wheel with this ELF file: manylinux where glibc versions are found."""
    versions = [int(minor) for minor in re.findall(rb"\0GLIBC_2\.(\d+)", library)]
    system = f"manylinux_2_{max(OLDEST_GLIBC, *versions)}" if versions else platform.system().lower()
    return f"{system}_{platform.machine()}"


if __name__ == "__main__":
    setup(
        # optional: without a compiler the installation succeeds, and torch code takes the kernels' place.
        ext_modules=[
            Extension(
                "csm_kernels._native", sorted(str(p) for p in Path(NATIVE).glob("*/cpu.cpp")), optional=True
            )
        ],
        cmdclass={"build_ext": BuildNative, "bdist_wheel": AnyPythonWheel},
    )
