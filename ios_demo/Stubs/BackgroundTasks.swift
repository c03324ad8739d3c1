import Foundation

public class BGTaskRequest: NSObject {}

/// iOS 26.
public class BGContinuedProcessingTaskRequest: BGTaskRequest {
    public enum SubmissionStrategy: Int, Sendable { case fail, queue }
    public init(identifier: String, title: String, subtitle: String) { fatalError() }
    public var strategy: SubmissionStrategy {
        get { fatalError() }
        set { fatalError() }
    }
}

public class BGTask: NSObject {
    public var expirationHandler: (() -> Void)?
    public func setTaskCompleted(success: Bool) { fatalError() }
}

/// iOS 26.
public class BGContinuedProcessingTask: BGTask, ProgressReporting {
    public var progress: Progress { fatalError() }
}

public class BGTaskScheduler: NSObject {
    public class var shared: BGTaskScheduler { fatalError() }
    public func register(
        forTaskWithIdentifier identifier: String, using queue: DispatchQueue?,
        launchHandler: @escaping (BGTask) -> Void
    ) -> Bool { fatalError() }
    public func submit(_ taskRequest: BGTaskRequest) throws { fatalError() }
    public func cancel(taskRequestWithIdentifier identifier: String) { fatalError() }
}
