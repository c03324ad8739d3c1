"""Hold ``project.yml`` against the folder: ``python check_project.py FOLDER``.

XcodeGen runs on a Mac; here its paths, the usage texts that iOS demands, and the versions are checked.
"""

from __future__ import annotations

import sys
from pathlib import Path

try:
    import yaml
except ImportError:
    print("PyYAML is not installed: pip install 'elir-mobile[dev]'")
    sys.exit(3)

folder = Path(sys.argv[1])
project = yaml.safe_load((folder / "project.yml").read_text())
target = project["targets"]["ElirDemo"]
problems = [
    f"{source['path']} does not exist"
    for source in target["sources"]
    if not (folder / source["path"]).is_dir()
]
for package in project["packages"].values():
    if "path" in package and not (folder / package["path"] / "Package.swift").is_file():
        problems.append(f"{package['path']} is no Swift package")
problems += [
    f"{entry['package']} is not among the packages"
    for entry in target["dependencies"]
    if "package" in entry and entry["package"] not in project["packages"]
]
facts = target["info"]["properties"]
text = "".join(path.read_text() for path in (folder / "App" / "Sources").rglob("*.swift"))
usages = {
    "UIImagePickerController": "NSCameraUsageDescription",
    "PHPhotoLibrary": "NSPhotoLibraryAddUsageDescription",
}
problems += [
    f"{key} is missing, {used} needs it"
    for used, key in usages.items()
    if used in text and not facts.get(key)
]
version = facts["ElirExecuTorchVersion"]
if project["packages"]["executorch"]["branch"] != f"swiftpm-{version}":
    problems.append("ElirExecuTorchVersion is not the package's")
if f"executorch=={version}" not in (folder.parent / "pyproject.toml").read_text():
    problems.append(f"pyproject.toml pins another ExecuTorch than {version}")
if "ElirExecuTorchVersion" not in text:
    problems.append("the app does not read ElirExecuTorchVersion")
print("\n".join(problems) or "as it should be")
sys.exit(bool(problems))
