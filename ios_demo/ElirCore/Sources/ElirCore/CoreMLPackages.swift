/// Where a Core ML artifact has its programs, and what they call their inputs and outputs, as
/// `export/coreml.py` writes them.

import Foundation

/// The layouts of a Core ML artifact.
public enum CoreMLPackages: Equatable {
    /// One package with a function for each program, for iOS 18.
    case functions(URL)
    /// A folder with a package for each program, for iOS 17.
    case folder([Output: URL])

    public static let programs: [Output] = [.encode, .step, .decode]

    /// - Throws: ``ElirError``: a package is missing.
    public init(at url: URL) throws {
        if FileManager.default.fileExists(atPath: url.appendingPathComponent("Manifest.json").path) {
            self = .functions(url)
            return
        }
        var found: [Output: URL] = [:]
        for program in Self.programs {
            let package = url.appendingPathComponent("\(program.rawValue).mlpackage")
            guard FileManager.default.fileExists(atPath: package.path) else {
                throw ElirError(
                    .damaged, "\(url.lastPathComponent) has no \(package.lastPathComponent): export it again")
            }
            found[program] = package
        }
        self = .folder(found)
    }

    /// The output of a program.
    public static func output(of program: Output) -> String {
        switch program {
        case .encode: return "coarse"
        case .step: return "next_latent"
        default: return "restored"
        }
    }
}
