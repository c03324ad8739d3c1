/// Jobs in, results out, in the harness's format.

import ElirCore
import XCTest

final class JobTests: XCTestCase {
    private let device = DeviceFacts(
        name: "test", kind: "ios", system: "none", arch: "none", cpu: "none", emulated: true, runtimes: ["stub": "1"])

    private func rows(_ job: Job, open: OpenPrograms = { try StubPrograms($0, $1) }) throws -> [[String: Any]] {
        let url = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID()).json")
        defer { try? FileManager.default.removeItem(at: url) }
        let found = try job.run(open: open, peakBytes: { 1 << 20 }, progress: { _, _ in })
        try JobResult(device: device, rows: found).write(to: url)
        if let kept = ProcessInfo.processInfo.environment["ELIR_RESULT"] {
            try JobResult(device: device, rows: found).write(to: URL(fileURLWithPath: kept))
        }
        let result = try JSONSerialization.jsonObject(with: Data(contentsOf: url)) as? [String: Any]
        XCTAssertEqual(result?["schema_version"] as? Int, 1)
        XCTAssertEqual((result?["device"] as? [String: Any])?["kind"] as? String, "ios")
        return try XCTUnwrap(result?["rows"] as? [[String: Any]])
    }

    func testEveryFileGetsItsRow() throws {
        let rows = try rows(Job(contentsOf: Fixtures.url(Fixtures.index().job)))
        XCTAssertEqual(rows.count, 3)
        let bundle = try Fixtures.bundle()
        for (row, artifact) in zip(rows, bundle.artifacts.dropFirst()) {
            XCTAssertEqual(row["path"] as? String, artifact.path)
            XCTAssertEqual(row["sha256"] as? String, artifact.sha256)
            XCTAssertEqual(row["precision"] as? String, artifact.precision)
            XCTAssertEqual(row["threads"] as? Int, 2)
            XCTAssertEqual(row["peak_bytes"] as? Int, 1 << 20)
            XCTAssertTrue(row["error"] is NSNull)
            let programs = try XCTUnwrap(row["programs"] as? [String: [String: Any]])
            XCTAssertEqual(Set(programs.keys), ["encode", "step", "decode"])
            for times in Array(programs.values) + [try XCTUnwrap(row["total"] as? [String: Any])] {
                let runs = try XCTUnwrap(times["runs_ms"] as? [Double])
                XCTAssertEqual(runs.count, 5)
                XCTAssertEqual(times["median_ms"] as? Double, runs.sorted()[2])
            }
            let names = Set(Output.allCases.map(\.rawValue))
            let decibels = try XCTUnwrap(row["parity"] as? [String: Any])
            XCTAssertEqual(Set(decibels.keys), names)
            let hashes = try XCTUnwrap(row["output_sha256"] as? [String: String])
            XCTAssertEqual(Set(hashes.keys), names)
            XCTAssertEqual(Set(hashes.values.map(\.count)), [64])
        }
        let image = try XCTUnwrap((rows[1]["parity"] as? [String: Any])?["image"] as? Double)
        XCTAssertEqual(
            image, try XCTUnwrap(bundle.artifacts[2].parity["image"]?.hostDB), accuracy: 1e-3)
        XCTAssertTrue(try XCTUnwrap(rows[2]["error"] as? String).contains("absent.stub"))
        XCTAssertTrue(rows[2]["total"] is NSNull)
        XCTAssertTrue(rows[2]["load_ms"] is NSNull)
    }

    func testTimesAreOfTheRunsThatCount() throws {
        let bundle = try Fixtures.bundle()
        var now = 0.0
        let clock = { () -> Double in  // every program call takes 2 ms more than the one before
            now += 0.001
            return now * now
        }
        let timing = try Timing(
            bundle: bundle, programs: StubPrograms(bundle, bundle.artifacts[1]),
            protocol: TimingProtocol(warmups: 1, runs: 2), clock: clock)
        XCTAssertEqual(timing.total.runs.count, 2)
        XCTAssertLessThan(timing.first, timing.total.runs[0])
        let encode = try XCTUnwrap(timing.programs[.encode]?.runs)
        XCTAssertLessThan(encode[0], encode[1])
        for run in 0..<2 {
            let parts = try [Output.encode, .step, .decode].map { try XCTUnwrap(timing.programs[$0]?.runs[run]) }
            XCTAssertEqual(parts[0] + 3 * parts[1] + parts[2], timing.total.runs[run], accuracy: 1e-9)
        }
    }

    func testABundleThatCannotBeUsedIsSaidInEveryRow() throws {
        let job = Job(
            bundle: try Fixtures.url("damaged/newer"), files: ["a", "b"], threads: 1, timing: TimingProtocol(),
            parity: true)
        let errors = try rows(job).map { $0["error"] as? String }
        XCTAssertEqual(errors.count, 2)
        XCTAssertTrue(errors.allSatisfy { $0?.contains("newer elir-mobile") == true }, "\(errors)")
    }

    func testAFileWithoutARuntimeDoesNotHoldUpTheOthers() throws {
        let job = try Job(contentsOf: Fixtures.url(Fixtures.index().job))
        let rows = try rows(job) { bundle, artifact in
            if artifact.precision == "fp32" { throw ElirError(.runtime, "no runtime") }
            return try StubPrograms(bundle, artifact)
        }
        XCTAssertEqual(rows[0]["error"] as? String, "no runtime")
        XCTAssertEqual(rows[0]["precision"] as? String, "fp32")
        XCTAssertTrue(rows[1]["error"] is NSNull)
    }

    func testAJobCanBeCancelled() throws {
        let job = try Job(contentsOf: Fixtures.url(Fixtures.index().job))
        XCTAssertThrowsError(
            try job.run(open: { try StubPrograms($0, $1) }, peakBytes: { nil }) { _, part in
                if part > 0.5 { throw CancellationError() }
            }
        ) { XCTAssertTrue($0 is CancellationError) }
    }

    func testJobsThatAreNone() throws {
        let url = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID()).json")
        defer { try? FileManager.default.removeItem(at: url) }
        XCTAssertThrowsError(try Job(contentsOf: url))
        let good =
            #"{"schema_version": 1, "bundle": "b", "files": ["f"], "threads": 2, "warmup": 0, "runs": 1, "parity": true}"#
        let bad = [
            "{", "[]", good.replacingOccurrences(of: "\"runs\": 1", with: "\"runs\": 0"),
            good.replacingOccurrences(of: "[\"f\"]", with: "[]"),
            good.replacingOccurrences(of: "\"threads\": 2", with: "\"threads\": \"2\""),
        ]
        for text in bad {
            try Data(text.utf8).write(to: url)
            XCTAssertThrowsError(try Job(contentsOf: url), text) { error in
                XCTAssertEqual((error as? ElirError)?.fault, .input)
            }
        }
        try Data(good.replacingOccurrences(of: "version\": 1", with: "version\": 2").utf8).write(to: url)
        XCTAssertThrowsError(try Job(contentsOf: url)) { error in
            XCTAssertEqual((error as? ElirError)?.fault, .tooNew)
        }
        try Data(good.utf8).write(to: url)
        XCTAssertEqual(try Job(contentsOf: url).bundle.path, url.deletingLastPathComponent().path + "/b")
    }
}
