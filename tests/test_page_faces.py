"""Faces in the page: its modules, run by Node, compute what their counterparts in ``elir_mobile/faces`` do,
and in Chromium it does what ``restore --task bfr`` does.

For Node the two networks of the detector are run by LiteRT here, asked over HTTP: all but them is the page's.
"""

from __future__ import annotations

import json
import math
import subprocess
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage import data as samples

from elir_mobile.bundle import task_facts, write_detector, write_manifest
from elir_mobile.colors import keep_colors
from elir_mobile.devices import browser
from elir_mobile.faces import detect
from elir_mobile.faces.align import TEMPLATE, similarity, warp
from elir_mobile.faces.compose import Placement, composed
from elir_mobile.faces.detect import SIDE, Face, FaceFinder, overlaps, suppressed, tiles
from elir_mobile.faces.inplace import RESTORED, Wanted, compared, restore_faces
from elir_mobile.faces.paste import Patch, paste
from elir_mobile.images import read_photo, with_alpha
from elir_mobile.restore import load_artifact, restore
from elir_mobile.tasks import PHOTO, get_task
from tests.conftest import write_micro_bundle
from tests.node import printed
from tests.test_devices import found_or_skipped
from tests.test_faces import face_picture, smooth, turned

ROOT = Path(__file__).parents[1]
SIZE = 128  # of aligned squares here, pixels
FILTERS = {name: Image.Resampling[name.upper()] for name in ("box", "bilinear", "bicubic")}


def photographs() -> dict[str, Image.Image]:
    """With faces and without: a portrait, a group of several sizes, and a cup of coffee."""
    scene = Image.fromarray(samples.coffee()).resize((900, 600), Image.Resampling.BICUBIC)
    group = [
        Placement(face_picture(name), (150 + 190 * (i % 4), 150 + 280 * (i // 4)), box, angle)
        for i, (name, box, angle) in enumerate(
            zip(
                ("collins", "biden", "obama-2012", "giunchedi", "henner", "hopper", "van-rossum", "paumier"),
                (130, 90, 64, 48, 36, 28, 100, 120),
                (0, 20, -30, 10, 0, -10, 40, 5),
                strict=True,
            )
        )
    ]
    blurred = composed(scene, group).filter(ImageFilter.GaussianBlur(3))  # so that looking again decides
    return {
        "astronaut": Image.fromarray(samples.astronaut()),
        "group": composed(scene, group),
        "blurred": blurred,
        "coffee": scene,
    }


def rgba(image: Image.Image) -> bytes:
    return image.convert("RGBA").tobytes()


class Served(SimpleHTTPRequestHandler):
    """Files of a folder, and what a network gives for a body of float32."""

    def __init__(self, *arguments: object, networks: dict[str, Callable], **options: object) -> None:
        self.networks = networks
        super().__init__(*arguments, **options)  # type: ignore[arg-type]

    def do_POST(self) -> None:
        """Both outputs of a network, the longer one first."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        outputs = self.networks[self.path.lstrip("/")](
            np.frombuffer(body, np.float32).reshape(1, SIDE, SIDE, 3)
        )
        answer = b"".join(out.astype("<f4").tobytes() for out in outputs)
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


def fixtures(folder: Path) -> dict:
    """Write pictures and what Python makes of them into ``folder``; returns the index."""
    soft, noisy = (
        smooth(300, 200),
        Image.fromarray(np.random.default_rng(1).integers(0, 256, (257, 333, 3), np.uint8)),
    )
    faces = {name: face_picture(name).resize((SIZE, SIZE)) for name in ("collins", "biden", "hopper")}
    worn = faces["biden"].resize((24, 24)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    grey = faces["collins"].convert("L").convert("RGB")
    pictures = {**faces, **photographs(), "soft": soft, "noisy": noisy, "worn": worn, "grey": grey}
    for name, image in pictures.items():
        (folder / f"{name}.rgba").write_bytes(rgba(image))
    index: dict = {
        "pictures": {
            name: {"width": image.width, "height": image.height} for name, image in pictures.items()
        },
        "photographs": [*photographs()],
    }
    count = iter(range(10**6))

    def kept(values: bytes | np.ndarray) -> str:
        name = f"expected-{next(count)}"
        (folder / name).write_bytes(values if isinstance(values, bytes) else values.tobytes())
        return name

    index["resized"] = [
        {
            "picture": name,
            "size": [high, wide],
            "filter": how,
            "gap": gap,
            "expected": kept(
                rgba(pictures[name].resize((wide, high), FILTERS[how], reducing_gap=gap or None))
            ),
        }
        for name, (high, wide), how, gap in (
            ("noisy", (61, 100), "bilinear", 0),
            ("noisy", (37, 49), "bilinear", 2),
            ("noisy", (19, 320), "bilinear", 2),
            ("noisy", (400, 500), "bilinear", 2),
            ("noisy", (16, 21), "box", 0),
            ("noisy", (300, 90), "bicubic", 0),
        )
    ]
    index["blurred"] = [
        {
            "picture": "noisy",
            "spread": spread,
            "expected": kept(rgba(pictures["noisy"].filter(ImageFilter.GaussianBlur(spread)))),
        }
        for spread in (0, 0.4, 3, 11)
    ]
    rng = np.random.default_rng(0)
    sources = [rng.uniform(0, 500, (5, 2)) for _ in range(4)]
    index["similarity"] = [
        {"source": s.tolist(), "target": TEMPLATE.tolist(), "matrix": similarity(s, TEMPLATE).tolist()}
        for s in sources
    ]
    maps = [
        turned(0.3, 0.37, (20, 30)),
        turned(-0.5, 1.9, (-200, 40)),
        turned(0, 0.8, (60, -20)),
        turned(1.2, 0.52, (90, 9)),
        turned(0.1, 1, (-250, -150)),
    ]
    index["warped"] = [
        {
            "picture": name,
            "matrix": matrix.tolist(),
            "width": 96,
            "height": 80,
            "expected": kept(warp(np.asarray(pictures[name]), matrix, 96, 80)),
        }
        for name in ("soft", "noisy")
        for matrix in maps
    ]
    boxes = rng.uniform(0, 40, (30, 2))
    rows = np.column_stack([boxes, boxes + rng.uniform(20, 60, (30, 2)), rng.uniform(0, 100, (30, 12))])
    index["proposals"], index["scores"] = rows.tolist(), rng.uniform(0.3, 1, 30).tolist()
    index["tiled"] = [
        {"picture": name, "expected": kept(np.stack([tile.pixels for tile in tiles(pictures[name])]))}
        for name in ("group", "soft")
    ]
    left, right = turned(0.2, 0.8, (-60, -30)), turned(-0.1, 0.9, (-120, -20))
    outside = turned(0, 1.0, (30, 40))
    index["pasted"] = []
    for margin in (0.0, 1.0):
        for restored in (("collins", "biden"), ("collins", None)):
            parts = list(zip((left, right, outside), (*restored, "hopper"), strict=True))
            patches = [Patch(m, SIZE, np.asarray(pictures[name]) if name else None) for m, name in parts]
            made = paste(soft, patches, margin)
            index["pasted"].append(
                {
                    "picture": "soft",
                    "margin": margin,
                    "patches": [{"matrix": m.tolist(), "size": SIZE, "restored": name} for m, name in parts],
                    "expected": kept(rgba(made)),
                }
            )
    index["compared"] = [
        {"given": given, "restored": restored, "side": side}
        for given, restored, side in (
            ("biden", "biden", 200.0),
            ("worn", "biden", 300.0),
            ("worn", "biden", 41.5),
            ("collins", "biden", 90.0),
        )
    ]
    index["judged"] = [
        compared(np.asarray(pictures[c["given"]]), np.asarray(pictures[c["restored"]]), c["side"])
        for c in index["compared"]
    ]
    index["colored"] = [
        {
            "restored": restored,
            "given": given,
            "expected": kept(rgba(keep_colors(pictures[restored], pictures[given]))),
        }
        for restored, given in (("biden", "worn"), ("biden", "collins"), ("collins", "grey"))
    ]
    (folder / "index.json").write_text(json.dumps(index))
    index["tiles"] = [
        [[tile.left, tile.top, *tile.inner] for tile in tiles(pictures[case["picture"]])]
        for case in index["tiled"]
    ]
    return index


@pytest.fixture(scope="module")
def both(finder: FaceFinder, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """The index, and what ``tests/faces.mjs`` prints."""
    folder = tmp_path_factory.mktemp("faces")
    index = fixtures(folder)
    networks = {"detect": partial(detect._run, finder._detector), "mesh": partial(detect._run, finder._mesh)}
    handler = partial(Served, directory=str(folder), networks=networks)
    lock = threading.Lock()
    for name, network in networks.items():
        networks[name] = lambda x, run=network: _alone(lock, run, x)
    return index, printed("faces.mjs", handler)


def _alone(lock: threading.Lock, run: Callable, x: np.ndarray) -> list[np.ndarray]:
    with lock:
        return run(x)


def test_resizing_gives_pillows_bytes(both: tuple[dict, dict]) -> None:
    assert both[1]["resized"] == [[0, 0]] * len(both[0]["resized"])


def test_blurring_gives_pillows_bytes(both: tuple[dict, dict]) -> None:
    assert both[1]["blurred"] == [[0, 0]] * 4


def test_alignment_is_the_packages(both: tuple[dict, dict]) -> None:
    assert np.allclose(both[1]["template"], TEMPLATE, rtol=0, atol=1e-12)
    for case, (apart, back, scale) in zip(both[0]["similarity"], both[1]["similarity"], strict=True):
        assert apart < 1e-9
        assert back < 1e-6
        assert scale == pytest.approx(math.hypot(case["matrix"][0][0], case["matrix"][1][0]))
    assert len(both[1]["warped"]) == 10
    for most, _ in both[1]["warped"]:
        assert most < 0.05  # of 255


def test_proposals_become_the_same_rows(both: tuple[dict, dict]) -> None:
    index, seen = both
    rows, scores = suppressed(np.array(index["proposals"]), np.array(index["scores"]))
    assert 1 < len(rows) < len(index["proposals"])
    assert np.allclose([found["row"] for found in seen["suppressed"]], rows, rtol=0, atol=1e-9)
    assert [found["score"] for found in seen["suppressed"]] == scores.tolist()


def test_tiles_have_the_same_bytes(both: tuple[dict, dict]) -> None:
    for expected, (most, differ, places) in zip(both[0]["tiles"], both[1]["tiles"], strict=True):
        assert (most, differ) == (0, 0)
        assert places == expected


def test_squares_are_put_back_alike(both: tuple[dict, dict]) -> None:
    assert len(both[1]["pasted"]) == 4
    for most, differ in both[1]["pasted"]:
        assert most <= 1
        assert differ < 0.002


def test_faces_are_judged_alike(both: tuple[dict, dict]) -> None:
    for (detail, agreement), found in zip(both[0]["judged"], both[1]["compared"], strict=True):
        assert found["detail"] == pytest.approx(detail, abs=1e-3)
        assert found["agreement"] == pytest.approx(agreement, abs=1e-3)


def test_colours_are_kept_alike(both: tuple[dict, dict]) -> None:
    for most, differ in both[1]["colored"]:
        assert most <= 1
        assert differ < 0.002


def test_the_same_photograph_gives_the_same_faces(both: tuple[dict, dict], finder: FaceFinder) -> None:
    numbers = {}
    for name, photo in photographs().items():
        ours, theirs = finder.find(photo), both[1]["faces"][name]
        assert len(theirs) == len(ours), name
        numbers[name] = len(ours)
        for face, found in zip(ours, theirs, strict=True):
            assert shared(face, found["box"]) > 0.999
            assert np.abs(face.points - found["points"]).max() < 0.05
            assert found["score"] == pytest.approx(face.score, abs=1e-3)
    assert numbers["astronaut"] == 1
    assert numbers["group"] >= 7
    assert numbers["blurred"] >= 1
    assert numbers["coffee"] == 0


def shared(face: Face, box: list[float]) -> float:
    """Intersection over union of a face's box and another one."""
    return float(overlaps(np.array(face.box), np.array([box]))[0][0])


# In Chromium.


@pytest.fixture(scope="module")
def chromium() -> browser.Browser:
    found = found_or_skipped("browser")
    assert isinstance(found, browser.Browser)
    return found


@pytest.fixture(scope="module")
def face_bundle(degraded, tiny_weights: Path, finder: FaceFinder, tmp_path_factory) -> Path:
    """A bundle that restores faces in photographs, with a network that makes noise of them."""
    folder = tmp_path_factory.mktemp("bundles") / "bfr-faces"
    write_micro_bundle(folder, (("litert", "fp32"),), degraded, tiny_weights)
    manifest = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder, {**manifest, "detector": write_detector(folder)})
    return folder


@pytest.mark.devices
@pytest.mark.lowering
def test_the_page_does_what_restore_does(
    chromium: browser.Browser, face_bundle: Path, finder: FaceFinder, tmp_path: Path
) -> None:
    photos = {name: photographs()[name] for name in ("group", "astronaut", "coffee")}
    for name, photo in photos.items():
        photo.save(tmp_path / f"{name}.png")
    script = ROOT / "tests" / "faces_page.mjs"
    with browser.serving(face_bundle) as url:
        command = [chromium.node, script, browser.modules_folder(), chromium.chromium, url, tmp_path]
        command += [tmp_path / f"{name}.png" for name in photos]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["isolated"], seen["errors"], seen["shown"]) == (True, [], "1")
    assert "for the faces in a photo" in seen["about"]

    def saved(name: str) -> np.ndarray:
        return np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).astype(int)

    model = load_artifact(get_task("bfr"), face_bundle, "litert", "fp32", threads=1, keeps_colors=True)

    def expected(photo: Image.Image, faces: list[Face], wanted: Wanted) -> tuple[np.ndarray, list[bool]]:
        made, treated = restore_faces(
            photo, faces, lambda square: restore(square, model, 0, lambda *_: None), model.size, wanted
        )
        return np.asarray(made).astype(int), [face.done == RESTORED for face in treated]

    for name in ("group", "astronaut"):
        photo, rings, given = photos[name], seen[name]["rings"], np.asarray(photos[name])
        faces = finder.find(photo)
        assert len(rings) == len(faces)
        assert all(shared(face, ring["box"]) >= 0.9 for face, ring in zip(faces, rings, strict=True))
        assert [ring["on"] for ring in rings] == expected(photo, faces, Wanted())[1]
        made, _ = expected(photo, faces, Wanted(all_faces=True))
        apart = np.abs(saved(f"{name}-all") - made)
        assert apart.mean() < 0.1
        untouched = (made == given).all(-1)
        assert 0.3 < untouched.mean() < 0.99
        assert (apart[untouched] > 0).mean() < 1e-3  # where a mask is about to end
        assert seen[name]["all"] == f"{name}-restored.png"
        assert [ring["on"] for ring in seen[name]["without"]] == [False] + [True] * (len(faces) - 1)
    left, top, right, bottom = (round(value) for value in seen["group"]["rings"][0]["box"])
    first = np.s_[top:bottom, left:right]
    assert np.array_equal(saved("group-without")[first], np.asarray(photos["group"])[first])
    assert not np.array_equal(saved("group-without"), np.asarray(photos["group"]))

    nobody = seen["coffee"]
    assert nobody["status"].startswith("No face found, so the photo is left as it is.")
    assert (nobody["rings"], nobody["canSave"]) == ([], False)
    assert nobody["asked"].startswith("Move the square onto an upright face")
    assert nobody["unmarked"] == nobody["status"]
    (marked,) = nobody["marked"]
    left, top, right, bottom = marked["box"]
    assert (right - left, bottom - top) == (100, 100)
    rows, columns = np.nonzero((saved("coffee-marked") != np.asarray(photos["coffee"])).any(-1))
    assert left <= columns.min() < columns.max() < right
    assert top <= rows.min() < rows.max() < bottom
    for before, after in (("coffee-marked", "again"), ("again", "faithful"), ("faithful", "colors")):
        assert not np.array_equal(saved(before), saved(after))
    for view in ("phone", "desktop", "dark", "dark-phone"):
        assert seen[view] == {"overflow": 0, "camera": "phone" in view}


@pytest.fixture(scope="module")
def photo_bundle(degraded, tiny_weights: Path, tmp_path_factory) -> Path:
    """A bundle for any photograph, with a network that makes noise of it."""
    folder = tmp_path_factory.mktemp("bundles") / "denoising-photos"
    write_micro_bundle(folder, (("litert", "fp32"),), degraded, tiny_weights)
    manifest = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder, {**manifest, **task_facts(get_task("denoising"), PHOTO)})
    return folder


@pytest.mark.devices
@pytest.mark.lowering
def test_the_page_restores_a_whole_photo_as_restore_does(
    chromium: browser.Browser, photo_bundle: Path, tmp_path: Path
) -> None:
    """In tiles, at its own size, upright, with its transparency; and stops where a person wants it to."""
    scene = photographs()["coffee"].resize((230, 150))
    clear = scene.copy()
    clear.putalpha(Image.linear_gradient("L").resize(scene.size))
    exif = Image.Exif()
    exif[0x0112] = 6
    scene.rotate(90, expand=True).save(tmp_path / "lying.png", exif=exif)
    photos = {"scene": scene, "grey": scene.convert("L"), "clear": clear, "pixel": scene.resize((1, 1))}
    for name, photo in photos.items():
        photo.save(tmp_path / f"{name}.png")
    scene.save(tmp_path / "moving.webp", save_all=True, append_images=[scene.rotate(9)], lossless=True)
    smooth(4000, 3000).save(tmp_path / "large.png")
    names = ["large.png", *(f"{name}.png" for name in photos), "lying.png", "moving.webp"]
    script = ROOT / "tests" / "photo_page.mjs"
    with browser.serving(photo_bundle) as url:
        command = [chromium.node, script, browser.modules_folder(), chromium.chromium, url, tmp_path]
        done = subprocess.run(
            [*command, *(tmp_path / name for name in names)], capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert "for any photo" in seen["about"]
    for view in ("phone", "desktop"):
        assert seen[view]["foretold"].startswith("about ")
        assert seen[view]["cancelled"]["status"] == "Cancelled."
        assert (seen[view]["overflow"], seen[view]["errors"]) == (0, [])
    assert seen["photos"]["moving.webp"]["status"].endswith("The file holds 2 pictures; this is the first.")
    for name, one in seen["photos"].items():
        assert one["status"].startswith("Restored in "), name
        assert (one["problem"], one["working"]) == ("", False), name
        assert one["size"] == ([1, 1] if name == "pixel.png" else [230, 150]), name

    model = load_artifact(
        get_task("denoising"), photo_bundle, "litert", "fp32", threads=1, keeps_colors=True, keeps_grey=True
    )

    def saved(name: str) -> np.ndarray:
        return np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGBA")).astype(int)

    expected = np.asarray(restore(scene, model, 0, lambda *_: None)).astype(int)
    for name in ("scene.png", "lying.png", "moving.webp"):
        assert np.abs(saved(name)[..., :3] - expected).max() <= 1, name
    grey = saved("grey.png")
    assert (grey[..., :1] == grey[..., :3]).all()
    read = read_photo(tmp_path / "clear.png")
    there = with_alpha(read, restore(read.image, model, 0, lambda *_: None), "PNG")
    made = saved("clear.png")
    assert np.array_equal(made[..., 3], np.asarray(there)[..., 3])
    seen_through = np.abs(made[..., :3] - np.asarray(there)[..., :3]) * made[..., 3:] / 255
    assert seen_through.max() <= 4  # a canvas rounds colours that hardly show
    assert not np.array_equal(saved("faithful")[..., :3], expected)


@pytest.mark.devices
@pytest.mark.lowering
def test_an_exported_page_is_isolated_by_itself_and_works_without_a_network(
    chromium: browser.Browser, face_bundle: Path, tmp_path: Path
) -> None:
    browser.export_page(face_bundle, tmp_path / "page")
    handler = partial(Served, directory=str(tmp_path / "page"), networks={})  # sends no such headers
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [chromium.node, ROOT / "tests" / "offline.mjs", browser.modules_folder(), chromium.chromium]
        command.append(f"http://127.0.0.1:{server.server_address[1]}/")
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            online = json.loads(process.stdout.readline())
            server.shutdown()
            server.server_close()
            offline = json.loads(process.communicate("\n", timeout=300)[0])
    for seen in (online, offline):
        assert seen["isolated"]
        assert seen["status"].startswith("Restored in")
        assert seen["problem"] == ""
    # A window of the test is a private one; else the page can be installed.
    assert {error["errorId"] for error in online["installabilityErrors"]} <= {"in-incognito"}
