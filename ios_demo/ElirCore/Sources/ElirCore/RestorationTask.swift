/// What an app must know of each task beyond its bundle, as the table in `elir_mobile/tasks.py`.

/// One restoration task. A manifest names it by its raw value.
public enum RestorationTask: String, CaseIterable, Sendable {
    case bfr, sr, denoising, inpainting, bsr, colorization, mask

    public var title: String {
        switch self {
        case .bfr: return "blind face restoration"
        case .sr: return "super-resolution ×8"
        case .denoising: return "denoising"
        case .inpainting: return "inpainting of scattered pixels"
        case .bsr: return "blind super-resolution ×4"
        case .colorization: return "colorization of noisy grey images"
        case .mask: return "inpainting of a box"
        }
    }

    /// How many times larger the restored picture is than the given one.
    public var upscale: Int {
        switch self {
        case .sr: return 8
        case .bsr: return 4
        default: return 1
        }
    }

    /// How the given picture gets that large before it is restored.
    public var enlarge: ResampleFilter { self == .bsr ? .bicubic : .nearest }
}

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
    /// - Throws: ``ElirError``: the task is unknown, or the photograph is too small or too large for it.
    public func prepared(for bundle: ModelBundle, framing: Framing) throws -> Picture {
        guard let task = RestorationTask(rawValue: bundle.task) else {
            throw ElirError(.tooNew, "the task '\(bundle.task)' is unknown: update the app")
        }
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
