"""The runtimes, a row each: all that the rest of the package asks of one without opening a file.

A target is a runtime and the delegate that the operators of its files go to, and is called
``runtime/delegate``, or by the runtime alone where the delegate is the runtime's own. So a target's name
tells which runtime opens its files (:func:`get_runtime`). NumPy and the standard library are all that is
imported: a worker reads the table where nothing else is installed.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from elir_mobile.core.errors import UserError

# The Vulkan driver in software of Debian's Chromium, which has a Vulkan loader beside it.
SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")
EAGER = "eager"  # the float network in PyTorch, which has no file and so no row
NOBODY = "nobody"  # in place of the device, of a file that none at hand can run


@dataclass(frozen=True)
class Runtime:
    """What opens the files of some targets.

    Attributes:
        name: also the folder of its files in a bundle. A delegate that another library opens has a row of
            its own, called by both names.
        title: its name in sentences.
        module: has ``open_programs(path, threads, names) -> {name: Program}``, see
            :mod:`elir_mobile.runtimes.programs`.
        imports: modules that it needs to open a file.
        package: on PyPI, the one that runs the files.
        exporters: the further ones that write them.
        suffix: of its files.
        devices: kinds of device that can run them, see ``jobs.KINDS``.
        delegate: that of the target called by the runtime's name alone; None where the device divides the
            operators itself.
        stand_in: what runs the files on this machine in place of a phone's chip, and shows what they
            compute; of their speed it says nothing. Empty: the runtime itself.
        driver: a file of the system that the stand-in needs; None: none.
        set_up: the command that gets what the stand-in needs; empty: the packages are all.
    """

    name: str
    title: str
    module: str
    imports: tuple[str, ...]
    package: str
    exporters: tuple[str, ...]
    suffix: str
    devices: tuple[str, ...]
    delegate: str | None
    stand_in: str = ""
    driver: Path | None = None
    set_up: str = ""

    @property
    def extra(self) -> str:
        """The extra of this package that installs it: of a delegate in the runtime's own package, its."""
        runtime = RUNTIMES.get(self.name.partition("/")[0], self)
        return (runtime if runtime.package == self.package else self).name.replace("/", "-")

    @property
    def packages(self) -> tuple[str, ...]:
        """Every PyPI package of the extra."""
        return (self.package, *self.exporters)

    @property
    def lacking(self) -> list[str]:
        """What is missing here to make such files and run them: packages, or the driver."""
        known = installed_versions(self.packages)
        driverless = self.driver is not None and not self.driver.is_file()
        return [name for name in self.packages if name not in known] + [str(self.driver)] * driverless

    def check_complete(self) -> None:
        """Refuse to make files that could not be run here.

        Raises:
            UserError: something is missing; says how to get it.
        """
        if not (lacking := self.lacking):
            return
        ways = [self.set_up] if self.set_up else []
        if self.driver is None or lacking != [str(self.driver)]:
            ways.insert(0, f"pip install 'elir-mobile[{self.extra}]'")
        how = " or ".join(ways) if self.driver is None else " and ".join(ways)
        raise UserError(f"{self.name} files cannot be made and run here without {', '.join(lacking)}: {how}")

    @property
    def top_modules(self) -> list[str]:
        """The packages of ``imports``, without their parts."""
        return sorted({module.partition(".")[0] for module in self.imports})

    def load(self) -> None:
        """Import ``imports``.

        Raises:
            UserError: they are not installed; says how to.
        """
        try:
            with redirect_stderr(io.StringIO()):  # coremltools reports other packages' versions
                for module in self.imports:
                    import_module(module)
        except ImportError as error:
            raise UserError(
                f"{self.package} is not installed: pip install 'elir-mobile[{self.extra}]'"
            ) from error


RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        Runtime(
            "executorch",
            "ExecuTorch",
            module="elir_mobile.runtimes.executorch",
            imports=("torch", "executorch.runtime"),
            package="executorch",
            exporters=("torchao",),
            suffix=".pte",
            devices=("host", "arm64", "adb", "android", "ios"),
            delegate="xnnpack",
        ),
        Runtime(
            "litert",
            "LiteRT",
            module="elir_mobile.runtimes.litert",
            imports=("ai_edge_litert.interpreter",),
            package="ai-edge-litert",
            exporters=("litert-torch", "ai-edge-quantizer"),
            suffix=".tflite",
            devices=("host", "arm64", "adb", "android", "browser"),
            delegate="xnnpack",
        ),
        Runtime(
            "litert/gpu",
            "LiteRT on a GPU",
            module="elir_mobile.runtimes.litert_gpu",
            imports=("ai_edge_litert.compiled_model",),
            package="ai-edge-litert",
            exporters=("litert-torch", "ai-edge-quantizer"),
            suffix=".tflite",
            devices=("host", "android", "browser"),
            delegate=None,
            stand_in="SwiftShader (a GPU in software)",
            driver=SWIFTSHADER,
            set_up="make gpu",
        ),
        Runtime(
            "coreml",
            "Core ML",
            module="elir_mobile.runtimes.coreml",
            imports=("torch", "coremltools"),
            package="coremltools",
            exporters=(),
            suffix=".mlpackage",
            devices=("host", "ios"),
            delegate=None,
            stand_in="" if sys.platform == "darwin" else "our interpreter of Core ML programs",
        ),
        Runtime(
            "coreai",
            "Core AI",
            module="elir_mobile.runtimes.coreai",
            imports=("coreai.runtime", "coreai.authoring"),
            package="coreai-core",
            exporters=("coreai-torch",),
            suffix=".aimodel",
            devices=("host",),
            delegate=None,
            stand_in="" if sys.platform == "darwin" else "Apple's Core AI runtime for processors",
            set_up="make coreai",
        ),
        Runtime(
            "onnx",
            "ONNX Runtime",
            module="elir_mobile.runtimes.onnx",
            imports=("onnxruntime",),
            package="onnxruntime",
            exporters=("onnx", "torchao"),
            suffix="",
            devices=("host",),
            delegate=None,
        ),
        Runtime(
            "onnx/qnn",
            "QNN",
            module="elir_mobile.runtimes.qnn",
            imports=("onnxruntime", "onnxruntime_qnn"),
            package="onnxruntime-qnn",
            exporters=("onnxruntime", "onnx", "torchao"),
            suffix="",
            devices=("host",),
            delegate=None,
            stand_in="Qualcomm's emulator of the Hexagon NPU",
            set_up="make npu",
        ),
        Runtime(
            "litert/qnn",
            "LiteRT on an NPU",
            module="elir_mobile.runtimes.litert_qnn",
            imports=("ai_edge_litert.tools.flatbuffer_utils", "onnx", "onnxruntime", "onnxruntime_qnn"),
            package="onnxruntime-qnn",
            exporters=("ai-edge-litert", "litert-torch", "ai-edge-quantizer", "onnxruntime", "onnx"),
            suffix=".tflite",
            devices=("host",),
            delegate=None,
            stand_in="Qualcomm's emulator of the Hexagon NPU",
            set_up="make npu",
        ),
    )
}


def target_name(runtime: str, delegate: str | None) -> str:
    """What the target of ``delegate`` is called: by the runtime alone where the delegate is its own."""
    return runtime if delegate == RUNTIMES[runtime].delegate else f"{runtime}/{delegate}"


def canonical(target: str) -> str:
    """The name of ``target`` where its runtime's own delegate is given in full: ``executorch/xnnpack``."""
    runtime, _, delegate = target.partition("/")
    return target_name(runtime, delegate) if delegate and runtime in RUNTIMES else target


def runtime_name(target: str) -> str:
    """Name of the runtime that opens the files of ``target``."""
    return target if target in RUNTIMES else target.partition("/")[0]


def get_runtime(target: str) -> Runtime:
    """The runtime that opens the files of ``target``.

    Raises:
        UserError: there is none.
    """
    name = runtime_name(target)
    if name not in RUNTIMES:
        raise UserError(f"unknown target '{target}': choose from {', '.join(RUNTIMES)}")
    return RUNTIMES[name]


def can_run(kind: str, entry: dict) -> bool:
    """Whether a device of ``kind`` can run the file of a manifest's ``entry``; older ones name no devices."""
    runtime = RUNTIMES.get(runtime_name(entry["target"]))
    return kind in entry.get("devices", runtime.devices if runtime else ())


def not_executed(entry: dict) -> str:
    """What stands in the place of figures for a manifest's ``entry`` whose file nothing here runs."""
    return f"not executed here: it runs on {' and '.join(entry.get('devices', ())) or 'no known device'}"


def runtimes_on(kind: str) -> tuple[str, ...]:
    """Names of the runtimes whose files a device of ``kind`` can run."""
    return tuple(runtime.name for runtime in RUNTIMES.values() if kind in runtime.devices)


def file_stem(target: str, precision: str) -> str:
    """The start of the names of files made from the artifact of ``target`` at ``precision``."""
    return f"{target.replace('/', '-')}-{precision}"


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those of ``packages`` that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that shape an artifact, this one's among them."""
    packages = [package for runtime in RUNTIMES.values() for package in runtime.packages]
    return installed_versions(["elir-mobile", "torch", *packages])
