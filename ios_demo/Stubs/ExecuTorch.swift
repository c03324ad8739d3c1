import Foundation

public enum DataType: Int { case float }

/// ExecuTorch's own error hides Swift's where the module is imported.
public struct Error: Swift.Error {}

public protocol Scalar {
    static var dataType: DataType { get }
}
extension Float: Scalar {
    public static var dataType: DataType { fatalError() }
}

public enum ShapeDynamism: Int { case `static`, dynamicBound, dynamicUnbound }

public class Value: NSObject {}

public protocol ValueConvertible {
    func asValue() -> Value
}
public protocol ValueSequenceConstructible {
    static func from(_ values: [Value]) throws -> Self
}

public final class Tensor<T: Scalar>: Equatable, ValueConvertible, ValueSequenceConstructible {
    public convenience init(
        _ scalars: inout [T], shape: [Int] = [], strides: [Int] = [], dimensionOrder: [Int] = [],
        shapeDynamism: ShapeDynamism = .dynamicBound
    ) { fatalError() }
    public convenience init(
        _ scalars: [T], shape: [Int] = [], strides: [Int] = [], dimensionOrder: [Int] = [],
        shapeDynamism: ShapeDynamism = .dynamicBound
    ) { fatalError() }
    public func scalars() -> [T] { fatalError() }
    public func asValue() -> Value { fatalError() }
    public static func from(_ values: [Value]) throws -> Self { fatalError() }
    public static func == (lhs: Tensor<T>, rhs: Tensor<T>) -> Bool { fatalError() }
}

public enum ModuleLoadMode: Int { case file, mmap, mmapUseMlock, mmapUseMlockIgnoreErrors }

public class Module: NSObject {
    public init(filePath: String) { fatalError() }
    public init(filePath: String, loadMode: ModuleLoadMode) { fatalError() }
    public func load(_ method: String) throws { fatalError() }
    public func execute(_ method: String, _ inputs: [any ValueConvertible]) throws -> [Value] { fatalError() }
    public func execute<Output: ValueSequenceConstructible>(
        _ method: String, _ inputs: [any ValueConvertible]
    ) throws -> Output { fatalError() }
    public func execute<Output: ValueSequenceConstructible>(
        _ method: String, _ inputs: any ValueConvertible...
    ) throws -> Output { fatalError() }
    public func execute<Output: ValueSequenceConstructible>(
        _ method: String, _ input: any ValueConvertible
    ) throws -> Output { fatalError() }
}
