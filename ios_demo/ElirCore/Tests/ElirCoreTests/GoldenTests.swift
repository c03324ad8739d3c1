/// The core computes what the Python package computes, on the golden files.

import ElirCore
import XCTest

final class GoldenTests: XCTestCase {
    private let accuracy: Float = 1e-6

    func testNoiseIsPyTorchs() throws {
        let cases = try Fixtures.index().noise
        XCTAssertFalse(cases.isEmpty)
        for entry in cases {
            let expected = try Index.Array(path: entry.path, shape: entry.shape).floats()
            let seed = try XCTUnwrap(Int64(entry.seed))
            assertEqual(
                seededNoise(count: expected.count, seed: seed), expected, accuracy: accuracy, entry.path)
        }
    }

    func testTwisterIsTheReferences() {
        var twister = MersenneTwister(seed: 5489)  // the default seed of mt19937ar; C++ names its 10000th number
        for _ in 1..<10000 { _ = twister.bits() }
        XCTAssertEqual(twister.bits(), 4_123_659_995)
    }

    func testWindows() throws {
        for entry in try Fixtures.index().windows {
            let windows = axisWindows(length: entry.length, tile: entry.tile, overlap: entry.overlap)
            XCTAssertEqual(windows.map(\.start), entry.starts)
            XCTAssertEqual(windows.last?.stop, entry.length)
            assertEqual(windows.flatMap(\.weights), try entry.weights.floats(), accuracy: accuracy)
        }
    }

    func testOrientations() throws {
        let orientation = try Fixtures.index().orientation
        let input = try orientation.input.picture()
        XCTAssertEqual(orientation.upright.map(\.orientation), Array(1...8))
        for entry in orientation.upright {
            let expected = try Index.Array(path: entry.path, shape: entry.shape).picture()
            XCTAssertEqual(input.upright(orientation: entry.orientation), expected, entry.path)
        }
        XCTAssertEqual(input.upright(orientation: 9), input)
    }

    func testResizingIsPillows() throws {
        let resize = try Fixtures.index().resize
        let input = try resize.input.picture()
        for entry in resize.enlarged {
            let filter = try XCTUnwrap(ResampleFilter(rawValue: entry.filter))
            let expected = try Index.Array(path: entry.path, shape: entry.shape).picture()
            XCTAssertEqual(input.enlarged(factor: entry.factor, filter: filter), expected, entry.path)
        }
        for entry in resize.squares {
            let expected = try Index.Array(path: entry.path, shape: entry.shape).picture()
            XCTAssertEqual(input.square(side: entry.side), expected, entry.path)
        }
        XCTAssertEqual(input.enlarged(factor: 1, filter: .bicubic), input)
    }

    func testTheLoop() throws {
        let bundle = try Fixtures.bundle()
        for entry in try Fixtures.index().loop {
            let artifact = try XCTUnwrap(bundle.artifacts.first { $0.path == entry.path })
            let found = try sample(
                StubPrograms(bundle, artifact), image: bundle.golden(.input), noise: bundle.golden(.noise),
                rows: bundle.table, sigmaS: bundle.sigmaS)
            assertEqual(found.coarse, try entry.coarse.floats(), accuracy: accuracy)
            assertEqual(found.trajectory.flatMap { $0 }, try entry.trajectory.floats(), accuracy: accuracy)
            assertEqual(found.image, try entry.image.floats(), accuracy: accuracy)
        }
    }

    func testPicturesOfAnySize() throws {
        let bundle = try Fixtures.bundle()
        let artifact = try XCTUnwrap(bundle.artifacts.first { $0.path == "stub/fp32.stub" })
        let restorer = Restorer(
            bundle: bundle, programs: try StubPrograms(bundle, artifact), steps: bundle.steps,
            wishes: Wishes(keepsColors: false))
        for entry in try Fixtures.index().restore {
            let input = try entry.input.picture()
            XCTAssertEqual(TileGrid(input, size: bundle.size).tiles, entry.tiles)
            var blended: [Float] = []
            try restorer.blend(input, seed: entry.seed, progress: { _, _ in }) { top, band in
                XCTAssertEqual(top * entry.blended.shape[1] * colours, blended.count)
                blended += band
            }
            assertEqual(blended, try entry.blended.floats(), accuracy: accuracy, entry.input.path)
            XCTAssertEqual(try restorer.restore(input, seed: entry.seed), try entry.output.picture())
        }
    }

    func testFidelity() throws {
        for entry in try Fixtures.index().fidelity {
            let (reference, out) = (try entry.reference.floats(), try entry.out.floats())
            XCTAssertEqual(psnrDB(reference: reference, out: out), entry.psnr_db ?? .infinity, accuracy: 1e-4)
            XCTAssertEqual(sqnrDB(reference: reference, out: out), entry.sqnr_db ?? .infinity, accuracy: 1e-4)
        }
    }

    func testPercentilesAreNumPys() throws {
        for entry in try Fixtures.index().percentiles {
            let latency = Latency(entry.runs_ms)
            XCTAssertEqual(latency.median, entry.median, accuracy: 1e-9)
            XCTAssertEqual(latency.p90, entry.p90, accuracy: 1e-9)
        }
    }

    func testParityOfTheStubsIsTheHosts() throws {
        let bundle = try Fixtures.bundle()
        for artifact in bundle.artifacts where artifact.target == "stub" {
            var calls = 0
            let parity = try Parity(
                bundle: bundle, artifact: artifact, programs: StubPrograms(bundle, artifact)
            ) { calls += 1 }
            XCTAssertEqual(calls, Parity.calls(bundle))
            XCTAssertEqual(parity.checks.map(\.output), Output.allCases)
            for check in parity.checks {
                XCTAssertTrue(check.holds, "\(artifact.path) \(check)")
                // Float32 sums in another order: far below the last bits, decibels say nothing.
                if let host = check.budget.hostDB, host < 100 {
                    XCTAssertEqual(check.decibels, host, accuracy: 1e-3, "\(artifact.path) \(check.output)")
                }
            }
        }
    }
}
