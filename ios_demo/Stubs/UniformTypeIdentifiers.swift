public struct UTType: Sendable {
    public static var jpeg: UTType { fatalError() }
    public var identifier: String { fatalError() }
}
