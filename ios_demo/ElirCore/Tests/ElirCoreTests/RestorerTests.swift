/// What the golden files do not show: steps cut short, cancelling, failures, memory.

import ElirCore
import XCTest

/// Programs that do as they are told.
private final class FakePrograms: Programs {
    var calls: [String] = []
    var image: Float = 0.5
    var latentCount = latentChannels * 64

    func encode(_ image: [Float]) throws -> [Float] {
        calls.append("encode")
        return Array(repeating: 0, count: latentCount)
    }

    func step(_ latent: [Float], row: [Float]) throws -> [Float] {
        calls.append("step \(row[0])")
        return latent
    }

    func decode(_ latent: [Float]) throws -> [Float] {
        calls.append("decode")
        return Array(repeating: image, count: colours * 64 * 64)
    }
}

final class RestorerTests: XCTestCase {
    private let black = Picture(width: 100, height: 40, pixels: Array(repeating: 0, count: 100 * 40 * 3))

    func testFewerStepsTakeTheFirstRows() throws {
        let bundle = try Fixtures.bundle()
        let programs = FakePrograms()
        let input = try bundle.goldenPicture(.input)
        _ = try Restorer(bundle: bundle, programs: programs, steps: 2).restore(input, seed: 0)
        XCTAssertEqual(programs.calls, ["encode"] + bundle.table.prefix(2).map { "step \($0[0])" } + ["decode"])
        programs.calls = []
        _ = try Restorer(bundle: bundle, programs: programs, steps: 0).restore(input, seed: 0)
        XCTAssertEqual(programs.calls, ["encode", "decode"])
    }

    func testProgressCountsEveryCallAndCanCancel() throws {
        let bundle = try Fixtures.bundle()
        let programs = FakePrograms()
        let restorer = Restorer(bundle: bundle, programs: programs, steps: bundle.steps)
        var told: [Int] = []
        var total = 0
        _ = try restorer.restore(black, seed: 0) { done, all in
            told.append(done)
            total = all
        }
        XCTAssertEqual(told, Array(1...Grid(black, size: bundle.size).tiles * (bundle.steps + 2)))
        XCTAssertEqual(told.last, total)
        programs.calls = []
        XCTAssertThrowsError(
            try restorer.restore(black, seed: 0) { done, _ in if done == 3 { throw CancellationError() } }
        ) { XCTAssertTrue($0 is CancellationError) }
        XCTAssertEqual(programs.calls.count, 3)
    }

    func testValuesThatAreNoNumbersAreAnErrorAndOthersAreClipped() throws {
        let bundle = try Fixtures.bundle()
        let programs = FakePrograms()
        let restorer = Restorer(bundle: bundle, programs: programs, steps: 1)
        programs.image = 7
        XCTAssertEqual(try restorer.restore(black, seed: 0).pixels.min(), 255)
        programs.image = -1
        XCTAssertEqual(try restorer.restore(black, seed: 0).pixels.max(), 0)
        programs.image = .nan
        XCTAssertThrowsError(try restorer.restore(black, seed: 0)) { error in
            XCTAssertEqual((error as? ElirError)?.fault, .runtime)
        }
        programs.image = 0
        programs.latentCount = 5
        XCTAssertThrowsError(try restorer.restore(black, seed: 0)) { error in
            XCTAssertEqual((error as? ElirError)?.fault, .runtime)
        }
    }

    func testNotEnoughMemoryIsSaidBeforehand() throws {
        let bundle = try Fixtures.bundle()
        let artifact = bundle.artifacts[1]
        let needed =
            memoryOfModel(bundle, artifact) + memoryOfPicture(width: 4000, height: 3000, size: bundle.size)
        // Input and output of 36 MB each, noise of 12 MB, and what a band of tiles takes.
        XCTAssertGreaterThan(memoryOfPicture(width: 4000, height: 3000, size: bundle.size), 84_000_000)
        XCTAssertNoThrow(
            try checkMemory(available: needed, bundle: bundle, artifact: artifact, width: 4000, height: 3000))
        XCTAssertThrowsError(
            try checkMemory(available: needed - 1, bundle: bundle, artifact: artifact, width: 4000, height: 3000)
        ) { error in
            XCTAssertEqual((error as? ElirError)?.fault, .memory)
            XCTAssertTrue(error.localizedDescription.contains("MB"), error.localizedDescription)
        }
    }

    func testChoicesStayWithinTheBundle() throws {
        let choices = Choices(try Fixtures.bundle(), targets: ["stub", "coreml"])
        XCTAssertEqual(choices.targets, ["stub", "coreml"])
        XCTAssertEqual(choices.precisions(of: "stub"), ["fp32", "w8a8"])
        XCTAssertEqual(choices.steps, 0...3)
        let wished = choices.nearest(target: "stub", precision: "w8a8", steps: 2)
        XCTAssertEqual(wished?.artifact.path, "stub/w8a8.stub")
        XCTAssertEqual(wished?.steps, 2)
        let other = choices.nearest(target: "coreml", precision: "w8a8", steps: 9)
        XCTAssertEqual(other?.artifact.path, "coreml/tiny.mlpackage")
        XCTAssertEqual(other?.steps, 3)
        XCTAssertEqual(choices.nearest(target: nil, precision: nil, steps: nil)?.artifact.path, "stub/fp32.stub")
        XCTAssertNil(
            Choices(try Fixtures.bundle(), targets: []).nearest(target: "stub", precision: "fp32", steps: 1))
    }
}
