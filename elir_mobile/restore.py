"""Restore photographs of any size; the command is :mod:`elir_mobile.cli.restore`.

A photograph larger than the model's tile goes through in overlapping tiles that fade into one
another; the noise is drawn once for the whole picture, so neighbours start from the same latent.
"""

from __future__ import annotations

if __name__ == "__main__":  # before what takes long to import, so that Ctrl-C is no traceback
    from elir_mobile.cli.options import alone
    from elir_mobile.cli.restore import main

    alone(main)()

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from elir_mobile.bundle import read_bundle
from elir_mobile.checkpoints import absolute_weights, load_weights
from elir_mobile.colors import is_grey, keep_colors
from elir_mobile.core.errors import NO_MEMORY, UserError, wants_memory
from elir_mobile.core.files import named
from elir_mobile.core.manifest import sha256_of
from elir_mobile.core.tiling import Sample, Window, axis_windows, level_offsets
from elir_mobile.devices.process import ArtifactError, open_programs
from elir_mobile.images import (
    AS_STORED,
    FRAMED,
    WRITTEN_SUFFIXES,
    Photo,
    Reading,
    hstack_images,
    list_images,
    read_photo,
    save_options,
    to_tensor,
    with_alpha,
)
from elir_mobile.models.autoencoder import DOWNSCALE
from elir_mobile.models.restorer import seeded_noise
from elir_mobile.records import COMPARED, COMPARISON, comparison, recorded, state
from elir_mobile.runtimes.eager import eager_runner
from elir_mobile.runtimes.runner import Runner, make_runner
from elir_mobile.runtimes.table import can_run, not_executed
from elir_mobile.tasks import Task

TILE = 512  # of the float model. Smaller ones agree less: group norms see the tile, not the picture
OVERLAP = 0.25  # of the tile's side; upstream's 512-pixel tiles overlap by 64


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
        keeps_grey: whether a grey picture stays grey.
        identity: SHA-256 of the weights or of the exported file.
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
    keeps_grey: bool = False
    identity: str = ""


def load_float(
    task: Task,
    weights: str,
    steps: int | None,
    tile: int = TILE,
    threads: int | None = None,
    *,
    sigma_s: float | None = None,
    fidelity: float = 0.0,
    keeps_colors: bool = False,
    keeps_grey: bool = False,
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
        info.sigma_s if sigma_s is None else sigma_s,
        info.size,
        tile,
        arch.size_multiple,
        arch.latent_channels,
        info.domain,
        fidelity,
        keeps_colors,
        keeps_grey,
        info.sha256,
    )


def load_artifact(
    task: Task,
    folder: Path,
    target: str | None,
    precision: str | None,
    steps: int | None = None,
    threads: int | None = None,
    *,
    sigma_s: float | None = None,
    fidelity: float = 0.0,
    keeps_colors: bool = False,
    keeps_grey: bool = False,
) -> Model:
    """An exported file of the bundle in ``folder``, on ``threads`` (None: one for each core).

    Further arguments are those of :meth:`~elir_mobile.bundle.Bundle.entry` and :class:`Model`.

    Raises:
        UserError: the bundle is damaged, of another task, has no such file that runs here, or another K.
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
    if not can_run("host", file):
        raise UserError(f"{file['path']} is {not_executed(file)}: choose another --target")
    size, latent = facts["size"], tuple(facts["golden"]["arrays"]["noise"]["shape"])
    shapes = {"encode": latent, "step": latent, "decode": (1, 3, size, size)}
    programs = open_programs(file["target"], folder / file["path"], shapes, threads)
    return Model(
        make_runner(programs, bundle.table),
        facts["steps"],
        facts["sigma_s"] if sigma_s is None else sigma_s,
        size,
        size,
        0,
        latent[1],
        facts["domain"],
        fidelity,
        keeps_colors,
        keeps_grey,
        file["sha256"],
    )


def restore(image: Image.Image, model: Model, seed: int, advance: Callable[[int, int], None]) -> Image.Image:
    """Restore an RGB image of any size.

    Args:
        image: as large as the restored image will be.
        model: what restores a tile.
        seed: of the noise, which is drawn for the whole image.
        advance: told (tiles done, tiles in all) after each tile.

    Raises:
        UserError: the model gives values that are not finite.
    """
    sides = [_padded(side, model) for side in (image.height, image.width)]
    noise = seeded_noise((1, model.channels, sides[0] // DOWNSCALE, sides[1] // DOWNSCALE), seed)
    rows, columns = (tile_windows(side, model.tile) for side in sides)
    restored = Image.new("RGB", image.size)
    across = np.zeros((len(columns), sides[1]), np.float32)
    for weights, column in zip(across, columns, strict=True):
        weights[column.start : column.stop] = column.weights
    levelled: list[Sample] = []
    # Sums of one row of tiles, so that memory in float32 grows with the width of the picture only.
    top, band = 0, np.zeros((rows[0].stop, sides[1], 3), np.float32)
    for above, row in enumerate(rows):
        done = row.start - top  # lines that no further tile reaches
        if done:
            restored.paste(Image.fromarray(_to_bytes(band[:done])), (0, top))
        band[: len(band) - done] = band[done:].copy()
        band[len(band) - done :] = 0
        top, samples = row.start, []
        for left, column in enumerate(columns, 1):
            x = slice(column.start, column.stop)
            made, _ = model.runner.restore(
                to_tensor(_tile(image, row, column))[None],
                noise[..., _latent(row), _latent(column)].contiguous(),
                steps=model.steps,
                sigma_s=model.sigma_s,
                fidelity=model.fidelity,
            )
            if not made.isfinite().all():
                raise UserError(
                    "the model gives values that are not finite: check its weights, or export it anew"
                )
            weights = row.weights[:, None, None] * column.weights[None, :, None]
            band[:, x] += weights * made[0].permute(1, 2, 0).numpy()
            luma = F.avg_pool2d(made, DOWNSCALE)[0].mean(0).numpy()
            samples.append(Sample(_latent(row).start, _latent(column).start, luma))
            advance(above * len(columns) + left, len(rows) * len(columns))
        if model.keeps_colors:
            offsets = level_offsets(samples, levelled)
            band += row.weights[:, None, None] * (offsets @ across)[:, None]
            levelled = levelled[-len(columns) :] + [
                s.lifted(by) for s, by in zip(samples, offsets, strict=True)
            ]
    restored.paste(Image.fromarray(_to_bytes(band)), (0, top))
    if model.keeps_colors or (model.keeps_grey and is_grey(image)):
        restored = keep_colors(restored, image)
    return restored


def tile_windows(side: int, tile: int) -> list[Window]:
    """The tiles along a side of a picture, starting at whole latent pixels."""
    return axis_windows(side, tile, int(tile * OVERLAP) // DOWNSCALE * DOWNSCALE)


def _tile(image: Image.Image, row: Window, column: Window) -> Image.Image:
    """A tile of a picture, mirrored beyond the picture's right and lower border."""
    inside = min(column.stop, image.width), min(row.stop, image.height)
    pixels = np.asarray(image.crop((column.start, row.start, *inside)))
    below, right = row.stop - inside[1], column.stop - inside[0]
    return Image.fromarray(np.pad(pixels, ((0, below), (0, right), (0, 0)), mode="symmetric"))


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return (values * 255).round().clip(0, 255).astype(np.uint8)


def _padded(side: int, model: Model) -> int:
    if side <= model.tile and not model.multiple:
        return model.tile
    multiple = model.multiple if side <= model.tile else DOWNSCALE
    return -(-side // multiple) * multiple


def _latent(window: Window) -> slice:
    return slice(window.start // DOWNSCALE, window.stop // DOWNSCALE)


@dataclass(frozen=True)
class Job:
    """Which file becomes which, and where the two are shown side by side, if anywhere."""

    source: Path
    out: Path
    comparison: Path | None = None


def plan(
    source: Path, target: Path, compare: bool = False, tell: Callable[[str], None] = lambda text: None
) -> list[Job]:
    """Which file becomes which: one file, or every image of a folder under its own name.

    A name that ends in a format that is read and not written ends in ``.png`` then. No two outputs have one
    name, not even where a file system takes large letters for small ones.

    Args:
        compare: whether comparisons are written too.
        tell: is told what else is in a folder.

    Raises:
        UserError: nothing at ``source``, ``target`` is no image name for a single file, or something would
            replace an original.
    """
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError(f"{target} is what is to be restored: name another place, so that it is kept")
    taken: set[str] = set()
    if source.is_dir():
        outs = {path: target / name for path, name in _names(list_images(source, tell, comparison), taken)}
    elif not source.exists():
        raise UserError(f"no image or folder at {source}: check the path")
    elif target.is_dir():
        ((_, name),) = _names([source], taken)
        return plan(source, target / name, compare, tell)
    elif target.suffix.lower() not in WRITTEN_SUFFIXES:
        raise UserError(f"{target} is no image name: end it in one of {', '.join(sorted(WRITTEN_SUFFIXES))}")
    else:
        outs = {source: target}
        taken.add(target.name.casefold())
    alike = Counter(out.stem.casefold() for out in outs.values())
    jobs = []
    for path, out in sorted(outs.items()):
        beside = None
        if compare:
            stem = out.stem if alike[out.stem.casefold()] == 1 else out.name
            beside = out.absolute().with_name(_free([stem, out.name], COMPARED, taken))
        jobs.append(Job(path.absolute(), out.absolute(), beside))
    originals = {(facts.st_dev, facts.st_ino) for facts in (job.source.stat() for job in jobs)}
    for place in (place for job in jobs for place in (job.out, job.comparison) if place):
        if place.exists() and (place.stat().st_dev, place.stat().st_ino) in originals:
            raise UserError(f"{place} is what is to be restored: name another place, so that it is kept")
    return jobs


def _names(sources: list[Path], taken: set[str]) -> Iterator[tuple[Path, str]]:
    """What each restored image is called; of formats that are not written last, so that the others keep
    their names."""
    for path in sorted(sources, key=lambda path: path.suffix.lower() not in WRITTEN_SUFFIXES):
        if path.suffix.lower() in WRITTEN_SUFFIXES and path.name.casefold() not in taken:
            taken.add(path.name.casefold())
            yield path, path.name
        else:
            yield path, _free([path.stem, path.name], ".png", taken)


def _free(stems: list[str], tail: str, taken: set[str]) -> str:
    """The first name that is not in ``taken``, where it is put."""
    numbered = (f"{stems[-1]}-{number}" for number in count(2))
    name = next(
        n for n in (named(stem, tail) for stem in chain(stems, numbered)) if n.casefold() not in taken
    )
    taken.add(name.casefold())
    return name


Advance = Callable[[str, int, int], None]  # told (of what, how many are done, how many in all)


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
    sigma_s: float | None = None,
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
    return partial(
        load,
        sigma_s=sigma_s,
        fidelity=fidelity,
        keeps_colors=task.keeps_colors and not no_keep_colors,
        keeps_grey=not task.adds_colors and not no_keep_colors,
    )


@dataclass(frozen=True)
class Made:
    """A restored picture.

    Attributes:
        given: the picture at the size of its restoration.
        restored: RGB.
        note: what a user should know of it.
        faces: of a photograph that was looked through for faces, what was done with each, as JSON.
        untouched: whether ``restored`` is the very picture that was given.
    """

    given: Image.Image
    restored: Image.Image
    note: str = ""
    faces: tuple[dict[str, Any], ...] | None = None
    untouched: bool = False


class Maker(Protocol):
    """Restores pictures.

    Attributes:
        facts: what they depend on beside the model, as JSON.
    """

    facts: dict[str, Any]

    def size(self, image: Image.Image) -> tuple[int, int]:
        """Of what becomes of an RGB image."""

    def __call__(self, image: Image.Image, advance: Advance) -> Made:
        """An RGB image, restored.

        Raises:
            UserError: it cannot be.
        """


class AsAWhole:
    """The :class:`Maker` that restores whatever a picture shows."""

    def __init__(self, model: Model, task: Task, seed: int) -> None:
        self.facts: dict[str, Any] = {}
        self._model, self._task, self._seed = model, task, seed

    def size(self, image: Image.Image) -> tuple[int, int]:
        return image.width * self._task.upscale, image.height * self._task.upscale

    def __call__(self, image: Image.Image, advance: Advance) -> Made:
        given = enlarged(image, self._task)
        return Made(given, restore(given, self._model, self._seed, partial(advance, "tiles")))


@dataclass(frozen=True)
class Outcome:
    """What became of one file: ``restored``, ``done`` before, or ``failed``; why, and what was lost; and the
    faces in it, see :class:`Made`."""

    name: str
    became: Literal["restored", "done", "failed"]
    reason: str = ""
    notes: tuple[str, ...] = ()
    faces: tuple[dict[str, Any], ...] | None = None


def file_restorer(
    load: Callable[[], Model],
    task: Task,
    seed: int,
    advance: Advance = lambda name, done, total: None,
    *,
    reading: Reading = AS_STORED,
    every_frame: bool = False,
    overwrite: bool = False,
    maker: Callable[[Model, Task, int], Maker] = AsAWhole,
) -> Callable[[Job], Outcome]:
    """A worker that restores one file into another, see :func:`elir_mobile.engine.run`.

    Whatever is wrong with one file is its outcome, and does not hold up the others. A picture that is left as
    it is keeps its bytes where its format is the wanted one.

    Args:
        every_frame: all pictures of a file that holds several, not the first alone.
        overwrite: also what is done, and what this program did not write.
    """
    model = load()
    make = maker(model, task, seed)

    def restore_file(job: Job) -> Outcome:
        try:
            return _restored(job)
        except ArtifactError:  # the next picture would fare no better
            raise
        except UserError as error:
            said = str(error)
            return Outcome(
                job.source.name, "failed", said if job.source.name in said else f"{job.source}: {said}"
            )
        except (MemoryError, RuntimeError) as error:  # PyTorch's want of memory is the second
            said = NO_MEMORY if wants_memory(error) else str(error)
            return Outcome(job.source.name, "failed", f"{job.source} could not be restored: {said}")

    def _restored(job: Job) -> Outcome:
        facts = {
            "kind": "restored",
            "source": sha256_of(job.source),
            "task": task.name,
            "seed": seed,
            "every_frame": every_frame,
            **asdict(reading),
            **{key: value for key, value in vars(model).items() if key != "runner"},
            **make.facts,
        }
        compared = facts | {"kind": COMPARISON}
        if not overwrite:
            states = [(job.out, state(job.out, facts))]
            states += [(job.comparison, state(job.comparison, compared))] if job.comparison else []
            for place, found in states:
                if found == "foreign":
                    raise UserError(
                        f"{place} is not what this command wrote there: "
                        "choose another place, or replace it with --overwrite"
                    )
            if all(found == "done" for _, found in states):
                return Outcome(job.source.name, "done")
        photo = _as_coloured(read_photo(job.source, reading), model)
        options, lost = save_options(photo, job.out, make.size(photo.image))
        notes = [*photo.notes, *lost]
        count = photo.frames if every_frame else 1
        if count > 1 and options["format"] not in FRAMED:
            raise UserError(f"{options['format']} holds one picture, not {count}: name a .png, .webp or .tif")
        if count < photo.frames:
            notes.append(
                f"holds {photo.frames} pictures, and the first was restored: --frames all restores each"
            )
        restored, durations = [], []
        for index in range(count):
            if index:
                photo = _as_coloured(read_photo(job.source, reading, index), model)
            one = make(photo.image, lambda what, *counts: advance(f"{job.source.name}, {what}", *counts))
            if job.comparison and not index:
                both = hstack_images([one.given, one.restored])
                with recorded(job.comparison, compared) as staged:
                    both.save(staged)
            restored.append((photo, one))
            durations.append(photo.duration)
        made = [one for _, one in restored]
        same_format = WRITTEN_SUFFIXES.get(job.source.suffix.lower()) == options["format"]
        with recorded(job.out, facts) as staged:
            if same_format and count == photo.frames and all(one.untouched for one in made):
                shutil.copyfile(job.source, staged)
                notes = []  # nothing was lost
            else:
                pictures = [with_alpha(photo, one.restored, options["format"]) for photo, one in restored]
                _save(pictures, durations, staged, options)
        notes += dict.fromkeys(one.note for one in made if one.note)
        faces = None if made[0].faces is None else tuple(chain(*(one.faces or () for one in made)))
        return Outcome(job.source.name, "restored", notes=tuple(notes), faces=faces)

    return restore_file


def _as_coloured(photo: Photo, model: Model) -> Photo:
    """``photo``, no longer a grey one where the model gives it colours."""
    return photo if model.keeps_grey else replace(photo, grey=False)


def _save(made: list[Image.Image], durations: list[float], path: Path, options: dict[str, Any]) -> None:
    """Write one picture, or several of which each stands for its time.

    Raises:
        UserError: they are of several sizes, and the format has one.
    """
    first, *others = made
    if not others:
        first.save(path, **options)
        return
    if len({image.size for image in made}) > 1 and options["format"] != "TIFF":
        raise UserError("its pictures are of several sizes: name a .tif")
    if len({image.mode for image in made}) > 1:
        mode = "RGBA" if any(image.mode.endswith("A") for image in made) else "RGB"
        first, *others = (image.convert(mode) for image in made)
    timed: dict[str, Any] = (
        {"duration": [round(one) for one in durations], "loop": 0} if any(durations) else {}
    )
    first.save(path, save_all=True, append_images=others, **timed, **options)
