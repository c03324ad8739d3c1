/// Bundles are read with suspicion.

import ElirCore
import XCTest

final class BundleTests: XCTestCase {
    func testAWholeBundleIsRead() throws {
        var told: [Int] = []
        let bundle = try ModelBundle(folder: Fixtures.url(Fixtures.index().bundle)) { done, total in
            told.append(done)
            XCTAssertLessThanOrEqual(done, total)
        }
        XCTAssertEqual(told, told.sorted())
        XCTAssertGreaterThan(told.last ?? 0, 0)
        XCTAssertEqual(bundle.table.count, bundle.steps)
        XCTAssertEqual(bundle.table[1][0], sin(Float(bundle.table[0].count)), accuracy: 1e-6)
        XCTAssertEqual(bundle.artifacts.map(\.target), ["coreml", "stub", "stub"])
        XCTAssertTrue(bundle.hasGolden)
        XCTAssertEqual(bundle.task.name, "bfr")
        XCTAssertEqual(bundle.latentShape, try Fixtures.index().latent_shape)
        assertEqual(
            seededNoise(count: bundle.latentShape.reduce(1, *), seed: 0), try bundle.golden(.noise), accuracy: 1e-6)
        XCTAssertEqual(try bundle.golden(.input), try bundle.goldenPicture(.input).tile(Square(0, 0, bundle.size)))
    }

    func testTheManifestSaysAllOfTheTaskAndWhichFileToRun() throws {
        let index = try Fixtures.index()
        XCTAssertGreaterThanOrEqual(index.tasks.count, 8)
        let photo = try index.photo.picture()
        for entry in index.tasks {
            let bundle = try ModelBundle(folder: Fixtures.url(entry.path))
            XCTAssertEqual(bundle.task.name, entry.task)
            XCTAssertEqual(bundle.task.title, entry.title)
            XCTAssertEqual(bundle.task.domain, entry.domain)
            XCTAssertEqual(bundle.task.upscale, entry.upscale)
            XCTAssertEqual(bundle.task.enlarge.rawValue, entry.enlarge)
            XCTAssertEqual(bundle.recommended(for: "ios")?.path, entry.recommended, entry.path)
            XCTAssertEqual(bundle.reason(for: "ios"), entry.reason, entry.path)
            XCTAssertEqual(bundle.findsFaces, entry.detector, entry.path)
            XCTAssertEqual(try photo.prepared(for: bundle, framing: .square), try entry.square.picture(), entry.path)
            XCTAssertEqual(try photo.prepared(for: bundle, framing: .whole), try entry.whole.picture(), entry.path)
        }
    }

    func testEveryFaultIsNamed() throws {
        let faults: [String: ElirError.Fault] = [
            "missing": .missing, "damaged": .damaged, "too new": .tooNew, "outside": .outside,
        ]
        let cases = try Fixtures.index().damaged
        XCTAssertFalse(cases.isEmpty)
        for entry in cases {
            XCTAssertThrowsError(try ModelBundle(folder: Fixtures.url(entry.path)), entry.path) { error in
                XCTAssertEqual((error as? ElirError)?.fault, faults[entry.fault], "\(entry.path): \(error)")
            }
        }
    }

    func testADetectorThatWasChangedIsRefused() throws {
        let whole = try XCTUnwrap(Fixtures.index().tasks.first(where: \.detector))
        let copy = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        defer { try? FileManager.default.removeItem(at: copy) }
        try FileManager.default.copyItem(at: Fixtures.url(whole.path), to: copy)
        try Data("another".utf8).write(to: copy.appendingPathComponent("detector/mesh.tflite"))
        XCTAssertThrowsError(try ModelBundle(folder: copy)) { error in
            XCTAssertEqual((error as? ElirError)?.fault, .damaged, "\(error)")
        }
    }

    func testALinkThatLeavesTheBundleIsRefused() throws {
        let copy = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        defer { try? FileManager.default.removeItem(at: copy) }
        try FileManager.default.copyItem(at: Fixtures.url(Fixtures.index().bundle), to: copy)
        let stub = copy.appendingPathComponent("stub/fp32.stub")
        let elsewhere = try Fixtures.url(Fixtures.index().bundle).appendingPathComponent("stub/fp32.stub")
        try FileManager.default.removeItem(at: stub)
        try FileManager.default.createSymbolicLink(at: stub, withDestinationURL: elsewhere)
        XCTAssertThrowsError(try ModelBundle(folder: copy)) { error in
            XCTAssertEqual((error as? ElirError)?.fault, .outside, "\(error)")
        }
    }

    func testBundlesAreFoundByTheirManifest() throws {
        let found = ModelBundle.folders(in: try Fixtures.folder()).map(\.lastPathComponent)
        XCTAssertEqual(found, ["bundle"])
        XCTAssertEqual(ModelBundle.folders(in: URL(fileURLWithPath: "/nowhere")), [])
    }

    func testVerifyingCanBeCancelled() throws {
        XCTAssertThrowsError(
            try ModelBundle(folder: Fixtures.url(Fixtures.index().bundle)) { _, _ in throw CancellationError() }
        ) { XCTAssertTrue($0 is CancellationError) }
    }

    /// A bundle that the exporters wrote: the folder that `ELIR_BUNDLE` names.
    func testAnExportedBundleIsVerified() throws {
        guard let path = ProcessInfo.processInfo.environment["ELIR_BUNDLE"] else {
            throw XCTSkip("ELIR_BUNDLE names no exported bundle: write one with make demo")
        }
        let bundle = try ModelBundle(folder: URL(fileURLWithPath: path))
        XCTAssertFalse(bundle.artifacts.isEmpty)
        let files = bundle.artifacts.map { "\($0.target) \($0.precision)" }.joined(separator: ", ")
        print("verified \(bundle.id): \(bundle.size) pixels, K = \(bundle.steps): \(files)")
        let noise = try bundle.golden(.noise)
        assertEqual(seededNoise(count: noise.count, seed: 0), noise, accuracy: 1e-6)
        let rows = bundle.table.map(\.count)
        XCTAssertEqual(Set(rows).count, 1)
        for artifact in bundle.artifacts {
            XCTAssertEqual(Set(artifact.parity.keys), Set(Output.allCases.map(\.rawValue)), artifact.path)
        }
    }
}
