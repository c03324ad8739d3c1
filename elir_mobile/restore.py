"""Restore photographs of any size; the command is :mod:`elir_mobile.cli.restore`.

A photograph larger than the model's tile goes through in overlapping tiles that fade into one
another; the noise is drawn once for the whole picture, so neighbours start from the same latent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from elir_mobile.bundle import read_bundle
from elir_mobile.checkpoints import absolute_weights, load_weights
from elir_mobile.colors import keep_colors
from elir_mobile.core.errors import UserError
from elir_mobile.core.files import written
from elir_mobile.core.tiling import Window, axis_windows
from elir_mobile.images import SUFFIXES, Photo, hstack_images, list_images, read_photo, to_tensor
from elir_mobile.models.autoencoder import DOWNSCALE
from elir_mobile.models.restorer import seeded_noise
from elir_mobile.runtimes.eager import eager_runner
from elir_mobile.runtimes.runner import Runner, open_runner
from elir_mobile.tasks import Task

TILE = 512  # of the float model. Smaller ones agree less: group norms see the tile, not the picture
OVERLAP = 0.25  # of the tile's side; upstream's 512-pixel tiles overlap by 64
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Model:
    """What restores a tile.

    Attributes:
        runner: the three programs.
        steps, sigma_s: K and the spread of the noise.
        size: side of the pictures it was made for, pixels.
        tile: side of the square tiles, pixels.
        multiple: sides of a picture smaller than a tile are padded to a multiple of this;
            0: to the whole tile, since the programs take no other size.
        channels: of the latent, and so of the noise.
        domain: of the pictures it was trained on.
        fidelity: from the sample (0) to the coarse estimate (1), see
            :func:`elir_mobile.core.sampling.sample`.
        keeps_colors: whether the restored picture takes its low frequencies of colour from the input.
    """

    runner: Runner
    steps: int
    sigma_s: float
    size: int
    tile: int
    multiple: int
    channels: int
    domain: str
    fidelity: float = 0.0
    keeps_colors: bool = False


def load_float(
    task: Task,
    weights: str,
    steps: int | None,
    tile: int = TILE,
    threads: int | None = None,
    *,
    fidelity: float = 0.0,
    keeps_colors: bool = False,
) -> Model:
    """The float network of ``weights``, on ``threads`` of PyTorch (None: as many as it takes by itself).

    Further arguments are those of :class:`Model`.

    Raises:
        UserError: the weights, the number of steps or the tile cannot be used.
    """
    if threads:
        torch.set_num_threads(threads)
    restorer, info = load_weights(weights, task)
    arch = restorer.arch
    arch.check_side(tile, "--tile")
    return Model(
        eager_runner(restorer, steps or info.steps),
        steps or info.steps,
        info.sigma_s,
        info.size,
        tile,
        arch.size_multiple,
        arch.latent_channels,
        info.domain,
        fidelity,
        keeps_colors,
    )


def load_artifact(
    task: Task,
    folder: Path,
    target: str | None,
    precision: str | None,
    steps: int | None = None,
    threads: int | None = None,
    *,
    fidelity: float = 0.0,
    keeps_colors: bool = False,
) -> Model:
    """An exported file of the bundle in ``folder``, on ``threads`` (None: one for each core).

    Further arguments are those of :meth:`~elir_mobile.bundle.Bundle.entry` and :class:`Model`.

    Raises:
        UserError: the bundle is damaged, of another task, has no such file, or another K.
    """
    bundle = read_bundle(folder)
    facts = bundle.manifest
    if facts["task"] != task.name:
        raise UserError(f"{folder} is a bundle for task '{facts['task']}', not '{task.name}'")
    if steps not in (None, facts["steps"]):
        raise UserError(f"{folder} was exported with {facts['steps']} steps: leave --steps out")
    if "golden" not in facts:
        raise UserError(f"{folder} has no golden vectors: write the bundle again")
    file = bundle.entry(target, precision)
    runner = open_runner(file["target"], folder / file["path"], bundle.table, threads)
    size, channels = facts["size"], facts["golden"]["arrays"]["noise"]["shape"][1]
    steps, sigma_s, domain = facts["steps"], facts["sigma_s"], facts["domain"]
    return Model(runner, steps, sigma_s, size, size, 0, channels, domain, fidelity, keeps_colors)


def restore(image: Image.Image, model: Model, seed: int, advance: Callable[[int, int], None]) -> Image.Image:
    """Restore an RGB image of any size.

    Args:
        image: as large as the restored image will be.
        model: what restores a tile.
        seed: of the noise, which is drawn for the whole image.
        advance: told (tiles done, tiles in all) after each tile.
    """
    sides = [_padded(side, model) for side in (image.height, image.width)]
    below, right = sides[0] - image.height, sides[1] - image.width
    pixels = np.pad(np.asarray(image), ((0, below), (0, right), (0, 0)), mode="symmetric")
    noise = seeded_noise((1, model.channels, sides[0] // DOWNSCALE, sides[1] // DOWNSCALE), seed)
    rows, columns = (tile_windows(side, model.tile) for side in sides)
    out = np.empty(pixels.shape, np.uint8)
    # Sums of one row of tiles, so that memory in float32 grows with the width of the picture only.
    top, band = 0, np.zeros((rows[0].stop, *pixels.shape[1:]), np.float32)
    for above, row in enumerate(rows):
        done = row.start - top  # lines that no further tile reaches
        out[top : row.start] = _to_bytes(band[:done])
        band[: len(band) - done] = band[done:].copy()
        band[len(band) - done :] = 0
        top = row.start
        for left, column in enumerate(columns, 1):
            x = slice(column.start, column.stop)
            made, _ = model.runner.restore(
                to_tensor(Image.fromarray(pixels[row.start : row.stop, x]))[None],
                noise[..., _latent(row), _latent(column)].contiguous(),
                steps=model.steps,
                sigma_s=model.sigma_s,
                fidelity=model.fidelity,
            )
            weights = row.weights[:, None, None] * column.weights[None, :, None]
            band[:, x] += weights * made[0].permute(1, 2, 0).numpy()
            advance(above * len(columns) + left, len(rows) * len(columns))
    out[top:] = _to_bytes(band)
    restored = Image.fromarray(out[: image.height, : image.width])
    return keep_colors(restored, image) if model.keeps_colors else restored


def tile_windows(side: int, tile: int) -> list[Window]:
    """The tiles along a side of a picture, starting at whole latent pixels."""
    return axis_windows(side, tile, int(tile * OVERLAP) // DOWNSCALE * DOWNSCALE)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return (values * 255).round().clip(0, 255).astype(np.uint8)


def _padded(side: int, model: Model) -> int:
    if side <= model.tile and not model.multiple:
        return model.tile
    multiple = model.multiple if side <= model.tile else DOWNSCALE
    return -(-side // multiple) * multiple


def _latent(window: Window) -> slice:
    return slice(window.start // DOWNSCALE, window.stop // DOWNSCALE)


def save_photo(photo: Photo, restored: Image.Image, path: Path) -> None:
    """Write ``restored`` with the alpha, ICC profile and EXIF of ``photo``; JPEG drops the alpha.

    Raises:
        UserError: the place cannot be written.
    """
    if photo.alpha is not None and path.suffix.lower() not in (".jpg", ".jpeg", ".bmp"):
        alpha = photo.alpha
        if alpha.size != restored.size:
            alpha = alpha.resize(restored.size, Image.Resampling.BICUBIC)
        restored.putalpha(alpha)
    options: dict = {"exif": photo.exif} if photo.exif else {}
    if photo.icc_profile:
        options["icc_profile"] = photo.icc_profile
    if path.suffix.lower() in (".jpg", ".jpeg", ".webp"):
        options["quality"] = JPEG_QUALITY
    with written(path) as staged:
        restored.save(staged, **options)


def plan(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """Which file becomes which: one file, or every image of a folder under its own name.

    Raises:
        UserError: nothing at ``source``, ``target`` is no image name for a single file, or would
            replace the original.
    """
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError(f"{target} is what is to be restored: name another place, so that it is kept")
    if source.is_dir():
        return [(path, target / path.name) for path in list_images(source)]
    if not source.exists():
        raise UserError(f"no image or folder at {source}: check the path")
    if target.is_dir():
        return plan(source, target / source.name)
    if target.suffix.lower() not in SUFFIXES:
        raise UserError(f"{target} is no image name: end it in one of {', '.join(sorted(SUFFIXES))}")
    return [(source, target)]


Advance = Callable[[str, int, int], None]  # told (file name, tiles done, tiles in all)


def enlarged(image: Image.Image, task: Task) -> Image.Image:
    """A user's image at the size that its restoration will have."""
    if task.upscale == 1:
        return image
    return image.resize((image.width * task.upscale, image.height * task.upscale), task.enlarge)


def model_loader(
    task: Task,
    *,
    weights: str = "demo",
    steps: int | None = None,
    tile: int | None = None,
    bundle: Path | None = None,
    target: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    fidelity: float = 0.0,
    no_keep_colors: bool = False,
) -> Callable[[], Model]:
    """What loads the model named on the command line, here or in another process."""
    if bundle:
        load = partial(load_artifact, task, bundle.resolve(), target, precision, steps, threads)
    else:
        load = partial(load_float, task, absolute_weights(weights), steps, tile or TILE, threads)
    return partial(load, fidelity=fidelity, keeps_colors=task.keeps_colors and not no_keep_colors)


def file_restorer(
    load: Callable[[], Model],
    task: Task,
    seed: int,
    compare: bool,
    advance: Advance = lambda name, done, total: None,
) -> Callable[[tuple[Path, Path]], str | None]:
    """A worker that restores one file into another, see :func:`elir_mobile.engine.run`.

    It returns what is wrong with a file that cannot be read: one must not hold up the others.
    """
    model = load()

    def restore_file(job: tuple[Path, Path]) -> str | None:
        path, out = job
        try:
            photo = read_photo(path)
        except UserError as error:
            return str(error)
        given = enlarged(photo.image, task)
        restored = restore(given, model, seed, partial(advance, path.name))
        if compare:
            with written(out.with_name(f"{out.stem}-compare.png")) as staged:
                hstack_images([given, restored]).save(staged)
        save_photo(photo, restored, out)
        return None

    return restore_file


if __name__ == "__main__":
    from elir_mobile.cli.options import alone
    from elir_mobile.cli.restore import main

    alone(main)()
