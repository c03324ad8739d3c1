// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "ElirCore",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [.library(name: "ElirCore", targets: ["ElirCore"])],
    targets: [
        .target(name: "ElirCore"),
        .testTarget(name: "ElirCoreTests", dependencies: ["ElirCore"]),
    ]
)
