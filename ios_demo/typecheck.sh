#!/bin/bash
# Type-check Swift files of the app against the stubs.
#
#   typecheck.sh MODULES SOURCES…    MODULES: folder inside the repository for the built modules
set -euo pipefail

demo=$(cd "$(dirname "$0")" && pwd)
modules=$1
shift

emit() { # NAME SOURCES…: each module may import those before it
  local name=$1
  shift
  "$demo/swift.sh" swiftc -swift-version 5 -suppress-warnings -parse-as-library -emit-module -module-name "$name" \
    -I "$modules" -emit-module-path "$modules/$name.swiftmodule" "$@"
}

mkdir -p "$modules"
emit ElirCore "$demo"/ElirCore/Sources/ElirCore/*.swift
for name in Darwin os Combine CoreGraphics ImageIO UniformTypeIdentifiers Photos UIKit SwiftUI PhotosUI CoreML \
  Vision BackgroundTasks ExecuTorch; do
  emit "$name" "$demo/Stubs/$name.swift"
done
emit ElirApple "$demo"/ElirCore/Sources/ElirApple/*.swift
"$demo/swift.sh" swiftc -swift-version 5 -parse-as-library -typecheck -module-name ElirDemo -I "$modules" "$@"
