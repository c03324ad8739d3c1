/// The comparison zooms where the fingers are, and leaves to the screen around it what is not its own.

import ElirCore
import XCTest

final class ZoomTests: XCTestCase {
    private var view = Comparison()
    private let near = 1e-9

    override func setUp() {
        view = Comparison()
        (view.width, view.height, view.aspect) = (400, 600, 2)
    }

    func testAllOfThePictureIsInTheMiddleOfTheView() {
        XCTAssertEqual(box(view.frame), [0, 200, 400, 200])
        view.aspect = 0.5
        XCTAssertEqual(box(view.frame), [50, 0, 300, 600])
        XCTAssertEqual(view.line, 200, accuracy: near)
        XCTAssertFalse(view.isZoomed)
    }

    private func box(_ frame: Frame) -> [Double] { [frame.left, frame.top, frame.width, frame.height] }

    func testOneFingerDragsTheLineSidewaysAndLeavesScrollingToOthers() {
        view.dragged(from: Point(100, 300), to: Point(140, 305))
        XCTAssertEqual(view.line, 140, accuracy: near)
        view.dragged(from: Point(100, 300), to: Point(-50, 500))  // once it is a drag it stays one
        XCTAssertEqual(view.split, 0)
        view.dragEnded()
        view.dragged(from: Point(100, 300), to: Point(104, 340))
        view.dragged(from: Point(100, 300), to: Point(300, 340))  // nor does scrolling become a drag
        XCTAssertEqual(view.split, 0)
    }

    func testADragWhoseEndWasNotToldIsOverWhenAnotherBegins() {
        view.dragged(from: Point(100, 300), to: Point(104, 340))  // scrolling, cancelled by the system
        view.dragged(from: Point(120, 300), to: Point(140, 305))
        XCTAssertEqual(view.line, 140, accuracy: near)
        view.doubleTapped(at: Point(200, 300))
        view.dragged(from: Point(10, 300), to: Point(60, 300))
        XCTAssertEqual(view.frame.left, -350, accuracy: near)
        view.dragged(from: Point(300, 300), to: Point(310, 300))  // from its own start
        XCTAssertEqual(view.frame.left, -340, accuracy: near)
    }

    func testAPinchWhoseEndWasNotToldIsOverWhenAnotherBegins() {
        view.pinched(by: 3, at: Point(200, 300))
        view.pinched(by: 2, at: Point(210, 300))
        XCTAssertEqual(view.frame.width, 6 * 400, accuracy: near)
        view.pinchEnded()
        view.pinched(by: 0.5, at: Point(210, 300))  // about the same place as the last, which has ended
        XCTAssertEqual(view.frame.width, 3 * 400, accuracy: near)
    }

    func testWhatIsBetweenTheFingersStaysThere() {
        let before = view.frame
        view.pinched(by: 1.5, at: Point(150, 250))
        view.pinched(by: 2, at: Point(150, 250))  // both since the fingers came down
        let after = view.frame
        XCTAssertEqual(after.width / before.width, 2, accuracy: near)
        XCTAssertEqual((150 - before.left) / before.width, (150 - after.left) / after.width, accuracy: near)
        // 400 points high it does not fill the view: it stays in the middle.
        XCTAssertEqual(after.top, 100, accuracy: near)
        view.dragged(from: Point(100, 250), to: Point(50, 250))  // one of the two fingers is no drag
        XCTAssertEqual(view.frame, after)
        view.pinched(by: 0.01, at: Point(150, 250))
        XCTAssertEqual(view.frame, before)
        view.pinchEnded()
        view.dragEnded()
        view.pinched(by: 3, at: Point(150, 250))
        view.pinchEnded()
        view.pinched(by: 2, at: Point(150, 250))
        XCTAssertEqual(view.frame.width / before.width, 6, accuracy: near)
    }

    func testAZoomedPictureIsDraggedAsFarAsItsEdges() {
        view.doubleTapped(at: Point(200, 300))
        XCTAssertTrue(view.isZoomed)
        XCTAssertEqual(box(view.frame), [-400, 0, 1200, 600])
        let start = Point(50, 300)
        view.dragged(from: start, to: Point(150, 300))
        XCTAssertEqual(view.frame.left, -300, accuracy: near)
        view.dragged(from: start, to: Point(5000, 300))
        XCTAssertEqual(view.frame.left, 0, accuracy: near)
        view.dragged(from: start, to: Point(4990, 300))  // what went beyond the edge need not be dragged back
        XCTAssertEqual(view.frame.left, -10, accuracy: near)
        view.dragEnded()
        view.doubleTapped(at: Point(10, 10))
        XCTAssertFalse(view.isZoomed)
        XCTAssertEqual(box(view.frame), [0, 200, 400, 200])
    }

    func testInAZoomedPictureTheLineIsDraggedWhereItIs() {
        view.doubleTapped(at: Point(200, 300))
        let frame = view.frame
        view.dragged(from: Point(210, 100), to: Point(300, 100))
        XCTAssertEqual(view.line, 300, accuracy: near)
        XCTAssertEqual(view.split, 0.75, accuracy: near)  // of what is seen
        XCTAssertEqual(view.frame, frame)
    }

    func testZoomAndLineHaveTheirEnds() {
        for _ in 0..<20 { view.zoomed(by: 2) }
        XCTAssertEqual(view.frame.width, 12 * 400, accuracy: near)
        for _ in 0..<20 { view.zoomed(by: 0.5) }
        XCTAssertEqual(view.frame.width, 400, accuracy: near)
        view.moveLine(to: 1.2)
        XCTAssertEqual(view.line, 400, accuracy: near)
    }
}
