/// How latency is measured: warm-ups, whole restorations of the golden input, median and 90th percentile, as
/// `elir_mobile/harness/protocol.py`.

import Foundation

/// Runs in milliseconds and their statistics.
public struct Latency: Sendable {
    public let runs: [Double]

    /// - Precondition: at least one run.
    public init(_ runs: [Double]) {
        precondition(!runs.isEmpty, "no run")
        self.runs = runs
    }

    public var median: Double { percentile(0.5) }
    public var p90: Double { percentile(0.9) }

    /// Linear between the two nearest runs, as NumPy's default.
    private func percentile(_ part: Double) -> Double {
        let sorted = runs.sorted()
        let at = part * Double(sorted.count - 1)
        let below = Int(at)
        let above = min(below + 1, sorted.count - 1)
        return sorted[below] + (sorted[above] - sorted[below]) * (at - Double(below))
    }
}

/// How a file is timed; `warmups` restorations are not counted.
public struct TimingProtocol: Equatable, Sendable {
    public let warmups: Int
    public let runs: Int

    /// - Precondition: at least one run.
    public init(warmups: Int = 3, runs: Int = 20) {
        precondition(warmups >= 0 && runs > 0, "\(warmups) warm-ups and \(runs) runs")
        self.warmups = warmups
        self.runs = runs
    }
}

/// Latency of one file.
public struct Timing: Sendable {
    /// Of each program; `step` is one Euler step, the time of all K divided by K.
    public let programs: [Output: Latency]
    /// Of one restoration, encode + K steps + decode.
    public let total: Latency
    /// The very first restoration, milliseconds.
    public let first: Double

    /// Time `programs` on the golden input of `bundle`.
    ///
    /// - Parameter clock: seconds since some moment.
    public init(
        bundle: ModelBundle,
        programs: Programs,
        protocol: TimingProtocol,
        clock: @escaping () -> Double = { ProcessInfo.processInfo.systemUptime },
        progress: Progress = { _, _ in }
    ) throws {
        let (image, noise) = (try bundle.golden(.input), try bundle.golden(.noise))
        let timed = TimedPrograms(programs, clock: clock)
        var spent: [[Output: Double]] = []
        for run in 0..<`protocol`.warmups + `protocol`.runs {
            timed.milliseconds = [:]
            _ = try sample(timed, image: image, noise: noise, rows: bundle.table, sigmaS: bundle.sigmaS)
            spent.append(timed.milliseconds)
            try progress(run + 1, `protocol`.warmups + `protocol`.runs)
        }
        let whole = spent.map { $0.values.reduce(0, +) }
        first = whole[0]
        total = Latency(Array(whole.suffix(`protocol`.runs)))
        let counted = spent.suffix(`protocol`.runs)
        self.programs = [Output.encode, .step, .decode].reduce(into: [:]) { found, name in
            let calls = name == .step ? Double(bundle.steps) : 1
            found[name] = Latency(counted.map { $0[name]! / calls })
        }
    }
}

/// Programs whose wall time is added up.
private final class TimedPrograms: Programs {
    var milliseconds: [Output: Double] = [:]
    private let programs: Programs
    private let clock: () -> Double

    init(_ programs: Programs, clock: @escaping () -> Double) {
        self.programs = programs
        self.clock = clock
    }

    func encode(_ image: [Float]) throws -> [Float] {
        try timed(.encode) { try programs.encode(image) }
    }

    func step(_ latent: [Float], row: [Float]) throws -> [Float] {
        try timed(.step) { try programs.step(latent, row: row) }
    }

    func decode(_ latent: [Float]) throws -> [Float] {
        try timed(.decode) { try programs.decode(latent) }
    }

    private func timed(_ name: Output, _ run: () throws -> [Float]) rethrows -> [Float] {
        let start = clock()
        defer { milliseconds[name, default: 0] += (clock() - start) * 1e3 }
        return try run()
    }
}
