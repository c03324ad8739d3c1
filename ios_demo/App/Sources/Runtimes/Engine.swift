/// All work on models, off the main thread and one at a time: a phone's memory holds one model.

import ElirApple
import ElirCore
import Foundation

/// Told which part of the work is done, 0 to 1.
typealias Report = @Sendable (Double) -> Void

actor Engine {
    /// Targets that the app has a runtime for, the preferred one first.
    static let targets = [CoreMLPrograms.target, ExecuTorchPrograms.coreMLTarget, ExecuTorchPrograms.target]

    private struct Key: Equatable {
        let sha256: String
        let units: ComputeUnits
    }
    private var opened: (key: Key, chosen: Chosen<Candidate<ComputeUnits>>)?
    private let verdicts = phoneVerdicts()

    /// Let go of the model that is kept from the last restoration.
    func release() { opened = nil }

    /// Verify and open every bundle in `folders`; what is wrong with one is a sentence.
    func read(_ folders: [URL]) -> (bundles: [ModelBundle], problems: [String]) {
        var bundles: [ModelBundle] = []
        var problems: [String] = []
        for folder in folders {
            do {
                bundles.append(try ModelBundle(folder: folder))
            } catch {
                problems.append(error.localizedDescription)
            }
        }
        return (bundles, problems)
    }

    /// The upright photograph in the file `data`, as `bundle` takes it.
    func prepare(_ data: Data, for bundle: ModelBundle, framing: Framing) throws -> Picture {
        try PhotoFile.read(data).prepared(for: bundle, framing: framing)
    }

    /// The upright photograph in the file `data`, and its faces, the largest first.
    func findFaces(in data: Data) throws -> (photo: Picture, faces: [Face]) {
        let photo = try PhotoFile.read(data)
        return (photo, try FaceFinder.find(in: photo))
    }

    /// What was restored, with which file, why not with others, and what was done with each face.
    struct Restored: Sendable {
        let picture: Picture
        let title: String
        let passedOver: [String]
        var treated: [Treated] = []
    }

    /// Restore `picture`, or some of its faces, with the model that is kept, or load it.
    func restore(
        _ picture: Picture, faces: (found: [Face], wanted: WantedFaces)?, with choice: Choice, of bundle: ModelBundle,
        units: ComputeUnits, seed: Int64, wishes: Wishes, behind: (bundle: ModelBundle, choice: Choice)?, report: Report
    ) async throws -> Restored {
        // One count for both networks, as a person sees one bar.
        let tiles = faces.map { $0.found.count - $0.wanted.left.count } ?? TileGrid(picture, size: bundle.size).tiles
        let calls = Restorer.calls(tiles, steps: choice.steps, wishes: wishes)
        let before = behind.map { callsAround(picture, by: $0) } ?? 0
        let background = try await restored(picture, behind: behind, units: units, seed: seed) { done in
            report(Double(done) / Double(before + calls))
        }
        if let background, let faces, faces.found.count == faces.wanted.left.count { return background }
        let chosen = try await chosen(
            background?.picture ?? picture, choice.artifact, of: bundle, units: units)
        let restorer = Restorer(bundle: bundle, programs: chosen.programs, steps: choice.steps, wishes: wishes)
        func progress(_ done: Int, _ total: Int) throws {
            try Task.checkCancellation()
            report(Double(before + done) / Double(before + calls))
        }
        let title = (background.map { [$0.title] } ?? []) + [chosen.candidate.title]
        let passedOver = (background?.passedOver ?? []) + chosen.passedOver
        guard let faces else {
            let made = try restorer.restore(picture, seed: seed, progress: progress)
            return Restored(picture: made, title: title.joined(separator: ", "), passedOver: passedOver)
        }
        let (made, treated) = try restorer.restoreFaces(
            of: picture, faces.found, wanted: faces.wanted, background: background?.picture, seed: seed,
            progress: progress)
        return Restored(
            picture: made, title: title.joined(separator: ", "), passedOver: passedOver, treated: treated)
    }

    /// Program calls that all of `photo` takes by the network `behind` its faces.
    private func callsAround(_ photo: Picture, by behind: (bundle: ModelBundle, choice: Choice)) -> Int {
        let (larger, size) = (behind.bundle.task.upscale, behind.bundle.size)
        let grid = TileGrid(width: photo.width * larger, height: photo.height * larger, size: size)
        return Restorer.calls(grid.tiles, steps: behind.choice.steps, wishes: Wishes())
    }

    /// All of `photo` by the network `behind` its faces, as large as that makes it; nil where there is none.
    ///
    /// - Parameter called: told how many program calls are done.
    private func restored(
        _ photo: Picture, behind: (bundle: ModelBundle, choice: Choice)?, units: ComputeUnits, seed: Int64,
        called: (Int) -> Void
    ) async throws -> Restored? {
        guard let behind else { return nil }
        let given = try photo.prepared(for: behind.bundle, framing: .whole)
        let chosen = try await chosen(given, behind.choice.artifact, of: behind.bundle, units: units)
        let restorer = Restorer(bundle: behind.bundle, programs: chosen.programs, steps: behind.choice.steps)
        let made = try restorer.restore(given, seed: seed) { done, _ in
            try Task.checkCancellation()
            called(done)
        }
        return Restored(picture: made, title: chosen.candidate.title, passedOver: chosen.passedOver)
    }

    /// The wanted file on the wanted units, or where it does not compute what it should, on others, or another file.
    private func chosen(
        _ picture: Picture, _ artifact: Artifact, of bundle: ModelBundle, units: ComputeUnits
    ) async throws -> Chosen<Candidate<ComputeUnits>> {
        let key = Key(sha256: artifact.sha256, units: units)
        if let opened, opened.key == key { return opened.chosen }
        opened = nil
        try checkMemory(
            available: Device.availableMemory, bundle: bundle, artifact: artifact, width: picture.width,
            height: picture.height)
        var candidates =
            artifact.target == CoreMLPrograms.target
            ? CoreMLPrograms.candidates(artifact, first: units)
            : [Candidate(artifact: artifact, units: .cpu, title: artifact.path)]
        let onProcessor = bundle.artifacts.filter { $0.target == ExecuTorchPrograms.target }
        if let other = onProcessor.first(where: { $0.precision == artifact.precision }) ?? onProcessor.first,
            other != artifact
        {
            candidates.append(Candidate(artifact: other, units: .cpu, title: other.path))
        }
        let chosen = try await choose(candidates, of: bundle, verdicts: verdicts) {
            try await open(bundle, $0.artifact, units: $0.units)
        }
        opened = (key, chosen)
        return chosen
    }

    /// Hold `artifact` against the golden vectors.
    func parity(
        of artifact: Artifact, in bundle: ModelBundle, units: ComputeUnits, report: Report
    ) async throws -> Parity {
        opened = nil
        let programs = try await open(bundle, artifact, units: units)
        var done = 0
        return try Parity(bundle: bundle, artifact: artifact, programs: programs) {
            done += 1
            try Task.checkCancellation()
            report(Double(done) / Double(Parity.calls(bundle)))
        }
    }

    /// Do `job`, each file on `units` if it is Core ML's. Compiling comes before and is not in its times.
    func run(_ job: Job, units: ComputeUnits, report: Report) async throws -> JobResult {
        opened = nil
        if let bundle = try? ModelBundle(folder: job.bundle) {
            for artifact in bundle.artifacts where job.files.contains(artifact.path) {
                // A file that does not compile says so in its row, where it is opened.
                try? await prepare(artifact, of: bundle)
            }
        }
        let rows = try job.run(
            open: { try load($0, $1, units: units) },
            peakBytes: { Device.peakMemory }
        ) { path, part in
            try Task.checkCancellation()
            let before = Double(job.files.firstIndex(of: path) ?? 0)
            report((before + part) / Double(job.files.count))
        }
        return JobResult(device: await Device.facts(units: units), rows: rows)
    }

    private func open(_ bundle: ModelBundle, _ artifact: Artifact, units: ComputeUnits) async throws -> Programs {
        try await prepare(artifact, of: bundle)
        return try load(bundle, artifact, units: units)
    }

    private func prepare(_ artifact: Artifact, of bundle: ModelBundle) async throws {
        if artifact.target == CoreMLPrograms.target { try await CoreMLPrograms.compile(artifact, of: bundle) }
    }

    private func load(_ bundle: ModelBundle, _ artifact: Artifact, units: ComputeUnits) throws -> Programs {
        try checkMemory(
            available: Device.availableMemory, bundle: bundle, artifact: artifact,
            width: bundle.size, height: bundle.size)
        switch artifact.target {
        case CoreMLPrograms.target: return try CoreMLPrograms(bundle, artifact, units: units)
        case ExecuTorchPrograms.target, ExecuTorchPrograms.coreMLTarget: return try ExecuTorchPrograms(bundle, artifact)
        default:
            throw ElirError(
                .runtime,
                "this app has no runtime for \(artifact.target): choose \(Self.targets.joined(separator: " or "))")
        }
    }
}
