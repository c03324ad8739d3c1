"""The options that several commands take, each declared once so that it means the same everywhere.

Nothing heavy is imported here, nor at the top of a command's module: help and shell completion answer at
once, and a package that is not installed is missed only by the command that needs it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from elir_mobile.core.errors import UserError
from elir_mobile.precision import RECIPES, Recipe, get_recipe, read_recipe
from elir_mobile.runtimes.table import RUNTIMES

# Those that have demo weights: the table of all would import the network with it.
_DEMOS = {path.stem.removeprefix("demo-") for path in Path(__file__).parents[1].glob("weights/demo-*")}
_TASKS = sorted(_DEMOS - {"autoencoder"})  # which several of them share


def command_app(*, completion: bool = False, no_args_is_help: bool = False) -> typer.Typer:
    """An application with plain help: on a screen of 80×24 there is no room for panels."""
    return typer.Typer(
        add_completion=completion,
        no_args_is_help=no_args_is_help,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def alone(command: Callable[..., None]) -> typer.Typer:
    """An application of one command: what ``python -m`` runs."""
    app = command_app()
    app.command()(command)
    return app


def _in_list(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Completion of the last name of a list with commas."""

    def complete(incomplete: str) -> list[str]:
        before = incomplete[: incomplete.rfind(",") + 1]
        return [before + name for name in names]

    return complete


def _finite(value: float | None) -> float | None:
    """Refuse what a comparison with a limit does not: ``nan`` is below none."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not finite")
    return value


def _range(value: str | None) -> str | None:
    """``value``, if it is a range of values."""
    if value is not None:
        read_range(value)
    return value


def read_range(value: str) -> tuple[float, float]:
    """Black and white of ``BLACK..WHITE``, or of ``WHITE`` alone."""
    low, dots, high = value.rpartition("..")
    try:
        black, white = float(low) if dots else 0.0, float(high)
    except ValueError:
        black = white = 0.0
    if black == white or not (math.isfinite(black) and math.isfinite(white)):
        raise typer.BadParameter(f"'{value}' is no range: give the values of black and white, as 0..4095")
    return black, white


def _color(value: str | None) -> str | None:
    """``value``, if it is a colour."""
    if value is not None:
        read_color(value)
    return value


def read_color(value: str) -> tuple[int, int, int]:
    """A colour by its CSS name or as ``#rrggbb``."""
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(value)[:3]
    except ValueError as error:
        raise typer.BadParameter(f"'{value}' is no colour: give a name, or #rrggbb") from error
    return red, green, blue


Task = Annotated[
    str, typer.Option(metavar="NAME", help=f"{', '.join(_TASKS)}, …", autocompletion=lambda: _TASKS)
]
Weights = Annotated[
    str,
    typer.Option(
        metavar="WHICH",
        help="demo, released, a file, or its address.",
        autocompletion=lambda: ["demo", "released"],
    ),
]
Images = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Clean images. Default: the bundled ones.")
]
# Numbers have an end where nobody wants more and libraries answer with an overflow of their own.
MOST_SEED = 2**32 - 1
MOST_PIXELS = 1 << 16
MOST_STEPS = 1000
MOST_THREADS = 1024
MOST_COUNT = 10**9  # of anything else


def count(help: str, metavar: str = "N", *, least: int | None = 1) -> Any:
    """An option that is a number of something."""
    return typer.Option(metavar=metavar, min=least, max=MOST_COUNT, help=help)


Size = Annotated[
    int | None,
    typer.Option(metavar="PIXELS", max=MOST_PIXELS, help="Side of images. Default: the model's."),
]
Seed = Annotated[int, typer.Option(metavar="N", min=0, max=MOST_SEED, help="Of noise and degradations.")]
SigmaS = Annotated[
    float | None,
    typer.Option(
        "--sigma-s", metavar="X", min=0, callback=_finite, help="Spread of the noise. Default: the model's."
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(metavar="K", min=1, max=MOST_STEPS, help="Euler steps. Default: the model's."),
]
Threads = Annotated[
    int | None, typer.Option(metavar="N", min=1, max=MOST_THREADS, help="Default: one for each core.")
]
_TARGET = typer.Option(
    "--target", metavar="NAME", help=f"{', '.join(RUNTIMES)}.", autocompletion=lambda: list(RUNTIMES)
)
_PRECISION = typer.Option(metavar="NAME", help=f"{', '.join(RECIPES)}.", autocompletion=lambda: list(RECIPES))
Target = Annotated[str, _TARGET]
AnyTarget = Annotated[str | None, _TARGET]
Precision = Annotated[str, _PRECISION]
Targets = Annotated[
    str,
    typer.Option(
        "--targets",
        metavar="NAME,…",
        help=f"{', '.join(list(RUNTIMES)[:2])}, … or all.",
        autocompletion=_in_list(RUNTIMES),
    ),
]
Precisions = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="NAME,…",
        help=f"{', '.join(list(RECIPES)[:5])}, ….",
        autocompletion=_in_list(RECIPES),
    ),
]
RecipeFile = Annotated[
    Path | None,
    typer.Option("--recipe", metavar="FILE", help="A TOML recipe in the place of --precision."),
]
Out = Annotated[Path, typer.Option(metavar="FOLDER", help="Where the result is written.")]
RunFolder = Annotated[Path, typer.Option(metavar="FOLDER", help="Of the run; give it again to resume.")]
Engine = Annotated[Literal["local", "ray"], typer.Option(metavar="local|ray", help="What runs the work.")]
Workers = Annotated[
    int | None, typer.Option(metavar="N", min=1, max=MOST_THREADS, help="Ray's. Default: one for each core.")
]


def names(listed: str) -> tuple[str, ...]:
    """The names in a list with commas; of an empty one, none."""
    return tuple(name.strip() for name in listed.split(",") if name.strip())


def given(context: typer.Context, name: str) -> bool:
    """Whether the parameter called ``name`` is on the command line, and not its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def refuse(context: typer.Context, why: str, *names: str) -> None:
    """Refuse options that would be ignored beside the others.

    Args:
        why: follows the option's name in the message.
        names: of the command's parameters.

    Raises:
        UserError: one of them is on the command line.
    """
    for parameter in context.command.params:
        if parameter.name in names and given(context, parameter.name):
            raise UserError(f"{parameter.opts[0]} {why}")


@dataclass(frozen=True)
class Model:
    """What restores: the options of every command that does, see :func:`with_model`, and the arguments of
    :func:`elir_mobile.restore.model_loader`."""

    weights: Weights = "demo"
    steps: Steps = None
    sigma_s: SigmaS = None
    tile: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", min=32, max=MOST_PIXELS, help="Side of the float model's tiles."),
    ] = None
    bundle: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Restore with an exported file: its advised one.")
    ] = None
    target: AnyTarget = None
    precision: Annotated[str | None, _PRECISION] = None
    threads: Threads = None
    fidelity: Annotated[
        float,
        typer.Option(
            metavar="0..1", min=0.0, max=1.0, show_default=False, help="0: detail (default); 1: truth."
        ),
    ] = 0.0
    no_keep_colors: Annotated[bool, typer.Option("--no-keep-colors", help="Let the network change hues.")] = (
        False
    )


@dataclass(frozen=True)
class Pictures:
    """How pictures are read that do not say it themselves: options of the commands that restore."""

    range: Annotated[
        str | None,
        typer.Option(metavar="BLACK..WHITE", callback=_range, help="Values of images of more than 8 bits."),
    ] = None
    background_color: Annotated[
        str | None,
        typer.Option(metavar="COLOR", callback=_color, help="Behind transparent images. Default: white."),
    ] = None

    @property
    def reading(self) -> dict[str, Any]:
        """The arguments of :class:`elir_mobile.images.Reading`."""
        chosen: dict[str, Any] = {"range": read_range(self.range)} if self.range else {}
        return chosen | ({"background": read_color(self.background_color)} if self.background_color else {})


_GROUPS: dict[str, type] = {"model": Model, "pictures": Pictures}


def with_model(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with each field of its parameters ``model``, a :class:`Model`, and ``pictures``, a
    :class:`Pictures`, as an option of its own."""

    @wraps(command)
    def wrapper(**given: Any) -> None:
        groups = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in _GROUPS.items()
        }
        command(**given, **groups)

    keyword = inspect.Parameter.KEYWORD_ONLY
    listed: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        group = _GROUPS.get(parameter.name)
        listed += inspect.signature(group, eval_str=True).parameters.values() if group else [parameter]
    wrapper.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # what typer reads
        [parameter.replace(kind=keyword) for parameter in listed]
    )
    return wrapper


def check_model(context: typer.Context, model: Model, engine: str) -> None:
    """Refuse what cannot go together of the options that say what restores, and where.

    Raises:
        UserError: an option of the float model beside ``--bundle``, or one of the bundle or of Ray alone.
    """
    if model.bundle:
        refuse(context, "is of the float model, and --bundle is not: leave one out", "weights", "tile")
    else:
        refuse(context, "chooses a file of --bundle: name that too", "target", "precision")
    if engine != "ray":
        refuse(context, "is of --engine ray: add that, or leave this out", "workers")


def one_recipe(context: typer.Context, precision: str, recipe: Path | None) -> Recipe:
    """What ``--recipe``, or else ``--precision``, names.

    Raises:
        UserError: both are given, or there is no such recipe.
    """
    if recipe is None:
        return get_recipe(precision)
    refuse(context, "and --recipe name two recipes: leave one out", "precision")
    return read_recipe(recipe)
