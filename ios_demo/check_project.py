"""Hold ``project.yml`` against the folder: ``python check_project.py FOLDER``.

XcodeGen runs on a Mac; here its paths, the usage texts that iOS demands, and the versions are checked.
"""

from __future__ import annotations

import json
import plistlib
import re
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
# What is asked of the system by name is permitted by that name.
work = re.search(r'identifierPart = "\.(\w+)\."', text)
permitted = f"$(PRODUCT_BUNDLE_IDENTIFIER).{work[1]}.*" if work else None
if permitted not in facts.get("BGTaskSchedulerPermittedIdentifiers", []):
    problems.append("BGTaskSchedulerPermittedIdentifiers lacks the identifiers of BackgroundWork.swift")
if "processing" not in facts.get("UIBackgroundModes", []):
    problems.append("UIBackgroundModes lacks processing, BackgroundWork.swift needs it")
documents = facts.get("CFBundleDocumentTypes", [])
types = [kind for entry in documents for kind in entry.get("LSItemContentTypes", [])]
if ("onOpenURL" in text) != ("public.image" in types):
    problems.append("CFBundleDocumentTypes and onOpenURL belong together")
# What Apple wants a reason for (its "required reason API"), and asks for at every upload.
with (folder / "App/Resources/PrivacyInfo.xcprivacy").open("rb") as stream:
    privacy = plistlib.load(stream)
declared = {entry["NSPrivacyAccessedAPIType"] for entry in privacy["NSPrivacyAccessedAPITypes"]}
all_text = text + "".join(path.read_text() for path in (folder / "ElirCore/Sources").rglob("*.swift"))
reasons = {
    "SystemBootTime": r"systemUptime|mach_absolute_time",
    "UserDefaults": r"UserDefaults|AppStorage",
    "DiskSpace": r"volumeAvailableCapacity|systemFreeSize|statfs",
    "FileTimestamp": r"creationDate|modificationDate|ModificationDate|\bstat\(|fstat\(",
}
used = {f"NSPrivacyAccessedAPICategory{name}" for name, api in reasons.items() if re.search(api, all_text)}
if used != declared:
    problems.append(f"PrivacyInfo.xcprivacy declares {sorted(declared)}, the app uses {sorted(used)}")
icons = (
    folder
    / "App/Resources/Assets.xcassets"
    / f"{target['settings']['base']['ASSETCATALOG_COMPILER_APPICON_NAME']}.appiconset"
)
for image in json.loads((icons / "Contents.json").read_text())["images"]:
    header = (icons / image["filename"]).read_bytes()[:26]
    # PNG: width and height, then bits and the kind of colours; an icon may have no transparency.
    if header[16:24] != (1024).to_bytes(4, "big") * 2 or header[25] not in (2, 3):
        problems.append(f"{image['filename']} is not 1024x1024 pixels without transparency")
version = facts.get("ElirExecuTorchVersion")
if project["packages"]["executorch"]["branch"] != f"swiftpm-{version}":
    problems.append("ElirExecuTorchVersion is not the package's")
if f"executorch=={version}" not in (folder.parent / "pyproject.toml").read_text():
    problems.append(f"pyproject.toml pins another ExecuTorch than {version}")
if "ElirExecuTorchVersion" not in text:
    problems.append("the app does not read ElirExecuTorchVersion")
print("\n".join(problems) or "as it should be")
sys.exit(bool(problems))
