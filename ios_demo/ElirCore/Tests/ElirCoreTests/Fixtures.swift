/// Reading the golden files that `python -m tests.app_fixtures FOLDER` writes, and their stub runtime.

import ElirCore
import Foundation
import XCTest

/// The folder that `ELIR_FIXTURES` names.
enum Fixtures {
    static func folder() throws -> URL {
        guard let path = ProcessInfo.processInfo.environment["ELIR_FIXTURES"] else {
            throw XCTSkip("ELIR_FIXTURES names no folder: write one with python -m tests.app_fixtures FOLDER")
        }
        return URL(fileURLWithPath: path)
    }

    static func index() throws -> Index {
        try JSONDecoder().decode(Index.self, from: Data(contentsOf: folder().appendingPathComponent("index.json")))
    }

    static func bundle() throws -> ModelBundle {
        try ModelBundle(folder: folder().appendingPathComponent(index().bundle))
    }

    static func url(_ path: String) throws -> URL { try folder().appendingPathComponent(path) }
}

struct Index: Decodable {
    struct Damaged: Decodable {
        let path: String
        let fault: String
    }
    struct Task: Decodable {
        let path: String
        let task: String
        let title: String
        let domain: String?
        let upscale: Int
        let enlarge: String
        let recommended: String?
        let reason: String?
        let detector: Bool
        let keep_colors: Bool
        let keep_grey: Bool
        let square: Array
        let whole: Array
    }
    struct Noise: Decodable {
        let seed: String
        let path: String
        let shape: [Int]
    }
    struct Windows: Decodable {
        let length: Int
        let tile: Int
        let overlap: Int
        let starts: [Int]
        let weights: Array
    }
    struct Orientation: Decodable {
        struct Upright: Decodable {
            let orientation: Int
            let path: String
            let shape: [Int]
        }
        let input: Array
        let upright: [Upright]
    }
    struct Resize: Decodable {
        struct Enlarged: Decodable {
            let filter: String
            let factor: Int
            let path: String
            let shape: [Int]
        }
        struct Square: Decodable {
            let side: Int
            let path: String
            let shape: [Int]
        }
        let input: Array
        let enlarged: [Enlarged]
        let squares: [Square]
    }
    struct Loop: Decodable {
        let path: String
        let coarse: Array
        let trajectory: Array
        let image: Array
    }
    struct Restore: Decodable {
        let seed: Int64
        let tiles: Int
        let input: Array
        let blended: Array
        let output: Array
    }
    struct Finished: Decodable {
        let seed: Int64
        let fidelity: Float
        let keep_colors: Bool
        let keep_grey: Bool
        let input: Array
        let output: Array
    }
    struct Colors: Decodable {
        let given: Array
        let restored: Array
        let expected: Array
    }
    struct Fidelity: Decodable {
        let reference: Array
        let out: Array
        let psnr_db: Double?
        let sqnr_db: Double?
    }
    struct Percentiles: Decodable {
        let runs_ms: [Double]
        let median: Double
        let p90: Double
    }
    struct Photograph: Decodable {
        struct Face: Decodable {
            let points: [[Double]]
            let matrix: [[Double]]
            let side: Double
            let given: Array
            let made: Array
            let detail: Double
            let agreement: Double
            let restored: Bool
        }
        struct Background: Decodable {
            let canvas: Array
            let output: Array
        }
        let photo: Array
        let square: Int
        let all_faces: Bool
        let margin: Double
        let faces: [Face]
        let output: Array
        let background: Background?
    }
    /// A raw little-endian array.
    struct Array: Decodable {
        let path: String
        let shape: [Int]

        func floats() throws -> [Float] {
            let values = ElirCore.floats(littleEndian: try Data(contentsOf: Fixtures.url(path)))
            XCTAssertEqual(values.count, shape.reduce(1, *), path)
            return values
        }

        func picture() throws -> Picture {
            let pixels = [UInt8](try Data(contentsOf: Fixtures.url(path)))
            return Picture(width: shape[1], height: shape[0], pixels: pixels)
        }
    }

    let bundle: String
    let job: String
    let damaged: [Damaged]
    let photo: Array
    let tasks: [Task]
    let latent_shape: [Int]
    let noise: [Noise]
    let windows: [Windows]
    let orientation: Orientation
    let resize: Resize
    let loop: [Loop]
    let restore: [Restore]
    let finished: [Finished]
    let colors: [Colors]
    let fidelity: [Fidelity]
    let percentiles: [Percentiles]
    /// Whether each of EXIF's tags of the first directory is kept.
    let tags: [String: Bool]
    let faces: [Photograph]
}

/// The arithmetic behind a `.stub` file, as `tests/app_fixtures.py:stub_runner` describes it.
final class StubPrograms: Programs {
    private struct Coefficients: Decodable {
        let a: Float
        let b: Float
    }
    private let coefficients: Coefficients
    private let steps: Float
    private let channels: Int
    private let side: Int  // of the latent

    init(_ bundle: ModelBundle, _ artifact: Artifact) throws {
        coefficients = try JSONDecoder().decode(Coefficients.self, from: Data(contentsOf: bundle.url(of: artifact)))
        steps = Float(bundle.steps)
        channels = bundle.latentShape[0]
        side = bundle.latentShape[2]
    }

    func encode(_ image: [Float]) throws -> [Float] {
        let width = side * downscale
        return (0..<channels).flatMap { c -> [Float] in
            (0..<side * side).map { at -> Float in
                var sum: Float = 0
                for y in 0..<downscale {
                    for x in 0..<downscale {
                        let row = (c % 3 * width + at / side * downscale + y) * width
                        sum += image[row + at % side * downscale + x]
                    }
                }
                return sum / Float(downscale * downscale) * (1 - Float(c) / 32)
            }
        }
    }

    func step(_ latent: [Float], row: [Float]) throws -> [Float] {
        latent.enumerated().map { at, z in
            z + (coefficients.a * z + coefficients.b * row[at / (side * side)]) / steps
        }
    }

    func decode(_ latent: [Float]) throws -> [Float] {
        let width = side * downscale
        return (0..<colours * width * width).map { at in
            let (c, y, x) = (at / (width * width), at / width % width, at % width)
            return min(max(latent[(c * side + y / downscale) * side + x / downscale], 0), 1)
        }
    }
}

/// Every byte within 1, and hardly any another one.
func assertNear(
    _ picture: Picture, _ expected: Picture, _ message: String, file: StaticString = #filePath, line: UInt = #line
) {
    XCTAssertEqual(
        [picture.width, picture.height], [expected.width, expected.height], message, file: file, line: line)
    let apart = zip(picture.pixels, expected.pixels).map { abs(Int($0) - Int($1)) }
    XCTAssertLessThanOrEqual(apart.max() ?? 0, 1, message, file: file, line: line)
    XCTAssertLessThanOrEqual(apart.filter { $0 > 0 }.count, apart.count / 1000, message, file: file, line: line)
}

func assertEqual(
    _ values: [Float], _ expected: [Float], accuracy: Float, _ message: String = "", file: StaticString = #filePath,
    line: UInt = #line
) {
    XCTAssertEqual(values.count, expected.count, message, file: file, line: line)
    let worst = zip(values, expected).map { abs($0 - $1) }.max() ?? .nan
    XCTAssertLessThanOrEqual(worst, accuracy, message, file: file, line: line)
}
