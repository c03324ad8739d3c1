/// A photograph as a bundle takes it.

/// How much of a photograph is restored.
public enum Framing: String, CaseIterable, Sendable {
    /// The centred square, in one tile.
    case square
    /// All of it, in tiles that fade into one another.
    case whole
}

extension Picture {
    /// This upright photograph as `bundle` takes it: of the size that the restored one will have.
    ///
    /// - Throws: ``ElirError``: the photograph is too small or too large.
    public func prepared(for bundle: ModelBundle, framing: Framing) throws -> Picture {
        let task = bundle.task
        guard min(width, height) >= minimumSide else {
            throw ElirError(
                .input, "the picture has \(width)×\(height) pixels: use one of at least \(minimumSide) a side")
        }
        let part = framing == .square ? square(side: bundle.size / task.upscale) : self
        guard part.width * part.height * task.upscale * task.upscale <= maximumPixels else {
            throw ElirError(
                .memory,
                "the restored picture would have more than \(maximumPixels / 1_000_000) million pixels: "
                    + "use a smaller one, or its centred square")
        }
        return part.enlarged(factor: task.upscale, filter: task.enlarge)
    }
}

/// Below this nothing is left to restore (`elir_mobile/images.py`).
private let minimumSide = 32
/// Of a restored picture: what the largest phone cameras take, 0.3 GB as bytes before and after.
private let maximumPixels = 50_000_000
