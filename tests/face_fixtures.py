"""Golden photographs with faces, for the apps: what is found in them, aligned, judged and put back.

Bundled faces are set into drawn scenes (:mod:`elir_mobile.faces.compose`). Every call of the detector's two
networks is recorded, so that an app is held against what Python makes of the very same raw outputs, and so
is every square that a stand-in for the restorer was given and gave back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image, ImageFilter

from elir_mobile.data.pairs import BUNDLED
from elir_mobile.faces import detect
from elir_mobile.faces.align import TEMPLATE, similarity
from elir_mobile.faces.compose import Placement, composed
from elir_mobile.faces.inplace import Wanted, restore_faces

Array = Callable[[str, np.ndarray], dict]
SOFT = 0.02  # spread of the blur of a soft face, in shares of its side


@dataclass(frozen=True)
class Scene:
    """A photograph to compose: its size, (name, middle, box, angle) of each sharp and each soft face."""

    size: tuple[int, int]
    sharp: tuple[tuple[str, tuple[float, float], float, float], ...] = ()
    soft: tuple[tuple[str, tuple[float, float], float, float], ...] = ()
    wanted: Wanted = Wanted()
    square: int = 128  # side of what the restorer takes
    sharpening: tuple[int, ...] = (400,)  # what the restorer does to one face after the other, %
    larger: int = 0  # how many times, if faces are also set into another, restored background


SCENES = (
    Scene((300, 220), soft=(("henner", (140, 110), 90, 0),)),
    Scene((220, 300), sharp=(("collins", (110, 150), 80, 12),)),
    Scene(
        (420, 260),
        soft=(("biden", (110, 120), 100, -15),),
        sharp=(("hopper", (300, 140), 70, 8),),
        sharpening=(400, 50),
        larger=4,
    ),
    Scene((260, 260), soft=(("collins", (130, 130), 150, 0),), square=64, larger=1),
    Scene((320, 240), soft=(("giunchedi", (40, 120), 90, 0),)),  # cut by the edge
    Scene(
        (400, 240), soft=(("henner", (150, 120), 90, 0), ("paumier", (235, 125), 90, 0)), larger=2
    ),  # their squares overlap
    Scene(
        (400, 240),
        soft=(("biden", (150, 120), 90, 5),),
        sharp=(("collins", (240, 120), 90, -5),),
        sharpening=(50, 400),  # the neighbour of one that is left alone
    ),
    Scene(
        (640, 400), soft=tuple(("obama-2012", (110 + 140 * i, 200), 40.0 + 12 * i, 5.0 * i) for i in range(4))
    ),
    Scene((360, 480), soft=(("obama-congress", (180, 240), 60, 20),), wanted=Wanted(margin=0.0)),
    Scene((480, 360), sharp=(("paumier", (240, 180), 120, 0),), wanted=Wanted(all_faces=True, margin=0.5)),
    Scene((500, 500), soft=(("hopper", (250, 250), 300, -8),), square=256),
    Scene((1000, 700), soft=(("collins", (700, 200), 34, 0),)),  # seen in tiles only
    Scene((300, 200)),
)


def drawn(size: tuple[int, int], seed: int) -> Image.Image:
    """A soft scene with a little noise."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(40, 215, (5, 7, 3), dtype=np.uint8))
    values = np.asarray(small.resize(size, Image.Resampling.BICUBIC), np.float64)
    return Image.fromarray((values + rng.normal(0, 3, values.shape)).clip(0, 255).astype(np.uint8))


def placements(scene: Scene) -> list[Placement]:
    """The faces of a scene."""
    made = []
    for faces, blur in ((scene.sharp, 0.0), (scene.soft, SOFT)):
        for name, middle, box, angle in faces:
            face = Image.open(next(BUNDLED.glob(f"faces/*/{name}.png"))).convert("RGB")
            made.append(
                Placement(face.filter(ImageFilter.GaussianBlur(blur * face.width)), middle, box, angle)
            )
    return made


class Calls:
    """Keeps what the detector's networks were given and gave."""

    def __init__(self, array: Array, name: str) -> None:
        self.array, self.name, self.run = array, name, detect._run
        self.made: list[dict] = []

    def __call__(self, interpreter: Any, x: np.ndarray) -> list[np.ndarray]:
        outputs = self.run(interpreter, x)
        name = f"{self.name}-{len(self.made)}"
        kind = "detect" if outputs[1].size > 1 else "mesh"
        given = ((x[0] + 1) * 127.5).round().astype(np.uint8) if kind == "detect" else x[0]
        arrays = {"input": given, "points": outputs[0].ravel(), "logits": outputs[1].ravel()}
        self.made.append(
            {"network": kind} | {key: self.array(f"{name}-{key}", values) for key, values in arrays.items()}
        )
        return outputs


def face_photographs(array: Array) -> list[dict]:
    """An entry for each scene; ``array`` writes an array and describes it.

    ``calls`` are those of the detector's networks in order; ``faces`` what was found, the largest first, with
    the map to the aligned square, the square (``given``), what the restorer made of it, and the verdict;
    ``background``, where a scene has one, is what the same faces are set into, and what comes of it.
    """
    finder = detect.FaceFinder(1)
    entries = []
    for number, scene in enumerate(SCENES):
        name = f"faces/{number}"
        photo = composed(drawn(scene.size, number), placements(scene))
        calls = Calls(array, f"{name}-call")
        with mock.patch.object(detect, "_run", calls):
            found = finder.find(photo)
        squares: list[tuple[Image.Image, Image.Image]] = []

        def restore(square: Image.Image, squares: list = squares, scene: Scene = scene) -> Image.Image:
            percent = scene.sharpening[len(squares) % len(scene.sharpening)]
            squares.append((square, square.filter(ImageFilter.UnsharpMask(2, percent, 0))))
            return squares[-1][1]

        out, treated = restore_faces(photo, found, restore, scene.square, scene.wanted)
        faces = [
            {
                "box": list(face.face.box),
                "points": face.face.points.tolist(),
                "score": face.face.score,
                "matrix": similarity(face.face.points, TEMPLATE * scene.square).tolist(),
                "side": face.side,
                "given": array(f"{name}-given-{index}", np.asarray(given)),
                "made": array(f"{name}-made-{index}", np.asarray(made)),
                "detail": face.detail,
                "agreement": face.agreement,
                "restored": face.done == "restored",
            }
            for index, (face, (given, made)) in enumerate(zip(treated, squares, strict=True))
        ]
        background = None
        if scene.larger:
            sides = photo.width * scene.larger, photo.height * scene.larger
            canvas = photo.resize(sides, Image.Resampling.BICUBIC).filter(ImageFilter.UnsharpMask(2, 200, 0))
            answers = iter(made for _, made in squares)
            pasted, _ = restore_faces(
                photo, found, lambda _, made=answers: next(made), scene.square, scene.wanted, canvas
            )
            background = {
                "canvas": array(f"{name}-canvas", np.asarray(canvas)),
                "output": array(f"{name}-set", np.asarray(pasted)),
            }
        entries.append(
            {
                "photo": array(f"{name}-photo", np.asarray(photo)),
                "calls": calls.made,
                "square": scene.square,
                "all_faces": scene.wanted.all_faces,
                "margin": scene.wanted.margin,
                "faces": faces,
                "output": array(f"{name}-output", np.asarray(out)),
                "background": background,
            }
        )
    return entries
