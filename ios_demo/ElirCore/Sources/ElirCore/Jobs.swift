/// Running without a screen: a job file names files of a bundle, a result file says what each computed and
/// how fast.
///
/// The format is the harness's: its other devices read and write the same two files. Files run one after
/// another, each loaded alone, so that a phone's memory holds one model at a time.

import Foundation

/// Of job and result files.
private let jobSchemaVersion = 1

/// What to run.
public struct Job: Sendable {
    public let bundle: URL
    /// Paths of the bundle's manifest.
    public let files: [String]
    /// That a runtime may use; Core ML and ExecuTorch's own pool decide by themselves on iOS.
    public let threads: Int
    public let timing: TimingProtocol
    /// Whether to run the golden vectors and compare.
    public let parity: Bool

    public init(bundle: URL, files: [String], threads: Int, timing: TimingProtocol, parity: Bool) {
        self.bundle = bundle
        self.files = files
        self.threads = threads
        self.timing = timing
        self.parity = parity
    }

    /// Read the job at `url`; a relative bundle is relative to it.
    ///
    /// - Throws: ``ElirError``: missing, damaged or too new.
    public init(contentsOf url: URL) throws {
        let name = url.lastPathComponent
        guard let data = try? Data(contentsOf: url) else {
            throw ElirError(.input, "\(name) cannot be read: copy it into the app's folder again")
        }
        guard let entry = try? JSONDecoder().decode(Entry.self, from: data) else {
            throw ElirError(.input, "\(name) is not a job: write it again with the harness")
        }
        guard entry.schema_version == jobSchemaVersion else {
            throw ElirError(
                .tooNew,
                "\(name) has job schema \(entry.schema_version), this app reads \(jobSchemaVersion): update the app")
        }
        guard !entry.files.isEmpty, entry.threads > 0, entry.warmup >= 0, entry.runs > 0 else {
            throw ElirError(.input, "\(name) is not a job: it needs files, threads and runs")
        }
        let absolute = entry.bundle.hasPrefix("/")
        self.init(
            bundle: absolute
                ? URL(fileURLWithPath: entry.bundle)
                : url.deletingLastPathComponent().appendingPathComponent(entry.bundle),
            files: entry.files,
            threads: entry.threads,
            timing: TimingProtocol(warmups: entry.warmup, runs: entry.runs),
            parity: entry.parity)
    }

    private struct Entry: Decodable {
        let schema_version: Int
        let bundle: String
        let files: [String]
        let threads: Int
        let warmup: Int
        let runs: Int
        let parity: Bool
    }
}

/// What ran a job: the result file's `device`.
public struct DeviceFacts: Encodable, Sendable {
    public let name: String
    public let kind: String
    public let system: String
    public let arch: String
    public let cpu: String
    /// Whether its latency says nothing of a device, as on a simulator.
    public let emulated: Bool
    /// Versions of the runtimes by target.
    public let runtimes: [String: String]

    public init(
        name: String, kind: String, system: String, arch: String, cpu: String, emulated: Bool,
        runtimes: [String: String]
    ) {
        self.name = name
        self.kind = kind
        self.system = system
        self.arch = arch
        self.cpu = cpu
        self.emulated = emulated
        self.runtimes = runtimes
    }
}

/// What one file computed and how fast: a row of the result file.
public struct ResultRow: Encodable, Sendable {
    public let path: String
    public let sha256: String
    public let target: String
    public let precision: String
    public let threads: Int
    public fileprivate(set) var loadMs: Double?
    public fileprivate(set) var timing: Timing?
    public fileprivate(set) var peakBytes: Int?
    public fileprivate(set) var parity: Parity?
    /// Why the file did not run: one sentence.
    public fileprivate(set) var error: String?

    /// A row of a file that did not run.
    init(failed path: String, _ artifact: Artifact?, threads: Int, error: Error) {
        self.init(path, artifact, threads)
        self.error = error.localizedDescription
    }

    fileprivate init(_ path: String, _ artifact: Artifact?, _ threads: Int) {
        self.path = path
        self.threads = threads
        sha256 = artifact?.sha256 ?? ""
        target = artifact?.target ?? ""
        precision = artifact?.precision ?? ""
    }

    private enum Key: String, CodingKey {
        case path, sha256, target, precision, threads, programs, total, parity, error
        case loadMs = "load_ms"
        case firstMs = "first_ms"
        case peakBytes = "peak_bytes"
        case outputSHA256 = "output_sha256"
    }

    private struct Times: Encodable {
        let median_ms: Double
        let p90_ms: Double
        let runs_ms: [Double]

        init(_ latency: Latency) { (median_ms, p90_ms, runs_ms) = (latency.median, latency.p90, latency.runs) }
    }

    /// Every field is there; what is not known is null.
    public func encode(to encoder: Encoder) throws {
        var row = encoder.container(keyedBy: Key.self)
        try row.encode(path, forKey: .path)
        try row.encode(sha256, forKey: .sha256)
        try row.encode(target, forKey: .target)
        try row.encode(precision, forKey: .precision)
        try row.encode(threads, forKey: .threads)
        try row.encode(loadMs, forKey: .loadMs)
        try row.encode(timing?.first, forKey: .firstMs)
        try row.encode(named(timing?.programs.mapValues(Times.init)), forKey: .programs)
        try row.encode(timing.map { Times($0.total) }, forKey: .total)
        try row.encode(peakBytes, forKey: .peakBytes)
        // Equal to the last bit is no finite number of decibels.
        try row.encode(named(parity?.decibels.mapValues { $0 == .infinity ? nil : $0 }), forKey: .parity)
        try row.encode(named(parity?.outputs.mapValues { ElirCore.sha256(of: $0) }), forKey: .outputSHA256)
        try row.encode(error, forKey: .error)
    }

    private func named<Value>(_ values: [Output: Value]?) -> [String: Value] {
        Dictionary(uniqueKeysWithValues: (values ?? [:]).map { ($0.key.rawValue, $0.value) })
    }
}

/// What a job gives back.
public struct JobResult: Encodable, Sendable {
    public let device: DeviceFacts
    public let rows: [ResultRow]

    public init(device: DeviceFacts, rows: [ResultRow]) {
        self.device = device
        self.rows = rows
    }

    private enum Key: String, CodingKey {
        case schemaVersion = "schema_version"
        case device, rows
    }

    public func encode(to encoder: Encoder) throws {
        var result = encoder.container(keyedBy: Key.self)
        try result.encode(jobSchemaVersion, forKey: .schemaVersion)
        try result.encode(device, forKey: .device)
        try result.encode(rows, forKey: .rows)
    }

    /// Write the result file whole or not at all.
    public func write(to url: URL) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        try encoder.encode(self).write(to: url, options: .atomic)
    }
}

/// Opens an exported file with the runtime of its target.
public typealias OpenPrograms = (_ bundle: ModelBundle, _ artifact: Artifact) throws -> Programs

extension Job {
    /// Do the job. A file that fails, or a bundle that cannot be used, has its sentence in its row; the
    /// others go on.
    ///
    /// - Parameters:
    ///   - peakBytes: the largest memory footprint of this process so far, if the system tells.
    ///   - progress: told the path and how much of it is done; what it throws ends the job.
    public func run(
        open: OpenPrograms,
        peakBytes: () -> Int?,
        progress: (_ path: String, _ part: Double) throws -> Void
    ) throws -> [ResultRow] {
        let bundle = Result { try ModelBundle(folder: self.bundle) }
        return try files.map { path in
            try progress(path, 0)
            var artifact: Artifact?
            do {
                let bundle = try bundle.get()
                artifact = bundle.artifacts.first { $0.path == path }
                guard let artifact else {
                    throw ElirError(.input, "\(bundle.id) has no file \(path): name one of its manifest")
                }
                return try ResultRow(
                    measuring: artifact, of: bundle, threads: threads, timing: timing, parity: parity,
                    open: open, peakBytes: peakBytes
                ) { done, total in try progress(path, Double(done) / Double(total)) }
            } catch let error as CancellationError {
                throw error
            } catch {
                return ResultRow(failed: path, artifact, threads: threads, error: error)
            }
        }
    }
}

extension ResultRow {
    /// Load `artifact`, time it, and hold it against the golden vectors.
    public init(
        measuring artifact: Artifact,
        of bundle: ModelBundle,
        threads: Int,
        timing: TimingProtocol,
        parity: Bool,
        open: OpenPrograms,
        peakBytes: () -> Int?,
        progress: Progress
    ) throws {
        self.init(artifact.path, artifact, threads)
        let start = ProcessInfo.processInfo.systemUptime
        let programs = try open(bundle, artifact)
        loadMs = (ProcessInfo.processInfo.systemUptime - start) * 1e3
        self.timing = try Timing(bundle: bundle, programs: programs, protocol: timing, progress: progress)
        self.parity = try parity ? Parity(bundle: bundle, artifact: artifact, programs: programs) : nil
        for (output, values) in self.parity?.outputs ?? [:] where !values.allSatisfy(\.isFinite) {
            throw ElirError(
                .runtime,
                "\(output.rawValue) of \(artifact.path) gives values that are not finite: use another precision")
        }
        self.peakBytes = peakBytes()
    }
}
