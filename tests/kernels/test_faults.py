"""The planted faults of faults.py still stand on the code as it is; running them takes minutes."""

import subprocess
import sys
from pathlib import Path

FAULTS = Path(__file__).with_name("faults.py")


def test_every_faults_text_stands_once_in_its_file_and_there_are_enough():
    program = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("faults", {str(FAULTS)!r})
faults = sys.modules["faults"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(faults)
texts = {{f.path: (faults.ROOT / faults.KERNELS / f.path).read_text() for f in faults.FAULTS}}
wrong = [f.name for f in faults.FAULTS if texts[f.path].count(f.old) != 1 or f.old == f.new]
print(len(faults.FAULTS), wrong)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    count, wrong = done.stdout.split(maxsplit=1)
    assert int(count) >= 20 and wrong.strip() == "[]"
