// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "ElirCore",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [
        .library(name: "ElirCore", targets: ["ElirCore"]),
        // Core ML, Vision and images of the system; empty where those are not.
        .library(name: "ElirApple", targets: ["ElirApple"]),
    ],
    targets: [
        .target(name: "ElirCore"),
        .target(name: "ElirApple", dependencies: ["ElirCore"]),
        .testTarget(name: "ElirCoreTests", dependencies: ["ElirCore"]),
    ]
)
