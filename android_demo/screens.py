"""The app's screens, drawn from its resources: ``python -m android_demo.screens BUNDLE``.

Android is not run, as no renderer of its layouts can be had without its SDK. The layouts, texts and colours
are read from ``app/src/main/res`` and laid out by Chromium in Roboto (``apt-get install chromium
fonts-roboto``): a LinearLayout is a flex box with the same weights, a GridLayout a grid. The looks of widgets
are written here after AOSP's ``core/res/res/values/{dimens,colors,themes}_material.xml``. What views show is
what ``MainActivity`` would give them for the bundle; where a phone's figures would stand, this computer's do.
A layout with a view or an attribute that is not known here is refused, so that none is left out unseen.
Each drawing holds the digest of what it was drawn from.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Annotated, Any
from xml.etree import ElementTree

import typer
from PIL import ExifTags, Image, ImageDraw
from rich.progress import track

from elir_mobile.bundle import read_bundle
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.files import written
from elir_mobile.core.machine import cpu_facts
from elir_mobile.devices.browser import CHROMIUMS
from elir_mobile.faces.detect import FaceFinder
from elir_mobile.images import hstack_images

ROOT = Path(__file__).parents[1]
RES = ROOT / "android_demo" / "app" / "src" / "main" / "res"
IMAGES = ROOT / "docs" / "images"
# Before and after, side by side: what is restored, and what is being restored.
PHOTOS = {"restore": IMAGES / "faces-astronaut.webp", "working": IMAGES / "faces-group.webp"}
PHONE = (411, 891)  # width and height, dp
BAR = 24  # height of the system's bars, above and below, dp
DENSITY = 1.5  # pixels of a drawing to one dp
SCREENS = ("restore", "working", "parity", "benchmark")
PHONE_KIND = "android"  # in the manifest's recommendation
# What is the layout's own business, or drawn by the class of a view.
DRAWN_OTHERWISE = (
    *("id", "text", "orientation", "visibility", "accessibilityLiveRegion", "contentDescription", "labelFor"),
    *("layout_width", "layout_height", "layout_columnWeight", "fillViewport", "textIsSelectable", "max"),
    *("stretchColumns", "shrinkColumns", "style", "textColor"),
)
CHROMIUM_SECONDS = 60
ANDROID = "{http://schemas.android.com/apk/res/android}"
# Colours of Theme.Material.Light and Theme.Material; shares of black and white as CSS has them.
LOOKS = {
    "light": {
        "background": "#fafafa", "primary": "rgb(0 0 0 / .87)", "secondary": "rgb(0 0 0 / .54)",
        "button": "#d6d7d7", "disabled": ".26",
        "track": "rgb(0 0 0 / .26)", "knob": "#f1f1f1",
    },
    "dark": {
        "background": "#303030", "primary": "#fff", "secondary": "rgb(255 255 255 / .7)", "button": "#5a595b",
        "disabled": ".3", "track": "rgb(255 255 255 / .3)", "knob": "#bdbdbd",
    },
}  # fmt: skip
STYLE = """
* { box-sizing: border-box; margin: 0; min-width: 0 }
body { width: %(width)dpx; height: %(height)dpx; padding: %(bar)dpx 0; display: flex;
  background: %(background)s; color: %(secondary)s; font: 14px/1.17 Roboto; overflow: hidden }
.vertical, .frame { display: flex; flex-direction: column; flex: 0 0 auto; align-items: stretch }
body > .vertical { flex: 1 }
.horizontal { display: flex }
.scroll { display: flex; flex-direction: column; overflow: hidden; min-height: 0 }
.scroll > * { flex: 1 0 auto }
.frame > * { flex: 1 0 auto }
.grid { display: grid; align-items: center }
.button { display: flex; align-items: center; justify-content: center; text-align: center; min-height: 36px;
  margin: 6px 4px; padding: 4px 8px; border-radius: 2px; background: %(button)s; color: %(primary)s;
  font-weight: 500; text-transform: uppercase }
.borderless { background: none; color: %(secondary)s }
.borderless.selected { color: %(accent)s }
.colored { background: %(accent)s; color: %(background)s }
.off { opacity: %(disabled)s }
.spinner { display: flex; align-items: center; height: 48px; padding-left: 8px; font-size: 16px;
  color: %(primary)s }
.spinner > span { flex: 1; padding-right: 8px; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap }
.spinner::after { content: ""; margin: 0 19px; border: 5px solid transparent; border-top-color: %(secondary)s;
  transform: translateY(3px) }
.check { display: flex; align-items: center; flex: none; height: 32px; padding-right: 8px;
  color: %(primary)s }
.check::before { content: "\\2713"; width: 18px; height: 18px; margin: 7px; border-radius: 2px;
  text-align: center; background: %(accent)s; color: %(background)s; font-weight: 700 }
.switch { display: flex; align-items: center; justify-content: space-between; color: %(primary)s }
.switch::after { content: ""; width: 40px; height: 20px; flex: none; border-radius: 10px;
  background: radial-gradient(circle at 10px, %(knob)s 9.5px, #0000 10px), %(track)s content-box;
  padding: 3px 0 }
.switch.on::after { background: radial-gradient(circle at 30px, %(accent)s 9.5px, #0000 10px),
  %(track)s content-box }
.bar { display: flex; align-items: center; height: 32px; padding: 0 16px }
.bar > i { height: 2px; background: %(accent)s }
.bar > b { width: 12px; height: 12px; border-radius: 6px; background: %(accent)s }
.bar > u { height: 2px; background: %(track)s }
.progress { padding: 0; height: 16px }
.progress > b { display: none }
.progress > i, .progress > u { height: 4px }
.picture { position: relative }
.picture > img { position: absolute; width: 100%%; height: 100%%; object-fit: contain }
.rows td { padding: 4px; width: 100%% }
.rows td + td { text-align: right; width: auto; white-space: nowrap }
.rows { width: 100%%; border-spacing: 0 }
"""
Values = Mapping[str, Any]  # what views show, by their ids


def digest() -> str:
    """SHA-256 of the resources, this file and the photos: what a drawing is drawn from."""
    whole = hashlib.sha256()
    for path in sorted([*RES.rglob("*.xml"), Path(__file__), *PHOTOS.values()]):
        whole.update(path.read_bytes())
    return whole.hexdigest()


def texts() -> dict[str, str]:
    """The app's strings by their names, without the escapes of Android's XML."""
    strings = ElementTree.parse(RES / "values" / "strings.xml").getroot()
    return {one.attrib["name"]: (one.text or "").replace("\\'", "'") for one in strings}


def said(name: str, *values: object) -> str:
    """The app's string ``name`` with its ``%1$d`` and ``%2$s`` filled in."""
    filled = re.sub(r"%(\d)\$[ds]", lambda found: str(values[int(found[1]) - 1]), texts()[name])
    return filled.replace("%%", "%")


def colours(look: str) -> dict[str, str]:
    """The app's own colours in ``light`` or ``dark``, as CSS has them."""
    folder = "values-night" if look == "dark" else "values"
    found = ElementTree.parse(RES / folder / "colors.xml").getroot()
    return {one.attrib["name"]: f"#{(one.text or '')[3:]}" for one in found}  # #AARRGGBB, opaque


def drawn(layout: str, values: Values, look: str) -> str:
    """A layout as HTML.

    Args:
        layout: name of its file.
        values: what its views show, by their ids; None: the view is gone. A text; of a bar the share that
            is done; whether a switch is on; of a row of boxes their texts; of a table rows of a colour and
            texts; of the picture an image; of a frame another layout's HTML. ``off`` and ``selected``
            have ids of views.

    Raises:
        UserError: it has a view or a place that is not known here.
    """
    return _view(ElementTree.parse(RES / "layout" / f"{layout}.xml").getroot(), values, look)


def _view(node: ElementTree.Element, values: Values, look: str) -> str:
    attributes = {key.removeprefix(ANDROID): value for key, value in node.attrib.items()}
    name = attributes.get("id", "").rpartition("/")[2]
    text = attributes.get("text", "")
    shown = values.get(name, said(text.removeprefix("@string/")) if text else "")
    if shown is None or (attributes.get("visibility") == "gone" and name not in values):
        return ""
    kind, inner = "", "".join(_view(child, values, look) for child in node)
    match node.tag:
        case "LinearLayout":
            kind = attributes.get("orientation", "horizontal")
            inner = inner or "".join(f'<div class="check">{escape(box)}</div>' for box in shown)
        case "FrameLayout":
            kind, inner = "frame", shown
        case "GridLayout":
            kind = "grid"
        case "ScrollView" | "HorizontalScrollView":
            kind = "scroll"
        case "TextView":
            inner = escape(shown)
        case "Button":
            kind = f"button {attributes.get('style', '').rpartition('.')[2].lower()}"
            inner = escape(shown)
        case "Spinner":
            kind, inner = "spinner", f"<span>{escape(shown)}</span>"
        case "Switch":
            kind, inner = (
                "switch on" if shown is True else "switch",
                escape(said(text.removeprefix("@string/"))),
            )
        case "SeekBar" | "ProgressBar":
            kind = "bar" if node.tag == "SeekBar" else "bar progress"
            inner = f'<i style="flex:{shown or 0}"></i><b></b><u style="flex:{1 - float(shown or 0)}"></u>'
        case "TableLayout":
            inner = _rows(shown or (), look)
        case "org.elir.mobile.demo.SliderView":
            kind, inner = "picture", _embedded(shown)
        case unknown:
            raise UserError(f"android_demo/screens.py cannot draw a {unknown}: write how into _view")
    kinds = [kind, *(state for state in ("off", "selected") if name in values.get(state, ()))]
    return f'<div class="{" ".join(kinds)}" style="{_place(attributes)}">{inner}</div>'


def _place(attributes: Mapping[str, str]) -> str:
    """CSS of a view's place in its parent."""
    rules = []
    for key, value in attributes.items():
        match key, value:
            case (("padding" | "paddingLeft" | "paddingRight" | "minHeight"), _):
                css = re.sub("([A-Z])", r"-\1", key).lower()
                rules.append(f"{css}:{_pixels(value)}")
            case "maxLines", _:
                rules.append(f"max-height:calc({value} * 1.17em + 8px);overflow:hidden")  # and its padding
            case "layout_weight", _:
                rules.append(f"flex:{value} 0 0")
            case "layout_columnSpan", _:
                rules.append(f"grid-column:span {value}")
            case "columnCount", _:
                rules.append("grid-template-columns:" + " ".join(["auto 1fr"] * (int(value) // 2)))
            case "gravity", "center_vertical":
                rules.append("align-items:center")
            case "layout_height", _ if value not in ("0dp", "wrap_content", "match_parent"):
                rules.append(f"height:{_pixels(value)}")
            case _ if key not in DRAWN_OTHERWISE:
                raise UserError(f'android_demo/screens.py cannot draw {key}="{value}": write how into _place')
    return ";".join(rules)


def _pixels(value: str) -> str:
    """A length in dp, or the app's own of an upright screen, as CSS has it."""
    if value.startswith("@dimen/"):
        lengths = ElementTree.parse(RES / "values" / "dimens.xml")
        value = lengths.findtext(f"dimen[@name='{value.removeprefix('@dimen/')}']", "")
    return value.replace("dp", "px")


def _rows(rows: Sequence[Sequence[str]], look: str) -> str:
    """A table as ``Reports.kt`` fills it: colour and cells of each row; one cell takes all columns."""
    drawn = []
    for colour, *cells in rows:
        bold = colour == "heading"
        span = f' colspan="5" style="font-weight:{700 if bold else 400}"' if len(cells) == 1 else ""
        inner = "".join(f"<td{span}>{escape(cell)}</td>" for cell in cells)
        drawn.append(f'<tr style="color:{colours(look)["neutral" if bold else colour]}">{inner}</tr>')
    return f'<table class="rows">{"".join(drawn)}</table>'


def _embedded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return f'<img src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def compared(screen: str) -> tuple[Image.Image, int]:
    """What ``SliderView`` shows of the photo of ``screen``, and how many faces that has."""
    with Image.open(PHOTOS[screen]) as both:
        width, height = both.width // 2, both.height
        before, after = (both.crop((x, 0, x + width, height)).convert("RGB") for x in (0, width))
    faces = FaceFinder().find(before)
    size, middle, radius, pen = (6 * width, 6 * height), 3 * width, 70, 12  # reduced, lines are smooth
    shown = before.resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(shown)
    if screen == "restore":
        shown.paste(after.resize(size, Image.Resampling.BICUBIC).crop((middle, 0, *size)), (middle, 0))
        draw.line([(middle, 0), (middle, size[1])], fill="white", width=pen)
        draw.circle((middle, size[1] / 2), radius, fill="white")
    for face in faces:
        draw.ellipse([6 * side for side in face.box], outline="white", width=pen)
    return shown.reduce(4), len(faces)


def _parity(manifest: dict[str, Any]) -> dict[str, Any]:
    """The Parity screen on the computer that made the bundle."""
    rows: list[tuple[str, ...]] = []
    for file in manifest["files"]:
        rows += [("heading", f"{file['target']} {file['precision']}")]
        rows += [("neutral", "", "here dB", "host dB", "budget", "")]
        for part, budget in file["parity"].items():
            host = f"{budget['host_db']:.1f}"
            rows += [("holds", part, host, host, f"{budget['budget_db']:.1f}", "holds")]
    files = len(manifest["files"])
    message = f"{files} of {files} files compute what they should"
    values = {"help": said("parity_help"), "start": said("check"), "message": message, "rows": rows}
    return values | {"facts": said("advised", manifest["reasons"][PHONE_KIND])}


def _benchmark(file: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The Benchmark screen with the times of a report's row."""
    rows = [("heading", f"{file['target']} {file['precision']}"), ("neutral", "", "median ms", "p90 ms")]
    latencies = {name: program["latency_ms"] for name, program in row["programs"].items()}
    for name, latency in (latencies | {"total": row["latency_ms"]}).items():
        rows += [("neutral", name, f"{latency['median']:.1f}", f"{latency['p90']:.1f}")]
    for name in ("load", "first"):
        rows += [("neutral", name, f"{row[f'{name}_ms']:.1f}", "")]
    message = f"{row['latency_ms']['median']:.1f} ms a restoration"
    facts = cpu_facts()
    values = {"help": said("benchmark_help"), "start": said("measure"), "message": message, "rows": rows}
    return values | {"facts": f"{facts['cpu']}, {facts['cores']} cores"}


def _restore(screen: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """The Restore screen, when a result is saved or while ``working``."""
    picture, faces = compared(screen)
    values: dict[str, Any] = {
        "part": said("part_faces"),
        "around": None,  # no bundle for photographs
        "fidelity_text": said("fidelity", 0),
        "colours": manifest["keep_colors"],
        "faces": [said("face", number + 1) for number in range(faces)],
        "slider": picture,
        "message": "Saved to the gallery",
    }
    if screen == "working":
        idle = ["model", "target", "precision", "steps", "part", "fidelity", "colours", "faces"]
        idle += ["pick", "take", "restore", "another", "save", "share"]
        values |= {"working": True, "progress": 0.5, "time_left": said("time_left", 3), "off": idle}
        values["message"] = said("work")
    return values


def shown_by(screen: str, bundle: Path) -> tuple[str, dict[str, Any]]:
    """The layout in the frame, and what all views show, as ``MainActivity.refresh`` has it."""
    manifest = read_bundle(bundle).manifest
    report = json.loads((bundle / "report" / "report.json").read_text())
    path = manifest["recommendation"][PHONE_KIND]
    best = next(one for one in manifest["files"] if one["path"] == path)
    values = {
        "model": f"{manifest['title']} · {manifest['model']['name']} · K={manifest['steps']}",
        "target": best["target"],
        "precision": best["precision"],
        "steps": str(manifest["steps"]),
    }
    match screen:
        case "parity":
            return "report", {**values, **_parity(manifest), "selected": ["tab_parity"]}
        case "benchmark":
            row = next(one for one in report["rows"] if one["path"] == path)
            return "report", {**values, **_benchmark(best, row), "selected": ["tab_benchmark"]}
        case _:
            return "restore", {**values, **_restore(screen, manifest), "selected": ["tab_restore"]}


def page(screen: str, look: str, bundle: Path, size: tuple[int, int] = PHONE) -> str:
    """A screen as an HTML document of ``size`` (width, height) in dp, the system's bars left empty."""
    layout, values = shown_by(screen, bundle)
    whole = drawn("main", values | {"screen": drawn(layout, values, look)}, look)
    style = STYLE % (LOOKS[look] | colours(look) | {"width": size[0], "height": size[1], "bar": BAR})
    return f'<!doctype html><meta charset="utf-8"><style>{style}</style><body>{whole}'


def photographed(html: str, size: tuple[int, int]) -> Image.Image:
    """What Chromium shows of a document in a window of ``size`` dp.

    Raises:
        UserError: there is no Chromium, or it took no picture.
    """
    chromium = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if chromium is None:
        raise UserError("no Chromium draws the screens: apt-get install chromium fonts-roboto")
    with tempfile.TemporaryDirectory() as folder:
        document, picture = Path(folder, "screen.html"), Path(folder, "screen.png")
        document.write_text(html)
        # Root cannot have Chromium's sandbox; the document is ours and loads nothing.
        command = [chromium, "--headless", "--no-sandbox", f"--user-data-dir={folder}/profile"]
        command += [f"--window-size={size[0]},{size[1]}", f"--force-device-scale-factor={DENSITY}"]
        command += ["--hide-scrollbars", f"--screenshot={picture}", document.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHROMIUM_SECONDS)
        if not picture.is_file():
            raise UserError(f"Chromium took no picture: {done.stderr.strip().splitlines()[-1:]}")
        with Image.open(picture) as shown:
            return shown.convert("RGB")


@exits_with_2
def main(
    bundle: Annotated[Path, typer.Argument(help="Whose names and figures the screens show.")],
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = IMAGES,
) -> None:
    """Draw the Android app's screens, in light and dark, from its resources."""
    for look in LOOKS:
        screens = [photographed(page(screen, look, bundle), PHONE) for screen in track(SCREENS, look)]
        picture = hstack_images(screens)
        exif = Image.Exif()
        exif[ExifTags.Base.ImageDescription] = digest()
        with written(out / f"android-{look}.webp") as staged:
            picture.save(staged, quality=85, method=6, exif=exif)
        typer.echo(out / f"android-{look}.webp")


if __name__ == "__main__":
    typer.run(main)
