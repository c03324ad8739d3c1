/// The wanted file and chip are used where the golden vectors hold there, and others where not; that is remembered.

import ElirCore
import XCTest

/// A stub whose steps give nothing but zeros.
private final class Zeros: Programs {
    private let programs: Programs

    init(_ programs: Programs) { self.programs = programs }

    func encode(_ image: [Float]) throws -> [Float] { try programs.encode(image) }

    func step(_ latent: [Float], row: [Float]) throws -> [Float] { latent.map { _ in 0 } }

    func decode(_ latent: [Float]) throws -> [Float] { try programs.decode(latent) }
}

final class ChoosingTests: XCTestCase {
    private let kept = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID().uuidString).json")
    private var opened: [String] = []

    override func tearDown() { try? FileManager.default.removeItem(at: kept) }

    private func chosen(
        device: String = "phone", verdicts: Verdicts? = nil, gpu: (Programs) throws -> Programs = { $0 }
    ) async throws -> Chosen<Candidate<String>> {
        let bundle = try Fixtures.bundle()
        let artifact = try XCTUnwrap(bundle.artifacts.first { $0.path == "stub/w8a8.stub" })
        let candidates = ["GPU", "CPU"].map {
            Candidate(artifact: artifact, units: $0, title: "\(artifact.path) on \($0)")
        }
        return try await choose(candidates, of: bundle, verdicts: verdicts ?? Verdicts(file: kept, device: device)) {
            opened.append($0.units)
            let programs = try StubPrograms(bundle, $0.artifact)
            return $0.units == "GPU" ? try gpu(programs) : programs
        }
    }

    func testTheFirstThatHoldsIsUsedAndCheckedOnce() async throws {
        let first = try await chosen()
        XCTAssertEqual(first.candidate.units, "GPU")
        XCTAssertEqual(first.passedOver, [])
        // A check would fail now: what was found out before is believed, but not on another device.
        let again = try await chosen(gpu: Zeros.init)
        XCTAssertEqual(again.candidate.units, "GPU")
        let updated = try await chosen(device: "phone with another system", gpu: Zeros.init)
        XCTAssertEqual(updated.candidate.units, "CPU")
    }

    func testAChipThatGivesZerosIsPassedOverAndNotAskedAgain() async throws {
        let first = try await chosen(gpu: Zeros.init)
        XCTAssertEqual(first.candidate.units, "CPU")
        XCTAssertEqual(first.passedOver.count, 1)
        XCTAssertTrue(
            first.passedOver[0].hasPrefix("stub/w8a8.stub on GPU is not used on this phone: step reaches 0.0 dB of "),
            first.passedOver[0])
        XCTAssertEqual(opened, ["GPU", "CPU"])
        let again = try await chosen()
        XCTAssertEqual(again.passedOver, first.passedOver)
        XCTAssertEqual(opened, ["GPU", "CPU", "CPU"])
    }

    func testAFailureIsTriedAgainAndWhatEndedTheAppIsNot() async throws {
        let failing = try await chosen { _ in throw ElirError(.runtime, "no driver") }
        XCTAssertEqual(failing.passedOver, ["stub/w8a8.stub on GPU is not used on this phone: no driver"])
        let again = try await chosen()
        XCTAssertEqual(again.candidate.units, "GPU")
        // What is on the disk while the check runs is what is left if the app ends in it.
        let artifact = again.candidate.artifact
        var left = Data()
        _ = Verdicts(file: kept, device: "phone").find("\(artifact.sha256) on GPU") {
            left = (try? Data(contentsOf: kept)) ?? Data()
            return ""
        }
        try left.write(to: kept)
        let after = try await chosen()
        XCTAssertEqual(after.passedOver, ["stub/w8a8.stub on GPU is not used on this phone: it ended the app"])
    }

    func testCancellingIsNoVerdict() async throws {
        do {
            _ = try await chosen { _ in throw CancellationError() }
            XCTFail("it went on")
        } catch is CancellationError {}
        let again = try await chosen()
        XCTAssertEqual(again.candidate.units, "GPU")
    }

    func testWhereNothingHoldsThereIsASentence() async throws {
        let bundle = try Fixtures.bundle()
        do {
            _ = try await choose([Candidate<String>](), of: bundle, verdicts: Verdicts(file: kept, device: "phone")) {
                _ in
                throw CancellationError()
            }
            XCTFail("something was chosen")
        } catch let error as ElirError {
            XCTAssertEqual(error.message, "bundle has no file for a phone")
        }
    }
}
