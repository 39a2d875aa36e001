"""smart-turn v3.2: a network that tells the end of a turn from a pause, read out of a pinned wheel.

The wheel of pipecat-ai carries the weights (Daily, BSD-2-Clause, 8.7 MB, quantized to 8 bits); nothing of the
package is installed or run. Its licence is kept beside them.
"""

from __future__ import annotations

from pathlib import Path

from csm.data.packages import Package, default_cache, fetch, wheel_member
from csm.system.files import file_sha256, new_folder

PIPECAT = Package(
    name="pipecat-ai",
    version="1.14.0",
    file="pipecat_ai-1.14.0-py3-none-any.whl",
    sha256="0352f504b44e78bdf524e45af4bc759601c835b9b7dc195efe5e03384b974a44",
)
SMART_TURN_SHA256 = "2bb026316b14a660486a75b1733cd3fbab8c2fd0314dc9af7be49f8cca967e4f"
MODEL, LICENCE = "smart-turn-v3.2-cpu.onnx", "LICENSE"
MEMBERS = {
    MODEL: f"pipecat/audio/turn/smart_turn/data/{MODEL}",
    LICENCE: "pipecat_ai-1.14.0.dist-info/licenses/LICENSE",
}


def smart_turn_model(cache: Path | None = None) -> Path:
    """Returns the ONNX file in the cache folder, fetched there (a wheel of 12 MB) the first time.

    Args:
        cache: Cache folder. None: the user's.

    Raises:
        ValueError: The wheel cannot be fetched, or a file has another SHA-256.
    """
    cache = cache or default_cache()
    folder = cache / "smart-turn"
    if not folder.is_dir():
        wheel = fetch(PIPECAT, cache)
        with new_folder(folder) as temporary:
            for name, member in MEMBERS.items():
                (temporary / name).write_bytes(wheel_member(wheel, member))
    digest = file_sha256(folder / MODEL) if (folder / MODEL).is_file() else "none"
    if digest != SMART_TURN_SHA256:
        raise ValueError(
            f"{folder / MODEL}: SHA-256 is {digest}, expected {SMART_TURN_SHA256}; delete the folder to read "
            "it out of the wheel again"
        )
    return folder / MODEL
