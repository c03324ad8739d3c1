/// What outlives a restoration: the photograph's facts in the saved file, the last result after the app's end; and how long
/// it still takes.

import ElirCore
import XCTest

final class PhotoPropertiesTests: XCTestCase {
    private func kept(_ properties: [String: Any]) -> [String: Any] {
        keptProperties(properties, width: 640, height: 480)
    }

    func testTheTagsThatPythonKeepsAreKept() throws {
        let tags = try Fixtures.index().tags
        XCTAssertTrue(tags.count > 15 && Set(tags.values).count == 2)
        let all = Dictionary(uniqueKeysWithValues: tags.keys.map { ($0, "told") })
        let found = try XCTUnwrap(kept(["{TIFF}": all])["{TIFF}"] as? [String: String])
        XCTAssertEqual(Set(found.keys), Set(tags.filter(\.value).keys))
        XCTAssertEqual(Set(found.values), ["told"])
    }

    func testPixelsAreDescribedAsTheyAreSaved() throws {
        let all = kept([
            "Orientation": 6, "PixelWidth": 4032, "ColorModel": "RGB", "ProfileName": "Display P3", "DPIWidth": 72,
            "{Exif}": ["ExposureTime": 0.01, "PixelXDimension": 4032, "PixelYDimension": 3024, "ColorSpace": 65535],
            "{GPS}": ["Latitude": 48.1], "{MakerApple}": ["1": 14], "{JFIF}": ["XDensity": 1],
        ])
        XCTAssertEqual(Set(all.keys), ["Orientation", "DPIWidth", "{Exif}", "{GPS}", "{MakerApple}"])
        XCTAssertEqual(all["Orientation"] as? Int, 1)
        let about = try XCTUnwrap(all["{Exif}"] as? [String: Any])
        XCTAssertEqual(Set(about.keys), ["ExposureTime", "PixelXDimension", "PixelYDimension"])
        XCTAssertEqual(about["PixelXDimension"] as? Int, 640)
        XCTAssertEqual(about["PixelYDimension"] as? Int, 480)
        XCTAssertEqual((all["{GPS}"] as? [String: Double])?["Latitude"], 48.1)
    }

    func testAFileThatSaysNothingGetsNothingButUprightPixels() {
        XCTAssertEqual(kept([:]) as? [String: Int], ["Orientation": 1])
        XCTAssertEqual(kept(["{Exif}": 7, "{TIFF}": "no dictionary"]) as? [String: Int], ["Orientation": 1])
    }
}

final class LastWorkTests: XCTestCase {
    private let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    private struct Full: Error {}

    override func tearDown() { try? FileManager.default.removeItem(at: folder) }

    @discardableResult
    private func keep(_ text: String, of photo: String?, by work: LastWork) async throws -> LastWork.Made {
        try await work.keepMade(of: photo.map { Data($0.utf8) }, facts: "facts of \(text)") { before, after in
            try Data("before \(text)".utf8).write(to: before)
            try Data("after \(text)".utf8).write(to: after)
        }
    }

    private func text(_ url: URL) -> String? { try? String(contentsOf: url, encoding: .utf8) }

    /// As another process finds it: the photograph and the facts.
    private func found() async -> [String?] {
        let kept = await LastWork(folder: folder).kept
        return [kept.photo.map { String(decoding: $0, as: UTF8.self) }, kept.made?.facts]
    }

    private func folders() throws -> Int {
        try FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0 != "last" }.count
    }

    func testAnotherProcessFindsPhotographAndResult() async throws {
        let work = LastWork(folder: folder)
        let none = await found()
        XCTAssertEqual(none, [nil, nil])
        try await work.keep(photo: Data("photo".utf8))
        let opened = await found()
        XCTAssertEqual(opened, ["photo", nil])
        let made = try await keep("a", of: "photo", by: work)
        let later = await LastWork(folder: folder).kept
        XCTAssertEqual(later.photo, Data("photo".utf8))
        XCTAssertEqual(later.made, made)
        XCTAssertEqual([text(made.before), text(made.after), made.facts], ["before a", "after a", "facts of a"])
    }

    func testAResultIsReplacedWholeOrStays() async throws {
        let work = LastWork(folder: folder)
        let made = try await keep("a", of: "a", by: work)
        do {
            _ = try await work.keepMade(of: nil, facts: "b") { before, _ in
                try Data("half".utf8).write(to: before)
                throw Full()
            }
            XCTFail("no error")
        } catch is Full {}
        let after = await found()
        XCTAssertEqual(after, ["a", "facts of a"])
        XCTAssertEqual(text(made.before), "before a")
        XCTAssertEqual(try folders(), 1)  // nothing of the half one
    }

    func testAnotherPhotographForgetsTheResult() async throws {
        let work = LastWork(folder: folder)
        try await keep("a", of: "a", by: work)
        try await work.keep(photo: Data("b".utf8))
        let opened = await found()
        XCTAssertEqual(opened, ["b", nil])
        try await work.keep(photo: nil)
        let none = await found()
        XCTAssertEqual(none, [nil, nil])
    }

    /// Run `body` while no file may grow beyond `bytes`, as on a full disk.
    private func withFiles(below bytes: Int, _ body: () async throws -> Void) async throws {
        #if os(Linux)
        let kind = __rlimit_resource_t(RLIMIT_FSIZE.rawValue)
        #else
        let kind = RLIMIT_FSIZE
        #endif
        signal(SIGXFSZ, SIG_IGN)
        var before = rlimit()
        XCTAssertEqual(getrlimit(kind, &before), 0)
        var limit = rlimit(rlim_cur: rlim_t(bytes), rlim_max: before.rlim_max)
        XCTAssertEqual(setrlimit(kind, &limit), 0)
        defer { setrlimit(kind, &before) }
        try await body()
    }

    func testAPhotographWithoutSpaceLeavesNoEarlierOneInItsPlace() async throws {
        let work = LastWork(folder: folder)
        try await keep("a", of: "a", by: work)
        let large = String(repeating: "b", count: 2_000_000)
        try await withFiles(below: 1_000_000) {
            do {
                try await work.keep(photo: Data(large.utf8))
                XCTFail("no error")
            } catch {}
        }
        let none = await found()
        XCTAssertEqual(none, [nil, nil])
        // With space again, the result brings its photograph with it.
        try await keep("b", of: large, by: work)
        let both = await found()
        XCTAssertEqual(both, [large, "facts of b"])
    }

    func testTheExamplesResultDoesNotStandBesideAnEarlierPhotograph() async throws {
        try await keep("a", of: "a", by: LastWork(folder: folder))
        try await keep("example", of: nil, by: LastWork(folder: folder))  // before the photograph was shown
        let example = await found()
        XCTAssertEqual(example, [nil, "facts of example"])
    }

    func testASharedResultOutlivesTheNextOneAndIsSweptThen() async throws {
        let work = LastWork(folder: folder)
        let shared = try await keep("a", of: "a", by: work)
        try await work.keep(photo: Data("b".utf8))
        let next = try await keep("b", of: "b", by: work)
        XCTAssertNotEqual(shared.after, next.after)
        XCTAssertEqual([text(shared.after), text(next.after)], ["after a", "after b"])
        try await keep("c", of: "b", by: work)
        XCTAssertNil(text(shared.after))
        XCTAssertEqual(try folders(), 3)
        // The next process needs none but the last, which may be shared there.
        let later = LastWork(folder: folder)
        let last = await later.kept.made
        XCTAssertEqual(try folders(), 1)
        try await keep("d", of: "d", by: later)
        XCTAssertEqual(last.flatMap { text($0.after) }, "after c")
        XCTAssertEqual(try folders(), 2)
    }
}

final class HandedOverTests: XCTestCase {
    func testOnlyTheSystemsCopiesAreRemoved() throws {
        let files = FileManager.default
        let folder = files.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        defer { try? files.removeItem(at: folder) }
        let (documents, link) = (folder.appendingPathComponent("documents"), folder.appendingPathComponent("link"))
        for place in ["Inbox/inner", "Photos/Inbox"] {
            try files.createDirectory(
                at: documents.appendingPathComponent(place), withIntermediateDirectories: true)
        }
        try files.createSymbolicLink(at: link, withDestinationURL: documents)
        func isRemoved(_ place: String, in documents: URL, handedOverIn given: URL) throws -> Bool {
            let file = documents.appendingPathComponent(place)
            try Data().write(to: file)
            removeHandedOverCopy(given.appendingPathComponent(place), documents: documents)
            return !files.fileExists(atPath: file.path)
        }
        for place in ["a.jpg", "Photos/Inbox/a.jpg", "Inbox/inner/a.jpg"] {
            XCTAssertFalse(try isRemoved(place, in: documents, handedOverIn: documents), place)
        }
        XCTAssertTrue(try isRemoved("Inbox/a.jpg", in: documents, handedOverIn: documents))
        XCTAssertTrue(try isRemoved("Inbox/a.jpg", in: documents, handedOverIn: link))  // as /private/var and /var
    }
}

final class TimeLeftTests: XCTestCase {
    func testNothingIsSaidBeforeThereIsSomethingToTell() {
        var left = TimeLeft()
        XCTAssertNil(left.report(0, at: 100))
        XCTAssertNil(left.report(0.1, at: 101.9))
        XCTAssertEqual(left.report(0.2, at: 102), .some(8))
        var still = TimeLeft()
        XCTAssertNil(still.report(0.3, at: 0))
        XCTAssertNil(still.report(0.3, at: 60))
    }

    func testLoadingBeforeTheFirstReportCountsNothing() {
        var left = TimeLeft()
        XCTAssertNil(left.report(0.5, at: 1000))
        XCTAssertEqual(left.report(0.75, at: 1010), .some(10))
    }

    func testItFollowsAnotherPace() throws {
        var left = TimeLeft()
        for second in 0...50 { _ = left.report(0.01 * Double(second), at: Double(second)) }
        for call in 1...30 { _ = left.report(0.5 + 0.01 * Double(call), at: 50 + 10 * Double(call)) }
        let last = try XCTUnwrap(left.report(0.81, at: 360))
        XCTAssertEqual(last, 190, accuracy: 1e-6)
    }

    func testWorkThatBeginsAnewIsCountedAnew() {
        var left = TimeLeft()
        _ = left.report(0.5, at: 0)
        _ = left.report(1, at: 100)
        XCTAssertNil(left.report(0.1, at: 200))
        XCTAssertEqual(left.report(0.6, at: 205) ?? 0, 4, accuracy: 1e-9)
    }

    func testPeopleReadSecondsAndMinutes() {
        XCTAssertEqual(TimeLeft.text(11.2), "12 s left")
        XCTAssertEqual(TimeLeft.text(89.9), "90 s left")
        XCTAssertEqual(TimeLeft.text(90), "2 min left")
        XCTAssertEqual(TimeLeft.text(301), "6 min left")
    }
}
