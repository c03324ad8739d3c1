"""The drawings of the app's screens: they leave nothing of the layouts out and are of today's resources."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import ExifTags, Image

from android_demo import screens
from android_demo.screens import ANDROID, IMAGES, LOOKS, RES, SCREENS, colours, digest, drawn, page, said
from elir_mobile.core.errors import UserError
from export.programs import PROGRAM_NAMES

LATENCY = {"median": 12.34, "p90": 15.0}


@pytest.fixture(scope="module")
def measured(demo_bundle: Path, tmp_path_factory) -> Path:
    """The tiny bundle as ``quant.ptq`` leaves it for a phone: with a recommendation and a report."""
    folder = tmp_path_factory.mktemp("measured") / demo_bundle.name
    shutil.copytree(demo_bundle, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (best,) = manifest["files"]
    advice = {"recommendation": {"android": best["path"]}, "reasons": {"android": "the one"}}
    (folder / "manifest.json").write_text(json.dumps(manifest | advice))
    row = {"path": best["path"], "latency_ms": LATENCY, "load_ms": 1.0, "first_ms": 2.0}
    row["programs"] = {part: {"latency_ms": LATENCY} for part in PROGRAM_NAMES}
    (folder / "report").mkdir()
    (folder / "report" / "report.json").write_text(json.dumps({"rows": [row]}))
    return folder


def layouts() -> list[ElementTree.Element]:
    return [node for path in RES.glob("layout/*.xml") for node in ElementTree.parse(path).iter()]


@pytest.mark.parametrize("look", LOOKS)
def test_every_view_of_the_layouts_is_in_a_drawing(measured: Path, look: str) -> None:
    pages = {screen: page(screen, look, measured) for screen in SCREENS}
    everything = "".join(pages.values())
    for node in layouts():
        text = node.get(f"{ANDROID}text", "").removeprefix("@string/")
        if text and text != "background":  # the row that only a bundle for photographs shows
            assert said(text).replace("'", "&#x27;") in everything, text
    assert said("face", 1) in pages["restore"] and said("face", 5) in pages["working"]
    assert said("time_left", 3) in pages["working"] and said("time_left", 3) not in pages["restore"]
    assert "12.3" in pages["benchmark"] and "15.0" in pages["benchmark"]
    assert colours(look)["holds"] in pages["parity"] and "holds" in pages["parity"]
    assert LOOKS[look]["background"] in everything


def test_what_the_drawings_show_are_views_of_the_layouts(measured: Path) -> None:
    names = {node.get(f"{ANDROID}id", "").rpartition("/")[2] for node in layouts()}
    for screen in SCREENS:
        _, values = screens.shown_by(screen, measured)
        states = {name for state in ("off", "selected") for name in values.pop(state, ())}
        assert {*values, *states} <= names


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<SeekBar", "<RatingBar", "cannot draw a RatingBar"),
        ('android:max="10"', 'android:layout_marginTop="9dp"', 'cannot draw layout_marginTop="9dp"'),
    ],
)
def test_a_drawing_leaves_nothing_out_silently(
    old: str, new: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(RES, tmp_path / "res")
    layout = tmp_path / "res" / "layout" / "restore.xml"
    before = layout.read_text()
    layout.write_text(before.replace(old, new))
    assert layout.read_text() != before
    monkeypatch.setattr(screens, "RES", tmp_path / "res")
    with pytest.raises(UserError, match=re.escape(said)):
        drawn("restore", {"around": None, "slider": Image.new("RGB", (2, 2))}, "light")


@pytest.mark.parametrize("look", LOOKS)
def test_the_drawings_in_the_documents_are_of_todays_resources(look: str) -> None:
    with Image.open(IMAGES / f"android-{look}.webp") as image:
        assert image.getexif()[ExifTags.Base.ImageDescription] == digest(), (
            "draw them anew: python -m android_demo.screens out/bfr-demo"
        )


def test_a_small_screen_scrolls_and_the_comparison_keeps_its_height() -> None:
    """The picture alone gives way where a screen is small, and would be gone on one of 640 dp."""
    places = {node.get(f"{ANDROID}id"): node for node in layouts()}
    assert places["@+id/slider"].get(f"{ANDROID}minHeight") == "@dimen/comparison"
    least = {
        folder: ElementTree.parse(RES / folder / "dimens.xml").findtext("dimen[@name='comparison']")
        for folder in ("values", "values-land")
    }
    # On its side a screen of 360 dp has that much left between bars, tabs and what is underway.
    assert least == {"values": "240dp", "values-land": "160dp"}
    scrolled = ElementTree.parse(RES / "layout" / "main.xml").find("ScrollView")
    assert scrolled is not None and scrolled.get(f"{ANDROID}fillViewport") == "true"
    assert "@+id/screen" in {node.get(f"{ANDROID}id") for node in scrolled.iter()}
