/// The one error for what a user can mend: its message is one sentence that says what to do.

import Foundation

public struct ElirError: LocalizedError, Equatable {
    public enum Fault: Equatable, Sendable {
        /// There is no bundle.
        case missing
        /// A file is absent, changed, or not what the manifest says.
        case damaged
        /// The bundle or job was written for a later version of the app.
        case tooNew
        /// The manifest names a path that leaves the bundle.
        case outside
        /// The app has no runtime for the file, or the runtime refused it.
        case runtime
        /// Not enough memory is left for the model and the picture.
        case memory
        /// The picture, the job or a choice cannot be used.
        case input
    }

    public let fault: Fault
    public let message: String

    public init(_ fault: Fault, _ message: String) {
        self.fault = fault
        self.message = message
    }

    public var errorDescription: String? { message }
}
