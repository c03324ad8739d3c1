"""What ``restore`` does with a picture: as a whole, or, where the network knows aligned faces, face by face.

Networks of the domain ``aligned-face`` are shown one upright face that fills a square. A picture of that size
is taken for one; in any other the faces are found and restored in place (``Task.finds_faces``), or it is
refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from elir_mobile.bundle import read_bundle
from elir_mobile.checkpoints import DEMO_WEIGHTS, read_state_dict
from elir_mobile.core.errors import UserError
from elir_mobile.faces.detect import PACKAGE, Face, FaceFinder
from elir_mobile.faces.inplace import RESTORED, Wanted, restore_faces
from elir_mobile.restore import Advance, AsAWhole, Made, Model, enlarged, model_loader, restore
from elir_mobile.tasks import PHOTO, Task, get_task

NO_FACE = "no face found, left as it is"


@dataclass(frozen=True)
class Background:
    """What restores a photograph around its faces.

    Attributes:
        task: of photographs.
        load: gives the model.
    """

    task: Task
    load: Callable[[], Model]


def background_of(named: str, threads: int | None = None) -> Background:
    """The model for photographs that ``--background`` names.

    Args:
        named: a bundle's folder, a weights file that says its task, or a task that has demo weights.
        threads: see :func:`elir_mobile.restore.model_loader`.

    Raises:
        UserError: there is none, or it is not for photographs.
    """
    path = Path(named)
    if path.is_dir():
        facts = read_bundle(path).manifest
        task, domain = get_task(facts["task"]), facts["domain"]
        load = model_loader(task, bundle=path, threads=threads)
    else:
        demo = DEMO_WEIGHTS / f"demo-{named}.safetensors"
        stated = json.loads(read_state_dict(demo if demo.is_file() else path)[1].get("elir", "{}"))
        if "task" not in stated:
            raise UserError(f"{named} does not say its task: give --background a bundle of it")
        task = get_task(stated["task"])
        domain = stated.get("domain", task.domain)
        load = model_loader(task, weights="demo" if demo.is_file() else named, threads=threads)
    if domain != PHOTO:
        raise UserError(f"{named} is for aligned faces: give --background one of photographs, as denoising")
    return Background(task, load)


@dataclass(frozen=True)
class Handling:
    """How pictures are restored that are not of the network's own kind.

    Attributes:
        aligned: each is an aligned face, whatever its size.
        anyway: each is restored as a whole, whatever it shows.
        wanted: which faces of a photograph, and how much around them.
        background: restores what is around them; None: it is left as it is.
        threads: of the face detector.
    """

    aligned: bool = False
    anyway: bool = False
    wanted: Wanted = Wanted()
    background: Background | None = None
    threads: int | None = None


class Restorer:
    """The :class:`elir_mobile.restore.Maker` of the command.

    Args:
        seed: of the noise; each face starts from the same.
    """

    def __init__(self, model: Model, task: Task, seed: int, handling: Handling = Handling()) -> None:
        self._model, self._task, self._seed, self._handling = model, task, seed, handling
        self._whole = AsAWhole(model, task, seed)
        self._finder: FaceFinder | UserError | None = None  # what comes of the first photograph
        self._behind = handling.background.load() if handling.background else None
        self.facts: dict[str, Any] = {
            "handling": {
                **{key: getattr(handling, key) for key in ("aligned", "anyway")},
                **asdict(handling.wanted),
                "background": self._behind and self._behind.identity,
                "detector": PACKAGE,
            }
        }

    def _restores_whole(self, image: Image.Image) -> bool:
        model, handling = self._model, self._handling
        own_kind = model.domain == PHOTO or self._whole.size(image) == (model.size, model.size)
        return own_kind or handling.aligned or handling.anyway

    def size(self, image: Image.Image) -> tuple[int, int]:
        """Of what becomes of an RGB image."""
        background = self._handling.background
        if self._restores_whole(image) or not background:
            return self._whole.size(image)
        return image.width * background.task.upscale, image.height * background.task.upscale

    def __call__(self, image: Image.Image, advance: Advance) -> Made:
        """An RGB image, upright, restored.

        Raises:
            UserError: it is a whole photograph, and the network restores aligned faces of another task; or
                LiteRT or the face detector cannot be had.
        """
        if self._restores_whole(image):
            return self._whole(image, advance)
        if not self._task.finds_faces:
            raise UserError(
                f"it is a whole photograph, and these {self._task.name} weights know aligned faces of "
                f"{self._model.size} pixels alone: give such a face, or add --anyway"
            )
        return self._in_place(image, advance)

    def _in_place(self, image: Image.Image, advance: Advance) -> Made:
        model = self._model
        found = self._faces(image)
        canvas, given = None, image
        if self._handling.background and self._behind:
            given = enlarged(image, self._handling.background.task)
            canvas = restore(given, self._behind, self._seed, partial(advance, "tiles"))
        made, treated = restore_faces(
            image,
            found,
            lambda square: restore(square, model, self._seed, lambda done, total: None),
            model.size,
            self._handling.wanted,
            canvas,
            partial(advance, "faces"),
        )
        faces = tuple(face.to_json() for face in treated)
        notes = [NO_FACE if canvas is None else "no face found"] if not faces else []
        left = [face.done for face in treated if face.done != RESTORED]
        if left:
            notes.append(f"{len(treated) - len(left)} of {len(treated)} faces restored")
            notes += [f"{left.count(why)} {why}" for why in dict.fromkeys(left)]
        return Made(given, made, "; ".join(notes), faces, untouched=made is image)

    def _faces(self, image: Image.Image) -> list[Face]:
        """The faces of a photograph; that there is no detector is found out once."""
        if self._finder is None:
            try:
                self._finder = FaceFinder(self._handling.threads)
            except UserError as error:
                self._finder = error
        if isinstance(self._finder, UserError):
            raise self._finder
        return self._finder.find(image)
