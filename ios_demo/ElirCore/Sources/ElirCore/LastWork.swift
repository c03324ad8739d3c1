/// The photograph that was opened last and what was made of it, in a folder: they outlive the app's process.
///
/// Each photograph and each result has a folder of its own inside, with all that belongs together; a file says which is the
/// last.

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

    /// So many folders stay: a result may still be shared while another photograph is opened and its result comes.
    private static let staying = 3

    private let folder: URL
    /// Names of the folders that stay, the last one at the end; nil: what an earlier process has left was not looked at.
    private var names: [String]?

    public init(folder: URL) { self.folder = folder }

    private var lastName: URL { folder.appendingPathComponent("last") }

    /// The file of the photograph, nil: none was opened; and what was made of it, or of no photograph, nil: nothing.
    public var kept: (photo: Data?, made: Made?) {
        begin()
        guard let name = try? String(contentsOf: lastName, encoding: .utf8) else { return (nil, nil) }
        let place = folder.appendingPathComponent(name)
        let facts = try? String(contentsOf: Self.facts(in: place), encoding: .utf8)
        return (try? Data(contentsOf: Self.photo(in: place)), facts.map { Self.made(in: place, facts: $0) })
    }

    /// Keep `photo`; nil: there is none. What was kept before is forgotten, also where this fails.
    ///
    /// - Throws: the folder cannot be written.
    public func keep(photo: Data?) throws {
        begin()
        if FileManager.default.fileExists(atPath: lastName.path) { try FileManager.default.removeItem(at: lastName) }
        if let photo { try add { try photo.write(to: Self.photo(in: $0)) } }
    }

    /// Keep what was made of `photo`, nil: of none, all of it or, if that fails, what was kept before.
    ///
    /// - Parameter write: writes the two image files.
    /// - Throws: what `write` throws; the folder cannot be written.
    public func keepMade(
        of photo: Data?, facts: String, write: @Sendable (_ before: URL, _ after: URL) throws -> Void
    ) throws -> Made {
        let place = try add { place in
            try photo?.write(to: Self.photo(in: place))
            try write(Self.before(in: place), Self.after(in: place))
            try Data(facts.utf8).write(to: Self.facts(in: place))
        }
        return Self.made(in: place, facts: facts)
    }

    /// Of what an earlier process has left the last folder stays.
    private func begin() {
        if names == nil { sweep((try? String(contentsOf: lastName, encoding: .utf8)).map { [$0] } ?? []) }
    }

    /// A new folder that `write` fills: the last one once that is done.
    @discardableResult private func add(_ write: (URL) throws -> Void) throws -> URL {
        begin()
        let (files, name) = (FileManager.default, UUID().uuidString)
        let place = folder.appendingPathComponent(name)
        try files.createDirectory(at: place, withIntermediateDirectories: true)
        excludeFromBackup()
        do {
            try write(place)
            try Data(name.utf8).write(to: lastName, options: .atomic)
        } catch {
            try? files.removeItem(at: place)
            throw error
        }
        sweep((names ?? []) + [name])
        return place
    }

    /// Remove all folders but the last of `names`.
    private func sweep(_ names: [String]) {
        let (files, stay) = (FileManager.default, Array(names.suffix(Self.staying)))
        for found in (try? files.contentsOfDirectory(atPath: folder.path)) ?? []
        where found != lastName.lastPathComponent && !stay.contains(found) {
            try? files.removeItem(at: folder.appendingPathComponent(found))
        }
        self.names = stay
    }

    /// The photographs are in the phone's backup where they were taken from, if the user wants that.
    private func excludeFromBackup() {
        var (folder, values) = (folder, URLResourceValues())
        values.isExcludedFromBackup = true
        try? folder.setResourceValues(values)
    }

    private static func made(in folder: URL, facts: String) -> Made {
        Made(before: before(in: folder), after: after(in: folder), facts: facts)
    }

    private static func photo(in folder: URL) -> URL { folder.appendingPathComponent("photo") }
    private static func before(in folder: URL) -> URL { folder.appendingPathComponent("given.jpg") }
    private static func after(in folder: URL) -> URL { folder.appendingPathComponent("restored.jpg") }
    private static func facts(in folder: URL) -> URL { folder.appendingPathComponent("facts.txt") }
}
