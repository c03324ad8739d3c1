/// Fidelity and kept colours are what the Python package's `restore` makes of them.

import ElirCore
import XCTest

/// `tests/app_fixtures.py:moody`: tiles are lighter the lighter their input is.
private final class MoodyPrograms: Programs {
    private let programs: StubPrograms

    init(_ programs: StubPrograms) { self.programs = programs }

    func encode(_ image: [Float]) throws -> [Float] {
        let mean = image.reduce(0) { $0 + Double($1) } / Double(image.count)
        return try programs.encode(image).map { $0 + Float(0.3 * (mean - 0.5)) }
    }

    func step(_ latent: [Float], row: [Float]) throws -> [Float] { try programs.step(latent, row: row) }

    func decode(_ latent: [Float]) throws -> [Float] { try programs.decode(latent) }
}

final class FinishTests: XCTestCase {
    func testColoursAreKeptAsThePackageDoes() throws {
        for entry in try Fixtures.index().colors {
            var picture = try entry.restored.picture()
            try picture.keepColors(of: entry.given.picture())
            assertNear(picture, try entry.expected.picture(), entry.expected.path)
        }
    }

    /// The task of a bundle says what is kept: of the package's own, all kinds that there are.
    func testWholePicturesWithFidelityAndKeptColoursAreThePackages() throws {
        let index = try Fixtures.index()
        for entry in index.finished {
            let name = entry.keep_colors ? "bfr" : entry.keep_grey ? "inpainting" : "colorization"
            let bundle = try ModelBundle(folder: Fixtures.url("tasks/\(name)"))
            let artifact = try XCTUnwrap(bundle.artifacts.first { $0.path == "stub/fp32.stub" })
            let restorer = Restorer(
                bundle: bundle, programs: MoodyPrograms(try StubPrograms(bundle, artifact)), steps: bundle.steps,
                wishes: Wishes(fidelity: entry.fidelity))
            let input = try entry.input.picture()
            var told = 0
            let made = try restorer.restore(input, seed: entry.seed) { done, total in
                told += 1
                XCTAssertEqual(done, told)
                XCTAssertEqual(total, restorer.calls(width: input.width, height: input.height))
            }
            XCTAssertEqual(told, restorer.calls(width: input.width, height: input.height))
            assertNear(made, try entry.output.picture(), entry.output.path)
        }
    }

    func testColoursThatAreNotToBeKeptAreTheNetworks() throws {
        let bundle = try Fixtures.bundle()
        XCTAssertTrue(bundle.task.keepsColors && bundle.task.keepsGrey)
        let programs = try StubPrograms(bundle, bundle.artifacts[1])
        let grey = try bundle.goldenPicture(.input).withoutColors()
        func made(_ wishes: Wishes) throws -> Picture {
            try Restorer(bundle: bundle, programs: programs, steps: bundle.steps, wishes: wishes).restore(grey, seed: 0)
        }
        XCTAssertTrue(try made(Wishes()).isGrey)
        XCTAssertFalse(try made(Wishes(keepsColors: false)).isGrey)
    }

    func testATaskSaysWhatIsKept() throws {
        for entry in try Fixtures.index().tasks {
            let task = try ModelBundle(folder: Fixtures.url(entry.path)).task
            XCTAssertEqual([task.keepsColors, task.keepsGrey], [entry.keep_colors, entry.keep_grey], entry.path)
        }
    }
}

extension Picture {
    /// Each pixel as its red.
    fileprivate func withoutColors() -> Picture {
        Picture(width: width, height: height, pixels: pixels.indices.map { pixels[$0 / colours * colours] })
    }
}
