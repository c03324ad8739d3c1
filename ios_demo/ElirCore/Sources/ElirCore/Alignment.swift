/// From a photograph to the square that a face network was trained on, and back: `elir_mobile/faces/align.py`.
///
/// Coordinates are in pixels and continuous: pixel `i` covers `i` to `i + 1`.

import Foundation

/// A place in a picture.
public struct Point: Equatable, Sendable {
    public var x: Double
    public var y: Double

    public init(_ x: Double, _ y: Double) {
        self.x = x
        self.y = y
    }

    /// The middle of `points`.
    public static func mean(_ points: [Point]) -> Point {
        let count = Double(points.count)
        return Point(points.reduce(0) { $0 + $1.x } / count, points.reduce(0) { $0 + $1.y } / count)
    }
}

/// Left eye, right eye (as seen in the picture), nose, left and right corner of the mouth in a square of side 1: the
/// mean positions in FFHQ that facexlib gives for 512 pixels (`FaceRestoreHelper.face_template`).
public let faceTemplate = [
    Point(192.98138 / 512, 239.94708 / 512),
    Point(318.90277 / 512, 240.19360 / 512),
    Point(256.63416 / 512, 314.01935 / 512),
    Point(201.26117 / 512, 371.41043 / 512),
    Point(313.08905 / 512, 371.15118 / 512),
]

/// A turn with a scale, the complex factor `re` + i·`im`, and a shift.
public struct Similarity: Sendable {
    public let re: Double
    public let im: Double
    public let dx: Double
    public let dy: Double

    init(re: Double, im: Double, dx: Double, dy: Double) {
        (self.re, self.im, self.dx, self.dy) = (re, im, dx, dy)
    }

    /// The map that brings `source` nearest to `target` in least squares (Umeyama 1991), never a mirror image.
    public init(from source: [Point], to target: [Point]) {
        let (p, q) = (Point.mean(source), Point.mean(target))
        var (re, im, spread) = (0.0, 0.0, 0.0)
        for (from, to) in zip(source, target) {
            let (ax, ay, bx, by) = (from.x - p.x, from.y - p.y, to.x - q.x, to.y - q.y)
            re += ax * bx + ay * by
            im += ax * by - ay * bx
            spread += ax * ax + ay * ay
        }
        (re, im) = (re / spread, im / spread)
        self.init(re: re, im: im, dx: q.x - (re * p.x - im * p.y), dy: q.y - (im * p.x + re * p.y))
    }

    /// The map of a face's five points to its aligned square of side `size`.
    public init(aligning points: [Point], size: Int) {
        let side = Double(size)
        self.init(from: points, to: faceTemplate.map { Point($0.x * side, $0.y * side) })
    }

    /// How many times longer it makes things.
    public var scale: Double { (re * re + im * im).squareRoot() }

    /// Where `point` goes.
    public func callAsFunction(_ point: Point) -> Point {
        Point(re * point.x - im * point.y + dx, im * point.x + re * point.y + dy)
    }

    /// The map back.
    public var inverse: Similarity {
        let square = re * re + im * im
        let (a, b) = (re / square, -im / square)
        return Similarity(re: a, im: b, dx: -(a * dx - b * dy), dy: -(b * dx + a * dy))
    }

    /// This after a change of scale.
    func after(scaling factor: Double) -> Similarity {
        Similarity(re: re * factor, im: im * factor, dx: dx, dy: dy)
    }

    /// This, and then a shift.
    func shifted(_ x: Double, _ y: Double) -> Similarity { Similarity(re: re, im: im, dx: dx + x, dy: dy + y) }
}

/// The four corners of a picture.
func corners(_ width: Double, _ height: Double) -> [Point] {
    [Point(0, 0), Point(width, 0), Point(width, height), Point(0, height)]
}

/// Weights along one axis that make `count` samples of `size` as PyTorch's `interpolate(mode="bicubic",
/// antialias=True)`: Keys' cubic with a = -0.5, widened where it shrinks.
struct Taps {
    private var firsts: [Int] = []
    private var weights: [[Float]] = []

    init(size: Int, count: Int) {
        let scale = Double(size) / Double(count)
        let stretch = max(scale, 1)
        for i in 0..<count {
            let centre = (Double(i) + 0.5) * scale
            let first = max(Int(centre - 2 * stretch + 0.5), 0)
            let last = min(Int(centre + 2 * stretch + 0.5), size)
            let kernel = (first..<last).map { ResampleFilter.bicubic.weight((Double($0) - centre + 0.5) / stretch) }
            let sum = kernel.reduce(0, +)
            firsts.append(first)
            weights.append(kernel.map { Float($0 / sum) })
        }
    }

    /// The samples of a line; `read` gives those that it is made of, by index.
    func along(_ out: inout [Float], from start: Int, channels: Int, read: (Int) -> Float) {
        for (i, taps) in weights.enumerated() {
            for c in 0..<channels {
                var sum: Float = 0
                for (k, weight) in taps.enumerated() { sum += weight * read((firsts[i] + k) * channels + c) }
                out[start + i * channels + c] = sum
            }
        }
    }

    /// Each column of `wide`, whose lines have `line` values.
    func down(_ wide: [Float], line: Int) -> [Float] {
        var out: [Float] = []
        out.reserveCapacity(weights.count * line)
        for i in weights.indices { out += self.line(i, of: wide, count: line) }
        return out
    }

    /// Line `i` of what ``down(_:line:)`` gives.
    func line(_ i: Int, of wide: [Float], count: Int) -> [Float] {
        var out = [Float](repeating: 0, count: count)
        for (k, weight) in weights[i].enumerated() {
            let from = (firsts[i] + k) * count
            for x in 0..<count { out[x] += weight * wide[from + x] }
        }
        return out
    }
}

/// A picture through a similarity, line by line, so that no more of it is in memory as floats than is looked at:
/// bicubic (Keys' cubic with a = -0.75, as PyTorch's `grid_sample`), reduced with antialiasing first where it shrinks.
/// Its borders are mirrored, as FFHQ's are. Values are those of bytes, and a little beyond 0 and 255.
struct Warp {
    let width: Int
    let height: Int
    private let back: Similarity
    private let (left, top): (Int, Int)
    private let (columns, rows): (Int, Int)
    /// Samples of the part to a pixel of the picture.
    private let (shrunkX, shrunkY): (Double, Double)
    private let part: [Float]

    init(_ picture: Picture, _ map: Similarity, width: Int, height: Int) {
        (self.width, self.height, back) = (width, height, map.inverse)
        let needed = corners(Double(width), Double(height)).map { [back] in back($0) }
        let margin = 2 + 2 / min(map.scale, 1)  // what the filters reach
        let (fromX, toX) = Self.reach(needed.map(\.x), margin, picture.width)
        let (fromY, toY) = Self.reach(needed.map(\.y), margin, picture.height)
        let (wide, high) = (toX - fromX, toY - fromY)
        let shrinks = min(map.scale, 1)
        let columns = max(1, Int((Double(wide) * shrinks).rounded(.toNearestOrEven)))
        let rows = max(1, Int((Double(high) * shrinks).rounded(.toNearestOrEven)))
        let line = columns * colours
        let across = Taps(size: wide, count: columns)
        var half = [Float](repeating: 0, count: high * line)
        picture.pixels.withUnsafeBufferPointer { pixels in
            for y in 0..<high {
                let start = ((fromY + y) * picture.width + fromX) * colours
                across.along(&half, from: y * line, channels: colours) { Float(pixels[start + $0]) }
            }
        }
        (left, top, self.columns, self.rows) = (fromX, fromY, columns, rows)
        (shrunkX, shrunkY) = (Double(columns) / Double(wide), Double(rows) / Double(high))
        part = rows == high ? half : Taps(size: high, count: rows).down(half, line: line)
    }

    /// What is needed along an axis of `size` pixels; what lies beyond a border is mirrored from as far inside.
    private static func reach(_ needed: [Double], _ margin: Double, _ size: Int) -> (Int, Int) {
        let (first, last) = (needed.min()! - margin, needed.max()! + margin)
        let low = min(max(min(first, Double(2 * size) - last), 0), Double(size - 1))
        return (Int(low.rounded(.down)), min(Int(max(last, -first).rounded(.up)), size))
    }

    /// Line `y` of the result: (width, 3).
    func line(_ y: Int) -> [Float] {
        var out = [Float](repeating: 0, count: width * colours)
        part.withUnsafeBufferPointer { part in
            for x in 0..<width {
                let place = back(Point(Double(x) + 0.5, Double(y) + 0.5))
                let column = (place.x - Double(left)) * shrunkX - 0.5
                let row = (place.y - Double(top)) * shrunkY - 0.5
                let (firstColumn, firstRow) = (column.rounded(.down), row.rounded(.down))
                let (across, down) = (cubic(column - firstColumn), cubic(row - firstRow))
                for j in 0..<4 {
                    let from = reflected(Int(firstRow) - 1 + j, rows) * columns
                    for i in 0..<4 {
                        let at = (from + reflected(Int(firstColumn) - 1 + i, columns)) * colours
                        let weight = down[j] * across[i]
                        for c in 0..<colours { out[x * colours + c] += weight * part[at + c] }
                    }
                }
            }
        }
        return out
    }

    /// All of it as a picture.
    func picture() -> Picture {
        var pixels: [UInt8] = []
        pixels.reserveCapacity(width * height * colours)
        for y in 0..<height { pixels += line(y).map(byte) }
        return Picture(width: width, height: height, pixels: pixels)
    }
}

/// Keys' cubic with a = -0.75 at the four samples around a place `t` behind the second.
private func cubic(_ t: Double) -> SIMD4<Float> {
    let a = -0.75
    func near(_ x: Double) -> Double { ((a + 2) * x - (a + 3)) * x * x + 1 }
    func far(_ x: Double) -> Double { ((a * x - 5 * a) * x + 8 * a) * x - 4 * a }
    return SIMD4(Float(far(t + 1)), Float(near(t)), Float(near(1 - t)), Float(far(2 - t)))
}

private func reflected(_ index: Int, _ size: Int) -> Int {
    let turn = ((index % (2 * size)) + 2 * size) % (2 * size)
    return turn < size ? turn : 2 * size - 1 - turn
}

/// A value of 0 to 255 as a byte, halves to even.
func byte(_ value: Float) -> UInt8 { UInt8(min(max(value.rounded(.toNearestOrEven), 0), 255)) }
