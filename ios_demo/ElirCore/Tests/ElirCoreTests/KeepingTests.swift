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
    private func keep(_ text: String, by work: LastWork) async throws -> LastWork.Made {
        try await work.keepMade(facts: "facts of \(text)") { before, after in
            try Data("before \(text)".utf8).write(to: before)
            try Data("after \(text)".utf8).write(to: after)
        }
    }

    private func text(_ url: URL) -> String? { try? String(contentsOf: url, encoding: .utf8) }

    func testAnotherProcessFindsPhotographAndResult() async throws {
        let work = LastWork(folder: folder)
        let (photo, made) = (await work.photo, await work.made)
        XCTAssertNil(photo)
        XCTAssertNil(made)
        try await work.keep(photo: Data("photo".utf8))
        let kept = try await keep("a", by: work)
        let next = LastWork(folder: folder)
        let (laterPhoto, laterMade) = (await next.photo, await next.made)
        XCTAssertEqual(laterPhoto, Data("photo".utf8))
        XCTAssertEqual(laterMade, kept)
        XCTAssertEqual([text(kept.before), text(kept.after), kept.facts], ["before a", "after a", "facts of a"])
    }

    func testAResultIsReplacedWholeOrStays() async throws {
        let work = LastWork(folder: folder)
        try await work.keep(photo: nil)
        try await keep("a", by: work)
        do {
            _ = try await work.keepMade(facts: "b") { before, _ in
                try Data("half".utf8).write(to: before)
                throw Full()
            }
            XCTFail("no error")
        } catch is Full {}
        let after = await work.made
        XCTAssertEqual(after?.facts, "facts of a")
        XCTAssertEqual(after.flatMap { text($0.before) }, "before a")
        // What ended while it was written is as good as nothing, and in nobody's way.
        let staging = folder.appendingPathComponent("made.part")
        XCTAssertTrue(FileManager.default.fileExists(atPath: staging.path))
        try await keep("c", by: LastWork(folder: folder))
        XCTAssertFalse(FileManager.default.fileExists(atPath: staging.path))
        let last = await work.made
        XCTAssertEqual(last?.facts, "facts of c")
    }

    func testAnotherPhotographForgetsTheResult() async throws {
        let work = LastWork(folder: folder)
        try await work.keep(photo: Data("a".utf8))
        try await keep("a", by: work)
        try await work.keep(photo: Data("b".utf8))
        let (photo, made) = (await work.photo, await work.made)
        XCTAssertEqual(photo, Data("b".utf8))
        XCTAssertNil(made)
        try await work.keep(photo: nil)
        let none = await work.photo
        XCTAssertNil(none)
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
