"""Whole photographs, face by face: ``python -m benchmarks.faces``.

Twenty group photographs are composed: held-out faces, degraded as ``bfr`` is trained for, at known places,
in known sizes and turns, in held-out photographs that nobody is in. They are restored as ``elir-mobile
restore --task bfr`` does with the bundled weights. Reported: which faces are found; what is found that is
no face, in the photographs themselves as well; whether the bytes outside of the faces' squares are the
photograph's; LPIPS of the restored faces against the truth; what is left alone where the faces were not
degraded; and the time that one face in a photograph of 12 megapixels takes with the int8 file for LiteRT.
Writes ``benchmarks/results/faces.json`` and the pictures of docs/faces.md.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import matplotlib
import numpy as np
import torch
import typer
from PIL import Image, ImageOps
from rich.console import Console
from skimage import data as pictures

from benchmarks.released import RESULTS
from benchmarks.tables import IMAGES, faces_table
from elir_mobile import metrics
from elir_mobile.bundle import read_bundle
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.files import write_json, written
from elir_mobile.core.statistics import bootstrap
from elir_mobile.data.faces import face_split, load_faces
from elir_mobile.data.pairs import BUNDLED
from elir_mobile.data.photos import HELDOUT_LIST, photo_split
from elir_mobile.degradations import bfr_reduction, degrade_bfr, gaussian_noise, jpeg
from elir_mobile.faces.align import TEMPLATE, inverse, mapped, similarity, warp
from elir_mobile.faces.compose import BOX, Placement, composed
from elir_mobile.faces.detect import PACKAGE, Face, FaceFinder
from elir_mobile.faces.inplace import RESTORED, Treated, restore_faces
from elir_mobile.harness.protocol import code_revision, latency_facts, machine_facts
from elir_mobile.images import hstack_images, to_image
from elir_mobile.photographs import Handling, Restorer, background_of
from elir_mobile.restore import Model, model_loader, restore
from elir_mobile.tasks import get_task

TASK = get_task("bfr")
SEED = 0
TASK_SIDE = 128  # of the faces that are degraded, as in training, pixels
SCENES, FACES = 20, 8  # photographs, and faces in each at most
SMALLEST, LARGEST, TURN = 24, 256, 20.0  # sides of the faces' boxes, pixels; degrees
CLASSES = (24, 32, 48, 96, 257)  # of those sides
LEFT = (0, 8, 16, 24, 32, 257)  # of what degradations leave of those sides
COUNTED = 32  # recall is promised from this side on
NEAR = 0.3  # of a box: how far a found face may lie from the true one
TIMED = "lomiri-wallpapers-16.04--picosdeeuropa_by_Aitzol_Berasategi"  # the photograph that is timed
MEGAPIXELS_12 = (4000, 3000)
BUNDLE_COMMAND = "python -m quant.ptq --task bfr --targets litert --precision w8a8"
SHOWN_WIDTH = 460  # of each half of a picture, pixels


@dataclass(frozen=True)
class Scene:
    """A group photograph.

    Attributes:
        truth, degraded: without and with the degradation of its faces.
        placements: of the degraded faces.
        left: pixels that the degradation leaves of each one's side: that of its box, or of the face where it
            was reduced, if that is smaller.
    """

    truth: Image.Image
    degraded: Image.Image
    placements: list[Placement]
    left: list[float]


def scenes() -> Iterator[Scene]:
    """The group photographs; scene ``i`` by the generator of ``(SEED, i)``."""
    faces = [to_image(face.float() / 255) for face in load_faces(face_split()[1], TASK_SIDE)]
    grounds, drawn = photo_split()[1], 0
    for index in range(SCENES):
        rng = np.random.default_rng([SEED, index])
        ground = Image.fromarray(np.load(grounds[index % len(grounds)]))
        if index >= len(grounds):
            ground = ImageOps.mirror(ground)
        clean: list[Placement] = []
        spoiled: list[Placement] = []
        left: list[float] = []
        for _ in range(200):
            if len(clean) == FACES:
                break
            box = float(np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST))))
            side = box / BOX
            if side > 0.9 * min(ground.size):
                continue
            across, down = (float(rng.uniform(side / 2, length - side / 2)) for length in ground.size)
            middle = across, down
            if any(_crowded(middle, side, other) for other in clean):
                continue
            face, angle = faces[drawn % len(faces)], float(rng.uniform(-TURN, TURN))
            drawn += 1
            clean.append(Placement(face, middle, box, angle))
            left.append(min(box, BOX * min(bfr_reduction(TASK_SIDE, copy.deepcopy(rng))[1], TASK_SIDE)))
            spoiled.append(Placement(degrade_bfr(face, rng), middle, box, angle))
        yield Scene(composed(ground, clean), composed(ground, spoiled), spoiled, left)


def _crowded(middle: tuple[float, ...], side: float, other: Placement) -> bool:
    """Whether two squares may touch, however they are turned."""
    apart = np.linalg.norm(np.subtract(middle, other.middle))
    return bool(apart < 0.6 * (side + other.box / BOX))


def matched(found: Sequence[Face], placements: Sequence[Placement]) -> dict[int, int]:
    """Index of the found face for each placement that has one; each face is given once, the nearest first."""
    pairs = sorted(
        (float(np.linalg.norm(face.points.mean(0) - placement.points.mean(0))) / placement.box, p, f)
        for p, placement in enumerate(placements)
        for f, face in enumerate(found)
    )
    given: dict[int, int] = {}
    for distance, p, f in pairs:
        if distance < NEAR and p not in given and f not in given.values():
            given[p] = f
    return given


def outside(size: tuple[int, int], treated: Sequence[Treated]) -> np.ndarray:
    """Where no aligned square of a restored face lies: (H, W) bool."""
    free = np.ones(size[::-1], bool)
    columns, rows = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    places = np.stack([columns, rows], -1)
    for face in treated:
        if face.done == RESTORED:
            square = mapped(similarity(face.face.points, TEMPLATE), places)
            free &= ((square <= 0) | (square >= 1)).any(-1)
    return free


def cut(image: Image.Image, placement: Placement) -> torch.Tensor:
    """The square of a placement, upright: (1, 3, TASK_SIDE, TASK_SIDE) in [0, 1]."""
    matrix = inverse(placement.matrix) * (TASK_SIDE / placement.face.width)
    pixels = warp(np.asarray(image), matrix, TASK_SIDE, TASK_SIDE)
    return torch.from_numpy(pixels.clip(0, 255) / 255).permute(2, 0, 1)[None].float()


def judged(finder: FaceFinder, model: Model, tell: Console) -> dict:
    """What becomes of the faces of all scenes."""
    rows, false, changed, clean_left, clean_faces = [], 0, 0, 0, 0

    def network(square: Image.Image) -> Image.Image:
        return restore(square, model, SEED, lambda done, total: None)

    for number, scene in enumerate(scenes()):
        found = finder.find(scene.degraded)
        made, treated = restore_faces(scene.degraded, found, network, model.size)
        given = matched(found, scene.placements)
        false += len(found) - len(given)
        free = outside(made.size, treated)
        changed += int((np.asarray(made) != np.asarray(scene.degraded))[free].any(-1).sum())
        for p, placement in enumerate(scene.placements):
            row: dict = {"scene": number, "box": placement.box, "left": scene.left[p]}
            row |= {"found": p in given, "restored": False}
            if p in given and treated[given[p]].done == RESTORED:
                truth = cut(scene.truth, placement)
                before, after = (cut(image, placement) for image in (scene.degraded, made))
                row |= {
                    "restored": True,
                    "lpips_degraded": float(metrics.lpips(before, truth)),
                    "lpips": float(metrics.lpips(after, truth)),
                    "psnr_degraded_db": float(metrics.psnr(before, truth)),
                    "psnr_db": float(metrics.psnr(after, truth)),
                }
            rows.append(row)
        sharp = finder.find(scene.truth)
        _, alone = restore_faces(scene.truth, sharp, network, model.size)
        clean_faces += len(alone)
        clean_left += sum(face.done != RESTORED for face in alone)
        tell.print(
            f"scene {number + 1} of {SCENES}: {len(given)} of {len(scene.placements)} faces", style="dim"
        )
    empty = [Image.fromarray(np.load(path)) for path in photo_split()[1]]
    return {
        "rows": rows,
        "false": false,
        "photographs_without_faces": len(empty),
        "false_without_faces": sum(len(finder.find(image)) for image in empty),
        "changed_outside": changed,
        "clean_faces_found": clean_faces,
        "clean_faces_left": clean_left,
    }


def summary(rows: Sequence[dict]) -> dict:
    """Recall by size, and what restoring gains, with intervals over the scenes."""
    classes = []
    for low, high in [*zip(CLASSES, CLASSES[1:], strict=False), (COUNTED, CLASSES[-1])]:
        chosen = [row for row in rows if low <= row["box"] < high]
        found = np.array([row["found"] for row in chosen], float)
        clusters = [str(row["scene"]) for row in chosen]

        def recall(i: np.ndarray, x: np.ndarray = found) -> float:
            return float(x[i].mean())

        recall_low, recall_high = bootstrap(recall, len(found), clusters=clusters) or (None, None)
        done = [row for row in chosen if row["restored"]]
        facts: dict = {"from": low, "to": high, "faces": len(chosen), "found": int(found.sum())}
        facts |= {"recall": float(found.mean()), "recall_low": recall_low, "recall_high": recall_high}
        facts["restored"] = len(done)
        for key in ("lpips_degraded", "lpips", "psnr_degraded_db", "psnr_db"):
            facts[key] = float(np.mean([row[key] for row in done])) if done else None
        before, after = (np.array([row[key] for row in done]) for key in ("lpips_degraded", "lpips"))

        def gain(i: np.ndarray, b: np.ndarray = before, a: np.ndarray = after) -> float:
            return float(1 - a[i].mean() / b[i].mean())

        if done:
            places = [str(row["scene"]) for row in done]
            low_gain, high_gain = bootstrap(gain, len(done), clusters=places) or (None, None)
            facts |= {"gain": gain(np.arange(len(done))), "gain_low": low_gain, "gain_high": high_gain}
        classes.append(facts)
    left = []
    for low, high in zip(LEFT, LEFT[1:], strict=False):
        chosen = [row for row in rows if row["box"] >= COUNTED and low <= row["left"] < high]
        left.append({"from": low, "to": high, "faces": len(chosen), "found": sum(r["found"] for r in chosen)})
    return {"classes": classes[:-1], "counted": classes[-1], "left": left}


def timed(finder: FaceFinder, model: Model, runs: int) -> dict:
    """Milliseconds of finding and restoring one face in a photograph of 12 megapixels, read already."""
    large = heldout(TIMED).resize(MEGAPIXELS_12, Image.Resampling.BICUBIC)
    face = Image.open(BUNDLED / "faces" / "evaluation" / "giunchedi.png").convert("RGB")
    spoiled = degrade_bfr(face.resize((TASK_SIDE, TASK_SIDE)), np.random.default_rng(SEED))
    photo = composed(large, [Placement(spoiled, (1800.0, 1200.0), 500.0)])
    finding, whole = [], []
    for run in range(runs + 1):
        start = time.perf_counter()
        found = finder.find(photo)
        middle = time.perf_counter()
        _, treated = restore_faces(
            photo, found, lambda square: restore(square, model, SEED, lambda d, t: None), model.size
        )
        end = time.perf_counter()
        if [one.done for one in treated] != [RESTORED]:
            raise UserError("the one face of the timed photograph was not found: check the detector")
        if run:  # the first is a warm-up
            finding.append(1e3 * (middle - start))
            whole.append(1e3 * (end - start))
    return {"find_ms": latency_facts(finding), "whole_ms": latency_facts(whole), "side": treated[0].side}


# The pictures of docs/faces.md: photographs and portraits that may be shown (THIRD_PARTY.md).


def portrait(name: str) -> Image.Image:
    """A bundled portrait, 128 pixels."""
    path = next(BUNDLED.glob(f"faces/*/{name}.png"))
    return Image.open(path).convert("RGB").resize((TASK_SIDE, TASK_SIDE), Image.Resampling.LANCZOS)


def heldout(name: str) -> Image.Image:
    """A held-out photograph."""
    return Image.fromarray(np.load(photo_split()[1][HELDOUT_LIST.read_text().split().index(name)]))


def worn(image: Image.Image, factor: float, quality: int) -> Image.Image:
    """A small, hard-pressed copy of a photograph, enlarged again."""
    small = image.resize([round(side / factor) for side in image.size], Image.Resampling.BILINEAR)
    return jpeg(gaussian_noise(small, 4, np.random.default_rng(SEED)), quality).resize(
        image.size, Image.Resampling.BICUBIC
    )


def group(ground: Image.Image, faces: Sequence[tuple[str, float, float, float, float]]) -> Image.Image:
    """Bundled portraits (name, x, y, box, angle) in a photograph."""
    return composed(
        ground, [Placement(portrait(name), (x, y), box, angle) for name, x, y, box, angle in faces]
    )


GROUP = (
    ("obama-2012", 85, 330, 88, -6), ("collins", 222, 310, 84, 5), ("giunchedi", 362, 335, 92, -3),
    ("hopper", 500, 312, 84, 8), ("henner", 632, 335, 90, -5), ("biden", 292, 428, 58, 0),
)  # fmt: skip
TURNED = (
    ("collins", 90, 150, 88, -40), ("henner", 240, 190, 84, 30), ("obama-congress", 390, 150, 92, 15),
    ("van-rossum", 545, 190, 88, -20), ("paumier", 655, 90, 80, 5), ("giunchedi", 36, 390, 96, 0),
)  # fmt: skip


def shown() -> dict[str, tuple[Image.Image, Handling]]:
    """What goes into each picture, and how it is restored."""
    sample = Path(matplotlib.get_data_path()) / "sample_data"
    astronaut = Image.fromarray(pictures.astronaut())
    hopper = (
        Image.open(sample / "grace_hopper.jpg").convert("RGB").resize((256, 300), Image.Resampling.LANCZOS)
    )
    names = ("aitzgorri", "picosdeeuropa")
    meadow, mountain = (
        heldout(f"lomiri-wallpapers-16.04--{name}_by_Aitzol_Berasategi").resize((720, 480)) for name in names
    )
    everyone = Handling()
    return {
        "astronaut": (worn(astronaut, 3, 60), everyone),
        "group": (worn(group(meadow, GROUP), 2.7, 60), everyone),
        "turned": (worn(group(mountain, TURNED), 2.7, 60), everyone),
        "background": (
            gaussian_noise(worn(hopper, 5, 80), 8, np.random.default_rng(SEED)),
            Handling(background=background_of("denoising")),
        ),
        "nothing": (Image.fromarray(pictures.rocket()), everyone),
    }


def draw(model: Model, folder: Path) -> dict[str, dict]:
    """Write each picture, before and after side by side, and say what was done in it."""
    said = {}
    for name, (image, handling) in shown().items():
        made = Restorer(model, TASK, SEED, handling)(image, lambda what, done, total: None)
        size = SHOWN_WIDTH, round(SHOWN_WIDTH * image.height / image.width)
        both = [x.resize(size, Image.Resampling.LANCZOS) for x in (image, made.restored)]
        with written(folder / f"faces-{name}.webp") as staged:
            hstack_images(both).save(staged, quality=85, method=6)
        said[name] = {"faces": [face["done"] for face in made.faces or ()], "untouched": made.untouched}
    return said


@exits_with_2
def main(
    bundle: Annotated[Path, typer.Option(help="With the int8 file that is timed.")] = Path("out/bfr-demo"),
    threads: Annotated[int, typer.Option(help="Of detector and networks.")] = 2,
    runs: Annotated[int, typer.Option(help="Timed runs.")] = 20,
    results: Annotated[Path, typer.Option(help="Folder of the JSON result.")] = RESULTS,
    images: Annotated[Path, typer.Option(help="Folder of the pictures.")] = IMAGES,
) -> None:
    """Measure how faces are found in photographs and restored in place."""
    console = Console()
    if not bundle.is_dir():
        raise UserError(f"no bundle at {bundle}: {BUNDLE_COMMAND}")
    finder = FaceFinder(threads)
    model = model_loader(TASK, threads=threads)()
    found = judged(finder, model, console)
    load = model_loader(TASK, bundle=bundle, target="litert", precision="w8a8", threads=threads)
    facts = {
        "kind": "faces",
        **found,
        **summary(found["rows"]),
        "time": timed(finder, load(), runs),
        "pictures": draw(model, images),
        "scenes": SCENES,
        "turn": TURN,
        "seed": SEED,
        "detector": PACKAGE,
        "model": read_bundle(bundle).manifest["model"],
        "protocol": {"threads": threads, "runs": runs},
        "machine": machine_facts(),
        "revision": code_revision(),
    }
    write_json(results / "faces.json", facts)
    typer.echo(faces_table(facts))
    console.print(f"written to {results / 'faces.json'} and {images}; now: python -m benchmarks.tables")


if __name__ == "__main__":
    typer.run(main)
