/// The three methods of a `.pte`, run by ExecuTorch: by XNNPACK on the CPU, or by Core ML.
///
/// `Module` and `Tensor` are ExecuTorch's; it also has an `Error` of its own, hence `Swift.Error` here.

import ElirCore
import ExecuTorch
import Foundation

final class ExecuTorchPrograms: Programs {
    static let target = "executorch"
    static let coreMLTarget = "executorch/coreml"

    private let module: Module
    private let imageShape: [Int]
    private let latentShape: [Int]

    /// - Throws: ``ElirError``: the file cannot be loaded, or lacks a method.
    init(_ bundle: ModelBundle, _ artifact: Artifact) throws {
        imageShape = [1, colours, bundle.size, bundle.size]
        latentShape = [1] + bundle.latentShape
        module = Module(filePath: bundle.url(of: artifact).path)
        do {
            for method in ["encode", "step", "decode"] { try module.load(method) }
        } catch {
            throw ElirError(.runtime, "ExecuTorch cannot load \(artifact.path): \(error.localizedDescription)")
        }
    }

    func encode(_ image: [Float]) throws -> [Float] {
        try call("encode", [Tensor<Float>(image, shape: imageShape)])
    }

    func step(_ latent: [Float], row: [Float]) throws -> [Float] {
        let row = Tensor<Float>(row, shape: [1, row.count, 1, 1])
        return try call("step", [Tensor<Float>(latent, shape: latentShape), row])
    }

    func decode(_ latent: [Float]) throws -> [Float] {
        try call("decode", [Tensor<Float>(latent, shape: latentShape)])
    }

    /// The output is copied: the next call writes over the module's own memory.
    private func call(_ method: String, _ inputs: [ValueConvertible]) throws -> [Float] {
        do {
            let output: Tensor<Float> = try module.execute(method, inputs)
            return output.scalars()
        } catch {
            throw ElirError(.runtime, "ExecuTorch cannot run \(method): \(error.localizedDescription)")
        }
    }
}
