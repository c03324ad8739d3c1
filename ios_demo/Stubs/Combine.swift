import Foundation

public protocol ObservableObject: AnyObject {}

public protocol Publisher<Output, Failure> {
    associatedtype Output
    associatedtype Failure: Error
}

@propertyWrapper public struct Published<Value> {
    public struct Publisher {}
    public init(wrappedValue: Value) { fatalError() }
    public var wrappedValue: Value {
        get { fatalError() }
        set { fatalError() }
    }
    public var projectedValue: Publisher { fatalError() }
}

extension NotificationCenter {
    public struct Publisher: Combine.Publisher {
        public typealias Output = Notification
        public typealias Failure = Never
    }
    public func publisher(for name: Notification.Name, object: AnyObject? = nil) -> NotificationCenter.Publisher {
        fatalError()
    }
}
