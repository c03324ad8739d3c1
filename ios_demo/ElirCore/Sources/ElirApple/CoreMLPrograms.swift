/// The three programs of a Core ML artifact, run by Core ML on the units that the user chose.

#if canImport(CoreML)
import CoreML
import ElirCore
import Foundation

/// Which units Core ML may use; it decides operator by operator.
public enum ComputeUnits: String, CaseIterable, Identifiable, Sendable {
    case all = "All units"
    case cpu = "CPU"
    case gpu = "CPU and GPU"
    case neuralEngine = "CPU and Neural Engine"

    public var id: String { rawValue }

    var coreML: MLComputeUnits {
        switch self {
        case .all: return .all
        case .cpu: return .cpuOnly
        case .gpu: return .cpuAndGPU
        case .neuralEngine: return .cpuAndNeuralEngine
        }
    }
}

public final class CoreMLPrograms: Programs {
    public static let target = "coreml"

    private let models: [Output: MLModel]
    private let imageShape: [Int]
    private let latentShape: [Int]
    private let rowShape: [Int]

    /// Load what ``compile(_:of:)`` has made.
    ///
    /// - Throws: ``ElirError``: the package cannot be loaded here.
    public init(_ bundle: ModelBundle, _ artifact: Artifact, units: ComputeUnits) throws {
        imageShape = [1, colours, bundle.size, bundle.size]
        latentShape = [1] + bundle.latentShape
        let place = try Self.place(of: artifact)
        let packages = try CoreMLPackages(at: bundle.url(of: artifact))
        var models: [Output: MLModel] = [:]
        for program in CoreMLPackages.programs {
            let configuration = MLModelConfiguration()
            configuration.computeUnits = units.coreML
            var name = program.rawValue
            if case .functions = packages {
                guard #available(iOS 18.0, *) else { throw Self.needsIOS18(artifact) }
                configuration.functionName = name
                name = Self.functions
            }
            let url = place.appendingPathComponent("\(name).mlmodelc")
            do {
                models[program] = try MLModel(contentsOf: url, configuration: configuration)
            } catch {
                throw ElirError(.runtime, "Core ML cannot load \(artifact.path): \(error.localizedDescription)")
            }
        }
        self.models = models
        // (1, ΣC); in older packages (1, ΣC, 1, 1).
        let row = models[.step]?.modelDescription.inputDescriptionsByName["row"]?.multiArrayConstraint?.shape
        guard let row else {
            throw ElirError(.runtime, "step of \(artifact.path) has no input 'row': export the file again")
        }
        rowShape = row.map(\.intValue)
    }

    public func encode(_ image: [Float]) throws -> [Float] {
        try call(.encode, ["image": MLShapedArray(scalars: image, shape: imageShape)])
    }

    public func step(_ latent: [Float], row: [Float]) throws -> [Float] {
        try call(
            .step,
            [
                "latent": MLShapedArray(scalars: latent, shape: latentShape),
                "row": MLShapedArray(scalars: row, shape: rowShape),
            ])
    }

    public func decode(_ latent: [Float]) throws -> [Float] {
        try call(.decode, ["latent": MLShapedArray(scalars: latent, shape: latentShape)])
    }

    private func call(_ program: Output, _ inputs: [String: MLShapedArray<Float>]) throws -> [Float] {
        guard let model = models[program] else { throw ElirError(.runtime, "there is no \(program.rawValue)") }
        let features: MLFeatureProvider
        do {
            let values = inputs.mapValues { MLFeatureValue(shapedArray: $0) }
            features = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: values))
        } catch {
            throw ElirError(.runtime, "Core ML cannot run \(program.rawValue): \(error.localizedDescription)")
        }
        let name = CoreMLPackages.output(of: program)
        guard let output = features.featureValue(for: name)?.shapedArrayValue(of: Float.self) else {
            throw ElirError(.runtime, "\(program.rawValue) has no output '\(name)': export the file again")
        }
        return output.scalars
    }

    /// `artifact` on the `first` units and, should it compute wrong numbers there, on fewer chips at a time.
    public static func candidates(_ artifact: Artifact, first: ComputeUnits) -> [Candidate<ComputeUnits>] {
        let order: [ComputeUnits] = [.all, .neuralEngine, .gpu, .cpu]
        return order[order.firstIndex(of: first)!...].map {
            Candidate(artifact: artifact, units: $0, title: "\(artifact.path) on \($0.rawValue)")
        }
    }

    // MARK: - Compiled models

    private static let functions = "functions"

    /// Compile `artifact` for this device, once: the result lies in the caches under the file's SHA-256.
    ///
    /// - Throws: ``ElirError``: Core ML refuses the package, or it needs a later iOS.
    public static func compile(_ artifact: Artifact, of bundle: ModelBundle) async throws {
        let place = try place(of: artifact)
        if FileManager.default.fileExists(atPath: place.path) { return }
        var packages: [String: URL] = [:]
        switch try CoreMLPackages(at: bundle.url(of: artifact)) {
        case .functions(let url):
            guard #available(iOS 18.0, *) else { throw needsIOS18(artifact) }
            packages[functions] = url
        case .folder(let urls):
            for (program, url) in urls { packages[program.rawValue] = url }
        }
        let staging = place.appendingPathExtension("part")
        do {
            try? FileManager.default.removeItem(at: staging)
            try FileManager.default.createDirectory(at: staging, withIntermediateDirectories: true)
            for (name, package) in packages {
                let made = try await MLModel.compileModel(at: package)
                try FileManager.default.moveItem(at: made, to: staging.appendingPathComponent("\(name).mlmodelc"))
            }
            try FileManager.default.moveItem(at: staging, to: place)
        } catch {
            throw ElirError(.runtime, "Core ML cannot compile \(artifact.path): \(error.localizedDescription)")
        }
    }

    private static func place(of artifact: Artifact) throws -> URL {
        try FileManager.default.url(for: .cachesDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
            .appendingPathComponent("coreml")
            .appendingPathComponent(artifact.sha256)
    }

    private static func needsIOS18(_ artifact: Artifact) -> ElirError {
        ElirError(
            .runtime,
            "\(artifact.path) needs iOS 18: update the phone, or choose an ExecuTorch file")
    }
}
#endif
