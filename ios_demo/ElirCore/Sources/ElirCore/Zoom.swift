/// Comparing two pictures by touch: how far they are zoomed, where the line between them is, and what a drag does.
///
/// One finger that moves sideways drags the line, and one that moves up or down is left to what scrolls around the view.
/// Two fingers zoom. In a zoomed picture one finger drags the picture, unless it starts at the line.

/// A rectangle in a view, in points.
public struct Frame: Equatable, Sendable {
    public let left: Double
    public let top: Double
    public let width: Double
    public let height: Double
}

/// What of a picture is seen.
struct Zoom: Equatable {
    static let most = 12.0
    private static let tapped = 3.0

    /// Times as large as all of it in the view.
    var scale = 1.0
    /// Place in the middle of the view, in shares of the picture's width and height.
    var x = 0.5
    var y = 0.5

    /// Where all of a picture with the `aspect` of width to height lies in a view of `width`×`height`.
    func frame(_ width: Double, _ height: Double, aspect: Double) -> Frame {
        let wide = min(width, height * aspect) * scale
        let high = wide / aspect
        return Frame(
            left: placed(x, wide, in: width), top: placed(y, high, in: height), width: wide, height: high)
    }

    /// Where a side of `length` starts: no gap is left where the picture is larger than the view, else it is in the middle.
    private func placed(_ middle: Double, _ length: Double, in view: Double) -> Double {
        length <= view ? (view - length) / 2 : min(max(view / 2 - middle * length, view - length), 0)
    }

    /// `factor` times as large, with what is at `place` staying there.
    func magnified(by factor: Double, at place: Point, _ width: Double, _ height: Double, aspect: Double) -> Zoom {
        let before = frame(width, height, aspect: aspect)
        let scale = min(max(self.scale * factor, 1), Self.most)
        let grown = scale / self.scale
        let left = place.x - (place.x - before.left) * grown
        let top = place.y - (place.y - before.top) * grown
        let (wide, high) = (before.width * grown, before.height * grown)
        return Zoom(scale: scale, x: (width / 2 - left) / wide, y: (height / 2 - top) / high)
            .settled(width, height, aspect: aspect)
    }

    /// Moved by so many points.
    func moved(x byX: Double, y byY: Double, _ width: Double, _ height: Double, aspect: Double) -> Zoom {
        let frame = frame(width, height, aspect: aspect)
        return Zoom(scale: scale, x: x - byX / frame.width, y: y - byY / frame.height)
            .settled(width, height, aspect: aspect)
    }

    /// With the middle that ``frame(_:_:aspect:)`` shows, so that a drag beyond an edge is not to be dragged back.
    private func settled(_ width: Double, _ height: Double, aspect: Double) -> Zoom {
        let frame = frame(width, height, aspect: aspect)
        return Zoom(
            scale: scale, x: (width / 2 - frame.left) / frame.width, y: (height / 2 - frame.top) / frame.height)
    }

    /// After a double tap: larger, or all of it again.
    func tapped(at place: Point, _ width: Double, _ height: Double, aspect: Double) -> Zoom {
        scale > 1 ? Zoom() : magnified(by: Self.tapped, at: place, width, height, aspect: aspect)
    }
}

/// The comparison in a view: give it gestures, draw what it says.
public struct Comparison: Equatable, Sendable {
    /// Points beside the line that belong to it.
    private static let reach = 24.0

    /// What a drag under way does.
    private enum Drag: Equatable, Sendable { case line, picture, others }

    /// Of the view.
    public var width = 0.0
    public var height = 0.0
    /// Width to height of the pictures.
    public var aspect = 1.0
    /// Where the line is, in shares of what is seen of the picture's width.
    public private(set) var split = 0.5
    private var zoom = Zoom()
    private var drag: Drag?
    /// Where the drag under way came down, and was last.
    private var start = Point(0, 0)
    private var last = Point(0, 0)
    /// As a pinch under way found it.
    private var pinched: Zoom?
    private var pinchedAt = Point(0, 0)

    public init() {}

    public var isZoomed: Bool { zoom.scale > 1 }

    /// Where all of the pictures lies in the view.
    public var frame: Frame { zoom.frame(width, height, aspect: aspect) }

    /// Place of the line in the view.
    public var line: Double { seen.from + split * (seen.to - seen.from) }

    private var seen: (from: Double, to: Double) {
        let frame = frame
        return (max(frame.left, 0), min(frame.left + frame.width, width))
    }

    /// One finger that came down at `start` is at `place` now, far enough from there to be no tap. With another start it is
    /// another drag, even if the end of the one before was not told.
    public mutating func dragged(from start: Point, to place: Point) {
        if drag == nil || start != self.start {
            drag = begun(start, place)
            (self.start, last) = (start, start)
        }
        if pinched != nil { drag = .others }
        switch drag {
        case .line: moveLine(to: (place.x - seen.from) / (seen.to - seen.from))
        case .picture:
            zoom = zoom.moved(x: place.x - last.x, y: place.y - last.y, width, height, aspect: aspect)
        case .others, nil: break
        }
        last = place
    }

    private func begun(_ start: Point, _ place: Point) -> Drag {
        if isZoomed { return abs(start.x - line) <= Self.reach ? .line : .picture }
        return abs(place.x - start.x) > abs(place.y - start.y) ? .line : .others
    }

    public mutating func dragEnded() { drag = nil }

    /// Two fingers that came down about `place` are `factor` times as far apart as then. About another place it is another
    /// pinch, as with drags.
    public mutating func pinched(by factor: Double, at place: Point) {
        let before = place == pinchedAt ? pinched ?? zoom : zoom
        (pinched, pinchedAt) = (before, place)
        zoom = before.magnified(by: factor, at: place, width, height, aspect: aspect)
    }

    public mutating func pinchEnded() { pinched = nil }

    public mutating func doubleTapped(at place: Point) {
        zoom = zoom.tapped(at: place, width, height, aspect: aspect)
    }

    /// Put the line at a share of what is seen.
    public mutating func moveLine(to share: Double) { split = min(max(share, 0), 1) }

    /// `factor` times as large, about the middle.
    public mutating func zoomed(by factor: Double) {
        zoom = zoom.magnified(by: factor, at: Point(width / 2, height / 2), width, height, aspect: aspect)
    }
}
