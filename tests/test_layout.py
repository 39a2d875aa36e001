"""The rules of the repository: where each file stands, and which part imports which."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("csm", "kernels", "launch", "benchmarks", "tests")
FILES = sorted(path for part in PARTS for path in (ROOT / part).rglob("*.py"))

# A part of csm imports its own tier and the ones below it.
TIERS = (
    ("system",),
    ("text_tables",),
    ("text_numbers",),
    ("text_normalisation",),
    ("pronunciation", "spelling", "config", "int8_tables"),
    ("text", "word_search"),
    ("audio",),
    ("sequences",),
    ("tokenizer",),
    ("network",),
    ("losses",),
    ("data",),
    ("report",),
    ("generation",),
    ("model",),
    ("conversation",),
    ("serving",),
    ("training",),
    ("evaluation",),
    ("recipes",),
    ("research",),
    ("cli",),
    ("__main__",),
)
TIER = {name: height for height, names in enumerate(TIERS) for name in names}
HOMES = {  # who alone imports a heavy or optional package
    "triton": ("triton_kernel.py", "kernels/csm_kernels/aot.py"),
    "deepspeed": ("csm/training/engine.py",),
    "transformers": ("csm/tokenizer/mimi.py", "csm/training/teacher.py"),
    "flash_attn": ("csm/network/varlen.py",),
    "liger_kernel": ("csm/network/cross_entropy.py",),
    "gruut": ("csm/pronunciation.py",),
    "gruut_lang_en": ("csm/pronunciation.py",),
}
# launch/ is first on sys.path under the launcher: a file there hides an installed module of its name.
DEPENDENCIES = {
    *(
        "torch",
        "torchaudio",
        "triton",
        "deepspeed",
        "numpy",
        "soundfile",
        "safetensors",
        "tqdm",
        "matplotlib",
    ),
    *(
        "tensorboard",
        "evaluate",
        "datasets",
        "transformers",
        "tokenizers",
        "librosa",
        "pesq",
        "pystoi",
        "jiwer",
    ),
    *("pytest", "kernels", "csm", "csm_kernels", "accelerate", "scipy", "encodec", "moshi", "faiss"),
}


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[str]:
    """Yields every module that a file imports, whole dotted name, at its top or inside a function."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{named(path)}:{node.lineno}: write the whole name, no relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package(module: str) -> str:
    return module.split(".")[0]


def within(part: str) -> list[Path]:
    return [path for path in FILES if named(path).startswith(part)]


def test_the_parts_import_downwards_only():
    forbidden = {
        "kernels/": {"csm", "launch", "tests", "benchmarks"},
        "csm/": {"launch", "tests", "benchmarks"},
        "launch/": {"csm_kernels", "tests", "benchmarks"},
    }
    wrong = [
        f"{named(path)} imports {module}"
        for part, banned in forbidden.items()
        for path in within(part)
        for module in imports(path)
        if package(module) in banned
    ]
    assert not wrong, "\n".join(wrong)


def test_inside_csm_a_part_imports_its_tier_and_below():
    wrong = []
    for path in within("csm/"):
        here = path.relative_to(ROOT / "csm").with_suffix("").parts[0]
        if here == "__init__":
            continue
        assert here in TIER, f"{named(path)}: say in tests/test_layout.py which tier csm.{here} belongs to"
        for module in imports(path):
            parts = module.split(".")
            there = parts[1] if parts[0] == "csm" and len(parts) > 1 else None
            if there in TIER and TIER[there] > TIER[here]:
                wrong.append(f"{named(path)} imports {module}")
    assert not wrong, "\n".join(wrong)


CORPORA = "csm/data/corpora"


def corpus(module: str) -> str:
    """Returns the file or folder in csm.data.corpora of a dotted name; empty for other parts."""
    _, here, rest = module.partition(CORPORA.replace("/", ".") + ".")
    return rest.split(".")[0] if here else ""


def test_no_corpus_imports_another():
    builders = {
        corpus(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for path in within(CORPORA)
        for node in tree(path).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("prepare_")
    }
    assert {"amazon_queen", "synthetic_dialogues", "folder"} <= builders
    wrong = []
    for path in within(CORPORA):
        here = path.relative_to(ROOT / CORPORA).with_suffix("").parts[0]
        others = {corpus(module) for module in imports(path)} & builders - {here}
        wrong += [f"{named(path)} imports {other}" for other in others]
    assert not wrong, "move what two corpora need to a module of its own: " + ", ".join(wrong)


def test_the_package_itself_loads_no_part_of_its_own_and_no_torch():
    program = f"""
import sys

sys.path[:0] = {[str(ROOT), str(ROOT / "kernels")]!r}
import csm

assert {{"Talker", "CSMModel"}} <= {{*dir(csm)}} and csm.__version__
loaded = [name for name in sys.modules if name.startswith("csm.") or name in ("torch", "numpy")]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_csm_calls_kernels_by_their_public_names():
    wrong = [
        f"{named(path)} imports {module}"
        for path in within("csm/")
        for module in imports(path)
        if package(module) == "csm_kernels" and module.count(".") > 1
    ]
    assert not wrong, "\n".join(wrong)


def test_the_implementations_of_an_operation_do_not_import_each_other():
    kinds = {"reference", "blocked", "triton_kernel", "cpu"}
    wrong = []
    for path in within("kernels/csm_kernels/"):
        if path.stem in kinds:
            others = kinds - {path.stem} | {"api"}
            wrong += [
                f"{named(path)}: {module}" for module in imports(path) if others & set(module.split("."))
            ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("heavy", sorted(HOMES))
def test_an_optional_package_is_imported_at_its_home_only(heavy):
    homes = HOMES[heavy]
    wrong = [
        named(path)
        for path in (*within("csm/"), *within("kernels/"), *within("launch/"))
        if any(package(module) == heavy for module in imports(path))
        and not {named(path), path.name} & set(homes)
    ]
    assert not wrong, f"{heavy} is imported by {wrong}; only {homes} may"


def test_nothing_imports_tests_or_benchmarks():
    wrong = [
        f"{named(path)} imports {module}"
        for path in FILES
        for module in imports(path)
        if package(module) in ("tests", "benchmarks") and not named(path).startswith(package(module))
    ]
    assert not wrong, "\n".join(wrong)


def test_packages_have_an_init_file_and_plain_folders_do_not():
    assert not (ROOT / "kernels/__init__.py").exists(), "it would hide Hugging Face's package kernels"
    plain = [*ROOT.glob("tests/**/__init__.py"), *ROOT.glob("launch/**/__init__.py")]
    plain += ROOT.glob("benchmarks/**/__init__.py")
    assert not plain, f"plain folders: remove {[named(path) for path in plain]}"
    folders = {path.parent for path in (*within("csm/"), *within("kernels/csm_kernels/"))}
    missing = [named(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()]
    assert not missing, f"setup.py finds packages by __init__.py; missing in {missing}"


def test_no_file_is_named_utils_or_like_a_dependency():
    wrong = [named(path) for path in FILES if path.stem in ("utils", "helpers", "misc", "common")]
    shadows = set(sys.stdlib_module_names) | DEPENDENCIES
    wrong += [named(path) for path in within("launch/") if path.stem in shadows]
    assert not wrong, f"rename {wrong}: name the idea, and hide no module"


def test_launch_files_are_thin():
    long = {named(path): len(path.read_text(encoding="utf-8").splitlines()) for path in within("launch/")}
    assert not {name: lines for name, lines in long.items() if lines > 10}, (
        "at most 10 lines: the rest is csm.cli's"
    )


def test_what_goes_to_the_console_is_ascii():
    speaking = {"print", "say", "write", "error", "warn", "add_argument", "ArgumentParser", "info", "warning"}
    wrong = []
    for path in (*within("csm/"), *within("launch/"), *within("kernels/")):
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in speaking or name.endswith(("Error", "Warning", "Exit")):
                wrong += [
                    f"{named(path)}:{text.lineno}: {ascii(text.value)}"
                    for text in ast.walk(node)
                    if isinstance(text, ast.Constant)
                    and isinstance(text.value, str)
                    and not text.value.isascii()
                ]
    assert not wrong, "\n".join(wrong)


def test_csm_imports_without_triton_and_deepspeed():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in within("csm/")
        if path.name != "mimi.py"
    ]
    program = f"""
import importlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("triton", "deepspeed"):
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
sys.path[:0] = {[str(ROOT), str(ROOT / "kernels")]!r}
for name in {modules!r} + ["csm_kernels"]:
    importlib.import_module(name)
    assert not {{"triton", "deepspeed"}} & set(sys.modules), name
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
