/// Which file of a bundle, on which chip, this phone runs: the one that is wanted, as far as it computes here what it
/// should.
///
/// A GPU or a Neural Engine may give wrong numbers without an error, or end the app. So before a file is used there for
/// the first time the golden vectors go through it, and what came of it is remembered.

import Foundation

/// What the golden vectors said of files on this phone, kept in a file.
public final class Verdicts {
    private struct Kept: Codable {
        var device: String
        var problems: [String: String]
    }
    private let file: URL
    private var kept: Kept

    /// - Parameter device: what the verdicts hold for, drivers included; those on another one are forgotten.
    public init(file: URL, device: String) {
        self.file = file
        let found = try? JSONDecoder().decode(Kept.self, from: Data(contentsOf: file))
        kept = found.flatMap { $0.device == device ? $0 : nil } ?? Kept(device: device, problems: [:])
    }

    /// What is known to speak against the file called `key`; empty: nothing, nil: it was not asked.
    public subscript(key: String) -> String? { kept.problems[key] }

    /// Find out by `check` what speaks against it. What `check` throws is no verdict; if it ends the app, that is one.
    public func find(_ key: String, check: () throws -> String) rethrows -> String {
        keep("it ended the app", of: key)
        do {
            let problem = try check()
            keep(problem, of: key)
            return problem
        } catch {
            keep(nil, of: key)
            throw error
        }
    }

    private func keep(_ problem: String?, of key: String) {
        kept.problems[key] = problem
        try? JSONEncoder().encode(kept).write(to: file, options: .atomic)  // else it is found out anew
    }
}

/// What is used, and a sentence for each that would have come before it.
public struct Chosen<Candidate> {
    public let candidate: Candidate
    public let programs: Programs
    public let passedOver: [String]
}

/// A file and where it is to run.
public struct Candidate<Units: Equatable & Sendable>: Equatable, Sendable {
    public let artifact: Artifact
    public let units: Units
    /// Of file and units, for people.
    public let title: String

    public init(artifact: Artifact, units: Units, title: String) {
        (self.artifact, self.units, self.title) = (artifact, units, title)
    }
}

/// The first of `candidates` that computes here what its file should: within the budgets of the manifest.
///
/// - Parameter open: loads a candidate; nothing of what it gave before is held then.
/// - Throws: ``ElirError``: none of them does; the message says of each why. What cancels the work.
public func choose<Units>(
    _ candidates: [Candidate<Units>], of bundle: ModelBundle, verdicts: Verdicts,
    open: (Candidate<Units>) async throws -> Programs
) async throws -> Chosen<Candidate<Units>> {
    var passedOver: [String] = []
    for candidate in candidates {
        var problem = verdicts[key(candidate)] ?? ""
        if problem.isEmpty {
            do {
                let programs = try await open(candidate)
                problem = try checked(programs, candidate, of: bundle, verdicts: verdicts)
                if problem.isEmpty {
                    return Chosen(candidate: candidate, programs: programs, passedOver: passedOver)
                }
            } catch let error as CancellationError {
                throw error
            } catch {
                problem = error.localizedDescription
            }
        }
        passedOver.append("\(candidate.title) is not used on this phone: \(problem)")
    }
    throw ElirError(
        .runtime, passedOver.isEmpty ? "\(bundle.id) has no file for a phone" : passedOver.joined(separator: "; "))
}

private func key<Units>(_ candidate: Candidate<Units>) -> String {
    "\(candidate.artifact.sha256) on \(candidate.units)"
}

private func checked<Units>(
    _ programs: Programs, _ candidate: Candidate<Units>, of bundle: ModelBundle, verdicts: Verdicts
) throws -> String {
    if let known = verdicts[key(candidate)] { return known }
    if !bundle.hasGolden || candidate.artifact.parity.isEmpty { return "" }
    return try verdicts.find(key(candidate)) {
        let parity = try Parity(bundle: bundle, artifact: candidate.artifact, programs: programs) {
            try Task.checkCancellation()
        }
        return parity.checks.filter { !$0.holds }
            .map { String(format: "%@ reaches %.1f dB of %.1f", $0.output.rawValue, $0.decibels, $0.budget.budgetDB) }
            .joined(separator: ", ")
    }
}
