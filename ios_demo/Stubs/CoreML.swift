import Foundation

public enum MLComputeUnits: Int, Sendable { case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine }

public class MLModelConfiguration: NSObject {
    public var computeUnits: MLComputeUnits {
        get { fatalError() }
        set { fatalError() }
    }
    /// iOS 18.
    public var functionName: String? {
        get { fatalError() }
        set { fatalError() }
    }
}

public protocol MLFeatureProvider {
    var featureNames: Set<String> { get }
    func featureValue(for featureName: String) -> MLFeatureValue?
}

public protocol MLShapedArrayScalar {}
extension Float: MLShapedArrayScalar {}

public struct MLShapedArray<Scalar: MLShapedArrayScalar> {
    public init(scalars: some Sequence<Scalar>, shape: [Int]) { fatalError() }
    public var scalars: [Scalar] { fatalError() }
}

public class MLFeatureValue: NSObject {
    public convenience init<Scalar: MLShapedArrayScalar>(shapedArray: MLShapedArray<Scalar>) { fatalError() }
    public func shapedArrayValue<Scalar: MLShapedArrayScalar>(of type: Scalar.Type) -> MLShapedArray<Scalar>? {
        fatalError()
    }
}

public class MLDictionaryFeatureProvider: NSObject, MLFeatureProvider {
    public init(dictionary: [String: Any]) throws { fatalError() }
    public var featureNames: Set<String> { fatalError() }
    public func featureValue(for featureName: String) -> MLFeatureValue? { fatalError() }
}

public class MLMultiArrayConstraint: NSObject {
    public var shape: [NSNumber] { fatalError() }
}

public class MLFeatureDescription: NSObject {
    public var multiArrayConstraint: MLMultiArrayConstraint? { fatalError() }
}

public class MLModelDescription: NSObject {
    public var inputDescriptionsByName: [String: MLFeatureDescription] { fatalError() }
}

public class MLModel: NSObject {
    public var modelDescription: MLModelDescription { fatalError() }
    public init(contentsOf url: URL, configuration: MLModelConfiguration) throws { fatalError() }
    public class func compileModel(at modelURL: URL) async throws -> URL { fatalError() }
    public func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider { fatalError() }
}
