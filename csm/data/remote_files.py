"""A folder that stands for one in a bucket: small files are copied at once, others where they are read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import fsspec

from csm.system.files import new_file, write_atomically

REMOTE_NAME = "remote.json"


def mirror(url: str, folder: Path, names: Iterable[str]) -> Path:
    """Makes a folder stand for one elsewhere; returns the folder.

    Args:
        url: Folder in any file system of fsspec, such as s3://bucket/codes or gs://bucket/codes.
        folder: The local one; it keeps what is copied.
        names: Files that are copied now; one that is not there is left out.

    Raises:
        ValueError: The folder stands for another one, or holds files of its own.
    """
    path = folder / REMOTE_NAME
    if path.is_file():
        if (known := _url(folder)) != url:
            raise ValueError(f"{folder} holds files of {known}: expected those of {url}; use another one")
    elif folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds files of its own: expected an empty folder for those of {url}")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({"url": url}) + "\n")
    for name in names:
        fetch(folder, name)
    return folder


def fetch(folder: Path, name: str) -> None:
    """Copies a file into a folder that stands for another one, where it is not there yet.

    Nothing happens in other folders, or where the other one has no such file.

    Raises:
        ValueError: The file system cannot be reached.
    """
    if (folder / name).is_file() or not (folder / REMOTE_NAME).is_file():
        return
    url = f"{_url(folder)}/{name}"
    try:
        system, place = fsspec.core.url_to_fs(url)
        if not system.isfile(place):
            return
        with new_file(folder / name) as path, system.open(place, "rb") as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, 2**22)
    except (OSError, ImportError, ValueError) as error:
        raise ValueError(f"{url} cannot be read ({error}): check the address and its access") from error


def _url(folder: Path) -> str:
    path = folder / REMOTE_NAME
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["url"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error!r}): delete its folder") from error
