/// How far an output is from its reference, and what a file makes of the golden vectors, as
/// `elir_mobile/metrics/fidelity.py` and `elir_mobile/harness/compare.py:golden_parity`.

import Foundation

/// `10·log10(Σref² / Σ(ref - out)²)` in dB; infinite where the two are equal.
public func sqnrDB(reference: [Float], out: [Float]) -> Double {
    let signal = reference.reduce(0) { $0 + Double($1) * Double($1) }
    return 10 * log10(signal / squaredError(reference, out))
}

/// Peak signal-to-noise ratio in dB of values in [0, 1]; infinite where the two are equal.
public func psnrDB(reference: [Float], out: [Float]) -> Double {
    -10 * log10(squaredError(reference, out) / Double(reference.count))
}

private func squaredError(_ reference: [Float], _ out: [Float]) -> Double {
    precondition(reference.count == out.count, "\(out.count) values are held against \(reference.count)")
    return zip(reference, out).reduce(0) { sum, pair in
        let error = Double(pair.0) - Double(pair.1)
        return sum + error * error
    }
}

/// What a file makes of the golden vectors.
public struct Parity: Sendable {
    public let outputs: [Output: [Float]]
    /// SQNR of `encode` and `step`, PSNR of `decode` and `image`, against the float network's.
    public let decibels: [Output: Double]
    /// Each output that has a budget, in the order of ``Output``.
    public let checks: [Check]

    /// One output held against its budget.
    public struct Check: Identifiable, Sendable {
        public let output: Output
        public let decibels: Double
        public let budget: Budget

        public var id: Output { output }
        /// Not a number never holds.
        public var holds: Bool { decibels >= budget.budgetDB }
    }

    /// Hold `programs`, the loaded `artifact`, against the golden vectors of `bundle`.
    ///
    /// - Parameter called: told after each of the program calls; what it throws ends the work.
    public init(
        bundle: ModelBundle, artifact: Artifact, programs: Programs, called: () throws -> Void = {}
    ) throws {
        let (input, noise) = (try bundle.golden(.input), try bundle.golden(.noise))
        let coarse = try bundle.golden(.coarse)
        var outputs: [Output: [Float]] = [:]
        outputs[.encode] = try programs.encode(input)
        try called()
        let start = try noised(coarse, noise: noise, sigmaS: bundle.sigmaS)
        outputs[.step] = try programs.step(start, row: bundle.table[0])
        try called()
        outputs[.decode] = try programs.decode(bundle.golden(.latent))
        try called()
        outputs[.image] =
            try sample(
                programs, image: input, noise: noise, rows: bundle.table, sigmaS: bundle.sigmaS, called: called
            ).image
        let picture = try bundle.golden(.output)
        let references: [Output: [Float]] = [
            .encode: coarse, .step: try bundle.golden(.step), .decode: picture, .image: picture,
        ]
        decibels = try outputs.reduce(into: [:]) { found, entry in
            let (output, out) = entry
            guard out.count == references[output]!.count else {
                throw ElirError(.runtime, "\(output.rawValue) gives \(out.count) values: export the file again")
            }
            let measure = output == .encode || output == .step ? sqnrDB : psnrDB
            found[output] = measure(references[output]!, out)
        }
        self.outputs = outputs
        let decibels = decibels
        checks = Output.allCases.compactMap { output in
            artifact.parity[output.rawValue].map {
                Check(output: output, decibels: decibels[output]!, budget: $0)
            }
        }
    }

    /// Program calls that a run on `bundle` takes.
    public static func calls(_ bundle: ModelBundle) -> Int { 3 + bundle.steps + 2 }
}

/// Largest difference between the golden noise and what this device draws from its seed; both are nearly
/// always within 4, and 1e-6 is the last bit of that.
///
/// - Throws: ``ElirError``: the bundle has no golden vectors.
public func noiseDifference(_ bundle: ModelBundle) throws -> Float {
    let golden = try bundle.golden(.noise)
    let drawn = seededNoise(count: golden.count, seed: bundle.goldenSeed ?? 0)
    return zip(golden, drawn).map { abs($0 - $1) }.max() ?? 0
}
