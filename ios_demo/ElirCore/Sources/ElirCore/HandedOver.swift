/// Files that another app hands over: what the system copied for that is not left in the app's folder.

import Foundation

/// Remove `file` if it is a copy that the system made to hand it over, which lies in the folder `Inbox` of the app's
/// `documents`; a file of the user's elsewhere stays.
public func removeHandedOverCopy(_ file: URL, documents: URL) {
    let inbox = documents.appendingPathComponent("Inbox", isDirectory: true)
    let holder = file.deletingLastPathComponent()
    guard holder.resolvingSymlinksInPath().path == inbox.resolvingSymlinksInPath().path else { return }
    try? FileManager.default.removeItem(at: file)
}
