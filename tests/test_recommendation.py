"""Which file each class of device is advised to run: quality before speed, and a reason made of facts."""

from __future__ import annotations

import pytest

from elir_mobile.precision import RECIPES
from elir_mobile.recommendation import BUDGET, RECOMMENDED, reasons, recommendation
from elir_mobile.runtimes.table import can_run
from export.targets import TARGETS

RAN = {"image": {"host_db": 45.0, "budget_db": 42.0}}  # of a file that nobody ran there is the budget alone
NAMES = {"ex": "executorch", "lt": "litert", "cm": "coreml", "gpu": "litert/gpu", "qnn": "onnx/qnn"}


def entries(files: str, **facts: object) -> list[dict]:
    """Entries of a manifest, each ``target.precision``."""
    return [
        {"path": file, "target": NAMES.get(target, target), "precision": precision, **facts}
        for file in files.split()
        for target, precision in [file.split(".")]
    ]


def ran(
    by: str = "LiteRT 2.2.0", update: float | None = 22.0, drop: float = 0.02, rise: float = 0.001
) -> dict:
    """What a file that was executed and judged has in its entry."""
    return {
        "parity": RAN,
        "executed_by": by,
        "quality": {
            "update_sqnr_db": update,
            "psnr_drop_db": drop,
            "psnr_drop_db_high": drop + 0.02,
            "lpips_rise": rise,
            "lpips_rise_high": rise + 0.001,
            "pairs": 8,
            "photographs": 6,
        },
    }


@pytest.mark.parametrize(
    ("files", "advised"),
    [
        ("ex.fp32 ex.w8a8", {"android": "ex.w8a8", "ios": "ex.w8a8", "host": "ex.w8a8"}),
        (
            "ex.w8a8 lt.w8a8 cm.w4 cm.w8a8",
            {"android": "lt.w8a8", "ios": "cm.w8a8", "browser": "lt.w8a8", "host": "lt.w8a8"},
        ),
        # int8 before float, and only then the faster target
        (
            "lt.fp32 ex.mixed ex.w8a8 cm.fp16",
            {"android": "ex.w8a8", "ios": "ex.w8a8", "browser": "lt.fp32", "host": "ex.w8a8"},
        ),
        # fp16 only where there is such arithmetic
        (
            "lt.fp32 lt.fp16 cm.fp32 cm.fp16",
            {"android": "lt.fp16", "ios": "cm.fp16", "browser": "lt.fp32", "host": "lt.fp32"},
        ),
        # a recipe of one's own before all others, a built-in one that no rule names after them
        (
            "lt.w8a8 lt.mine lt.other cm.w4 cm.fp32",
            {"android": "lt.mine", "ios": "cm.fp32", "browser": "lt.mine", "host": "lt.mine"},
        ),
        # every chip its own
        (
            "lt.w8a8 gpu.fp32 gpu.fp16 qnn.fp16 qnn.w8a8 qnn.w8a16",
            {
                "android-npu": "qnn.w8a16", "android-gpu": "gpu.fp16", "android": "lt.w8a8",
                "browser-gpu": "gpu.fp16", "browser": "lt.w8a8", "host": "lt.w8a8",
            },
        ),
        ("qnn.fp16 qnn.w8a8", {"android-npu": "qnn.w8a8"}),
        ("cm.w4", {"ios": "cm.w4"}),
        ("vulkan.w8a8", {}),
        ("", {}),
    ],
)  # fmt: skip
def test_of_files_of_equal_standing_the_fastest_is_advised(files: str, advised: dict) -> None:
    for facts in ({}, {"parity": RAN}, ran()):
        assert recommendation(entries(files, **facts)) == advised
        assert reasons(entries(files, **facts)).keys() == advised.keys()


def test_advice_names_recipes_that_there_are() -> None:
    for advice in RECOMMENDED.values():
        assert set(advice.precisions) <= set(RECIPES)


def test_quality_decides_before_speed() -> None:
    """Executed and within the budget; not judged; not within it; nobody's: each before the next."""
    standing = [
        entries("lt.fp32", **ran(drop=0.07)),
        entries("lt.fp16", parity=RAN),
        entries("lt.w8", **ran(update=14.9)),
        entries("ex.w8a8", parity={"image": {"budget_db": 42.0}}),
        entries("lt.w8a8"),  # the fastest of all, of which nothing is known
    ]
    for index in range(len(standing) - 2):
        left = [entry for group in standing[index:] for entry in group]
        assert recommendation(left)["android"] == left[0]["path"]
        assert "; it goes before litert w8a8: nobody executed it" in reasons(left)["android"]
    assert recommendation([*standing[3], *standing[4]])["android"] == "lt.w8a8"


@pytest.mark.parametrize(
    ("short", "sentence"),
    [
        (ran(update=5.7), "SQNR of the update 5.7 dB, where at least 15 is asked, PSNR drop 0.020 dB"),
        (ran(drop=0.09), "PSNR drop 0.090 dB (at most 0.110), where at most 0.1 is asked, LPIPS"),
        (ran(rise=0.0045), "LPIPS rise 0.0045 (at most 0.0055), where at most 0.005 is asked on 8 pairs"),
    ],
)
def test_a_file_below_its_budget_goes_after_one_that_holds_it(short: dict, sentence: str) -> None:
    files = entries("cm.w8a8", **short) + entries("cm.fp16", **ran("our interpreter", update=47.9))
    assert recommendation(files)["ios"] == "cm.fp16"
    said = reasons(files)["ios"]
    assert said.startswith("coreml fp16: our interpreter ran it: SQNR of the update 47.9 dB, ")
    assert (
        "; Core ML alone reaches the Neural Engine; it goes before coreml w8a8: LiteRT 2.2.0 ran it: " in said
    )
    assert sentence in said


def test_the_users_budget_takes_the_place_of_ours() -> None:
    files = entries("lt.mine", **ran(drop=0.3)) + entries("lt.w8a8", **ran())
    assert recommendation(files)["host"] == "lt.w8a8"
    assert recommendation(files, BUDGET | {"psnr_drop_db": 0.5})["host"] == "lt.mine"
    assert recommendation(files, BUDGET | {"psnr_drop_db": 0.01})["host"] == "lt.mine"  # neither holds it


def test_a_reason_invents_no_figure() -> None:
    exact = ran(update=None)
    exact["quality"] |= {"psnr_drop_db_high": None, "lpips_rise": None, "lpips_rise_high": None}
    (said,) = {reasons(entries("cm.fp32", **exact))["ios"]}
    assert "LiteRT 2.2.0 ran it: SQNR of the update exact, PSNR drop 0.020 dB on 8 pairs" in said
    assert "LPIPS" not in said
    assert (
        "litert fp32: it was executed, its pictures were not judged; "
        in reasons(entries("lt.fp32", parity=RAN))["host"]
    )


def test_every_target_that_something_here_executes_is_for_a_class_of_device() -> None:
    executed = {name for name, target in TARGETS.items() if can_run("host", target.to_json())}
    advised = {target for advice in RECOMMENDED.values() for target in advice.targets}
    assert executed - advised == {"coreai"}  # of iOS 27, and no app opens it yet
