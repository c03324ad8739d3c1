/// What the golden files do not show: steps cut short, cancelling, failures, memory.

import ElirCore
import XCTest

/// Programs that do as they are told.
private final class FakePrograms: Programs {
    var calls: [String] = []
    var image: Float = 0.5
    var latentCount: Int

    init(_ bundle: ModelBundle) { latentCount = bundle.latentShape.reduce(1, *) }

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
        let programs = FakePrograms(bundle)
        let input = try bundle.goldenPicture(.input)
        _ = try Restorer(bundle: bundle, programs: programs, steps: 2).restore(input, seed: 0)
        XCTAssertEqual(programs.calls, ["encode"] + bundle.table.prefix(2).map { "step \($0[0])" } + ["decode"])
        programs.calls = []
        _ = try Restorer(bundle: bundle, programs: programs, steps: 0).restore(input, seed: 0)
        XCTAssertEqual(programs.calls, ["encode", "decode"])
    }

    func testProgressCountsEveryCallAndCanCancel() throws {
        let bundle = try Fixtures.bundle()
        let programs = FakePrograms(bundle)
        let restorer = Restorer(bundle: bundle, programs: programs, steps: bundle.steps)
        var told: [Int] = []
        var total = 0
        _ = try restorer.restore(black, seed: 0) { done, all in
            told.append(done)
            total = all
        }
        XCTAssertEqual(told, Array(1...TileGrid(black, size: bundle.size).tiles * (bundle.steps + 2)))
        XCTAssertEqual(told.last, total)
        programs.calls = []
        XCTAssertThrowsError(
            try restorer.restore(black, seed: 0) { done, _ in if done == 3 { throw CancellationError() } }
        ) { XCTAssertTrue($0 is CancellationError) }
        XCTAssertEqual(programs.calls.count, 3)
    }

    func testValuesThatAreNoNumbersAreAnErrorAndOthersAreClipped() throws {
        let bundle = try Fixtures.bundle()
        let programs = FakePrograms(bundle)
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
            memoryOfModel(bundle, artifact) + memoryOfPicture(bundle, width: 4000, height: 3000)
        // Input and output of 36 MB each, noise of 3 MB, and what a band of tiles takes.
        XCTAssertGreaterThan(memoryOfPicture(bundle, width: 4000, height: 3000), 75_000_000)
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
        let choices = Choices(try Fixtures.bundle(), targets: ["stub", "coreml"], kind: "ios")
        XCTAssertEqual(choices.targets, ["stub", "coreml"])
        XCTAssertEqual(choices.precisions(of: "stub"), ["fp32", "w8a8"])
        XCTAssertEqual(choices.steps, 0...3)
        let wished = choices.nearest(target: "stub", precision: "w8a8", steps: 2)
        XCTAssertEqual(wished?.artifact.path, "stub/w8a8.stub")
        XCTAssertEqual(wished?.steps, 2)
        let other = choices.nearest(target: "coreml", precision: "w8a8", steps: 9)
        XCTAssertEqual(other?.artifact.path, "coreml/tiny.mlpackage")
        XCTAssertEqual(other?.steps, 3)
        XCTAssertEqual(choices.nearest(target: "stub", precision: "w4", steps: 1)?.artifact.path, "stub/fp32.stub")
        // Without a wish the recommended file; where the app cannot run that one, the first that it can.
        XCTAssertEqual(choices.nearest(target: nil, precision: nil, steps: nil)?.artifact.path, "stub/w8a8.stub")
        let without = Choices(try Fixtures.bundle(), targets: ["coreml"], kind: "ios")
        XCTAssertEqual(
            without.nearest(target: nil, precision: nil, steps: nil)?.artifact.path, "coreml/tiny.mlpackage")
        let none = Choices(try Fixtures.bundle(), targets: [], kind: "ios")
        XCTAssertNil(none.nearest(target: "stub", precision: "fp32", steps: 1))
    }
}

final class PreparationTests: XCTestCase {
    private func photograph(_ width: Int, _ height: Int) -> Picture {
        Picture(width: width, height: height, pixels: Array(repeating: 7, count: width * height * colours))
    }

    func testASquareIsOneTileAndTheWholeKeepsItsSize() throws {
        let bundle = try Fixtures.bundle()
        let square = try photograph(200, 90).prepared(for: bundle, framing: .square)
        XCTAssertEqual([square.width, square.height], [bundle.size, bundle.size])
        let whole = try photograph(200, 90).prepared(for: bundle, framing: .whole)
        XCTAssertEqual([whole.width, whole.height], [200, 90])
    }

    func testAPictureThatWouldGetTooLargeIsRefused() throws {
        let bundle = try ModelBundle(folder: Fixtures.url("tasks/bsr"))
        XCTAssertThrowsError(try photograph(4000, 3000).prepared(for: bundle, framing: .whole)) { error in
            XCTAssertEqual((error as? ElirError)?.fault, .memory)
        }
        XCTAssertNoThrow(try photograph(4000, 3000).prepared(for: bundle, framing: .square))
    }

    func testAPictureThatIsTooSmallIsRefused() throws {
        let bundle = try Fixtures.bundle()
        XCTAssertThrowsError(try photograph(31, 200).prepared(for: bundle, framing: .square)) { error in
            XCTAssertEqual((error as? ElirError)?.fault, .input)
        }
    }

    func testTheDevicesNoiseIsTheGoldenOne() throws {
        XCTAssertLessThanOrEqual(try noiseDifference(Fixtures.bundle()), 1e-6)
    }

    func testBothLayoutsOfACoreMLArtifactAreFound() throws {
        let bundle = try Fixtures.bundle()
        let package = bundle.url(of: bundle.artifacts[0])
        XCTAssertEqual(try CoreMLPackages(at: package), .functions(package))
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        defer { try? FileManager.default.removeItem(at: folder) }
        for program in ["encode", "step"] {
            let place = folder.appendingPathComponent("\(program).mlpackage")
            try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
        }
        XCTAssertThrowsError(try CoreMLPackages(at: folder)) { error in
            XCTAssertTrue(error.localizedDescription.contains("decode.mlpackage"), error.localizedDescription)
        }
        let decode = folder.appendingPathComponent("decode.mlpackage")
        try FileManager.default.createDirectory(at: decode, withIntermediateDirectories: true)
        guard case .folder(let found) = try CoreMLPackages(at: folder) else { return XCTFail("one package") }
        XCTAssertEqual(Set(found.keys), Set(CoreMLPackages.programs))
    }

    func testAPictureIsReducedUntilHalfOfTheMemoryHoldsIt() {
        func side(_ available: Int) -> Int {
            largestSide(width: 8000, height: 6000, bytesPerPixel: 14, available: available)
        }
        XCTAssertEqual(side(2_000_000_000), 8000)
        for available in [100_000_000, 500_000_000] {
            let width = side(available)
            XCTAssertLessThanOrEqual(width * width * 3 / 4 * 14, available / 2)
            XCTAssertGreaterThan((width + 2) * (width + 2) * 3 / 4 * 14, available / 2)
        }
        XCTAssertEqual(side(0), 1)
    }

    func testAPhotographIsRestoredAsItsBundleIsMeantTo() throws {
        let index = try Fixtures.index()
        let scene = try XCTUnwrap(index.faces.first { $0.faces.count == 2 })
        let photo = try scene.photo.picture()
        func restorer(_ name: String) throws -> Restorer {
            let bundle = try ModelBundle(folder: Fixtures.url("tasks/\(name)"))
            return Restorer(
                bundle: bundle, programs: try StubPrograms(bundle, bundle.artifacts[1]), steps: bundle.steps)
        }
        // Any photograph is enlarged as the task says.
        let small = try index.photo.picture()
        let fog = try restorer("dehazing").restore(
            small, seed: 0,
            findFaces: { _ in
                XCTFail("asked"); return []
            }
        ) { _, _ in }
        XCTAssertEqual([fog.width, fog.height], [2 * small.width, 2 * small.height])
        // The faces of one, and nothing where there is none.
        let faces = scene.faces.map { Face(points: $0.points.map { Point($0[0], $0[1]) }) }
        var told: [Int] = []
        let bfr = try restorer("bfr")
        let restored = try bfr.restore(photo, seed: 0, findFaces: { _ in faces }) { done, total in
            told.append(done)
            XCTAssertEqual(total, 2 * (bfr.steps + 2))
        }
        XCTAssertEqual(told, Array(1...2 * (bfr.steps + 2)))
        XCTAssertNotEqual(restored, photo)
        XCTAssertEqual(try bfr.restore(photo, seed: 0, findFaces: { _ in [] }, progress: { _, _ in }), photo)
        // Other networks of faces take a face alone.
        let inpainting = try restorer("inpainting")
        XCTAssertThrowsError(try inpainting.restore(photo, seed: 0, findFaces: { _ in faces }, progress: { _, _ in })) {
            XCTAssertTrue(($0 as? ElirError)?.message.contains("one upright face that fills 64×64") == true, "\($0)")
        }
        let square = photo.square(side: 64)
        XCTAssertEqual(
            try inpainting.restore(square, seed: 0, findFaces: { _ in faces }, progress: { _, _ in }).width, 64)
    }
}
