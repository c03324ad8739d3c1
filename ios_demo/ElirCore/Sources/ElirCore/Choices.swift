/// What a person can choose of a bundle, kept consistent: a target has only its own precisions.

/// One file of a bundle and how many of its steps to take.
public struct Choice: Equatable, Sendable {
    public let artifact: Artifact
    public let steps: Int
}

/// The choices that a bundle leaves.
public struct Choices: Sendable {
    private let artifacts: [Artifact]
    private let allSteps: Int
    private let recommended: Artifact?

    /// - Parameters:
    ///   - targets: that the app has runtimes for, the preferred one first.
    ///   - kind: of device, which the manifest recommends a file to.
    public init(_ bundle: ModelBundle, targets: [String], kind: String) {
        artifacts = bundle.artifacts
            .filter { targets.contains($0.target) }
            .sorted { targets.firstIndex(of: $0.target)! < targets.firstIndex(of: $1.target)! }
        allSteps = bundle.steps
        recommended = bundle.recommended(for: kind).flatMap { targets.contains($0.target) ? $0 : nil }
    }

    /// Targets that the bundle has files for.
    public var targets: [String] { artifacts.map(\.target).withoutRepeats }

    /// Precisions of `target`, as the manifest orders them.
    public func precisions(of target: String) -> [String] {
        artifacts.filter { $0.target == target }.map(\.precision).withoutRepeats
    }

    /// Steps that can be taken: K restore, fewer stop underway, 0 is the coarse estimate.
    public var steps: ClosedRange<Int> { 0...allSteps }

    /// The choice nearest to what is wished for: where the bundle has no such file, another precision of
    /// the target, else another target; where nothing is wished for, the recommended file. Nil: the bundle has
    /// nothing that the app can run.
    public func nearest(target: String?, precision: String?, steps: Int?) -> Choice? {
        let target = target ?? recommended?.target
        let precision = precision ?? recommended?.precision
        let sameTarget = artifacts.filter { $0.target == target }
        let candidates = sameTarget.isEmpty ? artifacts : sameTarget
        guard let artifact = candidates.first(where: { $0.precision == precision }) ?? candidates.first else {
            return nil
        }
        return Choice(artifact: artifact, steps: min(max(steps ?? allSteps, 0), allSteps))
    }
}

extension Array where Element: Hashable {
    /// Each element where it comes first.
    fileprivate var withoutRepeats: [Element] {
        var seen = Set<Element>()
        return filter { seen.insert($0).inserted }
    }
}
