"""The photographs that the demo is trained and judged on: fetched into a cache, never committed.

They lie in packages of Debian 12 (wallpapers, a jigsaw, a photo album's demo, a teaching program) under
free licences, listed in THIRD_PARTY.md. ``apt-get download`` gets the packages; nothing of them is
installed or run. Each picture is reduced to a longest side of ``SIDE`` and kept as uint8 ``.npy``, so
that training starts at once and crops read only the pages they need.

Whole photographs are held out: the names in ``heldout_photos.txt`` are never trained on.
"""

from __future__ import annotations

import fnmatch
import io
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from elir_mobile.core.errors import UserError
from elir_mobile.core.files import written
from elir_mobile.data.faces import cache_dir

SIDE = 1200  # longest side that is kept, pixels
KINDS = ("JPEG", "PNG", "WEBP")  # of its pictures; no other decoder is let loose on a package
MIN_SIDE = 320  # shortest side of a picture that is worth keeping
HELDOUT_LIST = Path(__file__).with_name("heldout_photos.txt")
# Where the pictures lie in each package. A ``.rcc`` is a Qt resource file, with whole JPEG and WebP files
# inside. Drawn wallpapers are left out by name as far as a pattern can.
PACKAGES: dict[str, tuple[str, ...]] = {
    "lomiri-wallpapers-16.04": ("*.jpg",),
    "lomiri-wallpapers-20.04": ("*.jpg",),
    "plasma-workspace-wallpapers": ("*/images/2560x1600.jpg",),
    "mate-backgrounds": ("*/nature/*.jpg", "*/abstract/Elephants.jpg"),
    "lxqt-themes": ("*/wallpapers/[aBbdfV]*",),
    "palapeli-data": ("*/collection/*.jpg",),
    "kphotoalbum": ("*/demo/*.jpg",),
    "gcompris-qt-data": (
        "*/details.rcc",
        "*/explore_*.rcc",
    ),
}


def fetch_photos() -> Path:
    """Folder of the prepared pictures, ``PACKAGE--NAME.npy`` (height, width, 3) uint8, made on first use.

    Raises:
        UserError: apt could not download a package.
    """
    target = cache_dir() / "photos"
    if target.is_dir():
        return target
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise UserError("the photographs come from Debian packages: run this on Debian, or in its container")
    with tempfile.TemporaryDirectory() as tmp, written(target, synced=False) as out:
        out.mkdir()
        for package, patterns in PACKAGES.items():
            archive = _download(package, Path(tmp))
            for name, image in _pictures(archive, patterns):
                np.save(out / f"{package}--{name}.npy", np.array(reduced(image, SIDE)))
            archive.unlink()
    return target


def photo_split() -> tuple[list[Path], list[Path]]:
    """The training photographs and the held-out ones."""
    heldout = HELDOUT_LIST.read_text().split()
    everything = {path.stem: path for path in sorted(fetch_photos().glob("*.npy"))}
    return [path for name, path in everything.items() if name not in heldout], [
        everything[name] for name in heldout
    ]


def reduced(image: Image.Image, side: int) -> Image.Image:
    """``image`` with its longest side at most ``side``."""
    scale = side / max(image.size)
    if scale >= 1:
        return image
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)


def _download(package: str, folder: Path) -> Path:
    command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", package]
    if subprocess.run(command, cwd=folder, check=False, stdout=subprocess.DEVNULL).returncode != 0:
        raise UserError(f"apt-get could not download {package}: run apt-get update and try again")
    return next(folder.glob(f"{package}_*.deb"))


def _pictures(archive: Path, patterns: tuple[str, ...]) -> Iterator[tuple[str, Image.Image]]:
    """Name and picture of every file in the package that a pattern fits and that is large enough."""
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as tar,
    ):
        for member in tar:
            if not member.isfile() or not any(fnmatch.fnmatch(member.name, p) for p in patterns):
                continue
            content = tar.extractfile(member)
            assert content is not None
            data = content.read()
            path = Path(member.name)
            if path.suffix == ".rcc":
                named = [(f"{path.stem}-{start}", data[start:]) for start in _picture_starts(data)]
            else:
                # Several are called after their size: the folder says what they show.
                folder = path.parts[-4] + "-" if path.parent.name == "images" else ""
                named = [(folder + path.stem, data)]
            for name, part in named:
                try:
                    image = Image.open(io.BytesIO(part), formats=KINDS).convert("RGB")
                except OSError:
                    continue
                if min(image.size) >= MIN_SIDE:
                    yield re.sub(r"\W+", "_", name), image


def _picture_starts(data: bytes) -> list[int]:
    """Where JPEG and WebP files begin in ``data``."""
    return [match.start() for match in re.finditer(rb"\xff\xd8\xff|RIFF....WEBP", data, re.DOTALL)]
