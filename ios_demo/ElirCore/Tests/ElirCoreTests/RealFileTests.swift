/// The core with a real exported file: what a phone's runtime does for it is done here by a Python process that
/// executes the same file (`python -m android_demo.tests.serve BUNDLE PATH`), over two named pipes.

import ElirCore
import Foundation
import XCTest

/// Programs in another process: a command byte and arrays there, an array back, big-endian.
private final class ServedPrograms: Programs {
    private let requests: UnsafeMutablePointer<FILE>
    private let answers: UnsafeMutablePointer<FILE>

    init(requests: String, answers: String) throws {
        self.requests = try XCTUnwrap(fopen(requests, "wb"))
        self.answers = try XCTUnwrap(fopen(answers, "rb"))
    }

    deinit {
        fclose(requests)
        fclose(answers)
    }

    func encode(_ image: [Float]) throws -> [Float] { try call("e", [image]) }

    func step(_ latent: [Float], row: [Float]) throws -> [Float] { try call("s", [latent, row]) }

    func decode(_ latent: [Float]) throws -> [Float] { try call("d", [latent]) }

    private func call(_ command: Character, _ arrays: [[Float]]) throws -> [Float] {
        var request = Data([try XCTUnwrap(command.asciiValue)])
        for array in arrays {
            let words = [UInt32(array.count)] + array.map(\.bitPattern)
            request.append(words.map(\.bigEndian).withUnsafeBytes { Data($0) })
        }
        let sent = request.withUnsafeBytes { fwrite($0.baseAddress, 1, $0.count, requests) }
        guard sent == request.count, fflush(requests) == 0 else { throw ElirError(.runtime, "the server is gone") }
        let count = Int(try words(1)[0])
        return try words(count).map { Float(bitPattern: $0) }
    }

    private func words(_ count: Int) throws -> [UInt32] {
        var words = [UInt32](repeating: 0, count: count)
        guard fread(&words, 4, count, answers) == count else { throw ElirError(.runtime, "the server is gone") }
        return words.map(UInt32.init(bigEndian:))
    }
}

final class RealFileTests: XCTestCase {
    func testARealFileHoldsItsBudgetsAndIsWhereTheHostWas() throws {
        let environment = ProcessInfo.processInfo.environment
        guard let folder = environment["ELIR_BUNDLE"], let path = environment["ELIR_SERVED"],
            let requests = environment["ELIR_REQUESTS"], let answers = environment["ELIR_ANSWERS"]
        else { throw XCTSkip("no exported file is served: make demo writes one, test.sh serves it") }
        let bundle = try ModelBundle(folder: URL(fileURLWithPath: folder))
        let artifact = try XCTUnwrap(bundle.artifacts.first { $0.path == path })
        let programs = try ServedPrograms(requests: requests, answers: answers)
        let parity = try Parity(bundle: bundle, artifact: artifact, programs: programs)
        XCTAssertEqual(parity.checks.map(\.output), Output.allCases)
        for check in parity.checks {
            XCTAssertTrue(check.holds, "\(check)")
            // The same file on the same kind of machine; another processor's int8 may round apart.
            let host = check.budget.hostDB ?? .infinity
            XCTAssertEqual(check.decibels, host, accuracy: 0.5, "\(check.output)")
        }
        let found = parity.checks.map { "\($0.output) \(String(format: "%.2f", $0.decibels)) dB" }
        print("verified \(path): \(found.joined(separator: ", "))")

        // The picture that the app shows for the bundle's example is the loop's, rounded.
        let restorer = Restorer(
            bundle: bundle, programs: programs, steps: bundle.steps, wishes: Wishes(keepsColors: false))
        let seed = try XCTUnwrap(bundle.goldenSeed)
        let shown = try restorer.restore(bundle.goldenPicture(.input), seed: seed)
        let image = try XCTUnwrap(parity.outputs[.image])
        // Rounding to bytes alone gives 59 dB; noise that differs in its last bit tips a few int8 roundings.
        let agreement = psnrDB(reference: image, out: shown.tile(Square(0, 0, bundle.size)))
        print("verified the picture on the screen: \(String(format: "%.1f", agreement)) dB from the loop's")
        XCTAssertGreaterThan(agreement, 45)
    }
}
