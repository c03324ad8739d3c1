/// The shortest way to use a bundle: open it, and give it photographs.

#if canImport(CoreML) && canImport(Vision)
import CoreGraphics
import ElirCore
import Foundation

public actor PhotoRestorer {
    private let restorer: Restorer
    /// A sentence for each file or chip that would have been used before, had it computed what it should.
    public let passedOver: [String]

    private init(_ restorer: Restorer, passedOver: [String]) {
        (self.restorer, self.passedOver) = (restorer, passedOver)
    }

    /// The bundle in `folder`, verified, with its Core ML file on the chip that computes here what it should.
    ///
    /// - Throws: ``ElirError``: the bundle cannot be used, or this phone cannot run it.
    public static func open(_ folder: URL, wishes: Wishes = Wishes()) async throws -> PhotoRestorer {
        let bundle = try ModelBundle(folder: folder)
        let files = bundle.artifacts.filter { $0.target == CoreMLPrograms.target }
        let advised = bundle.recommended(for: "ios").flatMap { files.contains($0) ? $0 : nil } ?? files.first
        let candidates = advised.map { CoreMLPrograms.candidates($0, first: .all) } ?? []
        let chosen = try await choose(candidates, of: bundle, verdicts: phoneVerdicts()) {
            try await CoreMLPrograms.compile($0.artifact, of: bundle)
            return try CoreMLPrograms(bundle, $0.artifact, units: $0.units)
        }
        return PhotoRestorer(
            Restorer(bundle: bundle, programs: chosen.programs, steps: bundle.steps, wishes: wishes),
            passedOver: chosen.passedOver)
    }

    /// `photo`, upright, restored: the faces of a whole photograph where they are, if that is what the bundle is for; the
    /// very same image if there is none.
    ///
    /// - Parameter progress: told which part is done, 0 to 1.
    /// - Throws: ``ElirError``. `CancellationError` where the task is cancelled.
    public func restore(_ photo: CGImage, progress: @Sendable (Double) -> Void) async throws -> CGImage {
        let given = try Picture(photo, in: photo.pictureSpace)
        let made = try restorer.restore(given, seed: 0, findFaces: FaceFinder.find) { done, total in
            try Task.checkCancellation()
            progress(Double(done) / Double(total))
        }
        if made == given { return photo }
        guard let image = made.image(in: photo.pictureSpace) else {
            throw ElirError(.memory, "there is no memory to show the picture: use a smaller one")
        }
        return image
    }
}

/// What the golden vectors said of files on this phone and with this version of its system.
public func phoneVerdicts() -> Verdicts {
    let folder = FileManager.default.urls(for: .cachesDirectory, in: .userDomainMask)[0]
    return Verdicts(
        file: folder.appendingPathComponent("verdicts.json"),
        device: ProcessInfo.processInfo.operatingSystemVersionString)
}
#endif
