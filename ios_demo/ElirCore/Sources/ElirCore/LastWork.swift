/// The photograph that was opened last and what was made of it, in a folder: they outlive the app's process.

import Foundation

public actor LastWork {
    /// What was made of the photograph.
    public struct Made: Equatable, Sendable {
        /// Image files of what was given and of what came of it.
        public let before: URL
        public let after: URL
        /// For people.
        public let facts: String
    }

    private let folder: URL

    public init(folder: URL) { self.folder = folder }

    private var photoFile: URL { folder.appendingPathComponent("photo") }
    private var madeFolder: URL { folder.appendingPathComponent("made") }

    /// The file of the photograph; nil: none was opened.
    public var photo: Data? { try? Data(contentsOf: photoFile) }

    /// Keep `photo`; nil: there is none. What was made of the one before is forgotten.
    ///
    /// - Throws: the folder cannot be written.
    public func keep(photo: Data?) throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        try? FileManager.default.removeItem(at: madeFolder)
        if let photo {
            try photo.write(to: photoFile, options: .atomic)
        } else {
            try? FileManager.default.removeItem(at: photoFile)
        }
    }

    /// What is kept, whole; nil: nothing.
    public var made: Made? {
        guard let facts = try? String(contentsOf: Self.facts(in: madeFolder), encoding: .utf8) else { return nil }
        return Made(before: Self.before(in: madeFolder), after: Self.after(in: madeFolder), facts: facts)
    }

    /// Keep what was made, all of it or, if that fails, what was kept before.
    ///
    /// - Parameter write: writes the two image files.
    /// - Throws: what `write` throws; the folder cannot be written.
    public func keepMade(facts: String, write: @Sendable (_ before: URL, _ after: URL) throws -> Void) throws -> Made {
        let files = FileManager.default
        let staging = folder.appendingPathComponent("made.part")
        try? files.removeItem(at: staging)
        try files.createDirectory(at: staging, withIntermediateDirectories: true)
        try write(Self.before(in: staging), Self.after(in: staging))
        try Data(facts.utf8).write(to: Self.facts(in: staging))
        try? files.removeItem(at: madeFolder)
        try files.moveItem(at: staging, to: madeFolder)
        return Made(before: Self.before(in: madeFolder), after: Self.after(in: madeFolder), facts: facts)
    }

    private static func before(in folder: URL) -> URL { folder.appendingPathComponent("given.jpg") }
    private static func after(in folder: URL) -> URL { folder.appendingPathComponent("restored.jpg") }
    private static func facts(in folder: URL) -> URL { folder.appendingPathComponent("facts.txt") }
}
