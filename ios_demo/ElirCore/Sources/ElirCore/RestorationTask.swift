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
