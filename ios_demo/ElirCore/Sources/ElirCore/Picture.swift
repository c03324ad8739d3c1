/// Pictures in memory: upright, cropped, cut into tiles of float32.

/// Channels of a picture.
public let colours = 3

/// A square part of a picture, in pixels.
public struct Square: Sendable {
    public let left: Int
    public let top: Int
    public let side: Int

    public init(_ left: Int, _ top: Int, _ side: Int) {
        self.left = left
        self.top = top
        self.side = side
    }
}

/// An 8-bit RGB picture.
public struct Picture: Equatable, Sendable {
    public let width: Int
    public let height: Int
    /// (height, width, 3).
    public internal(set) var pixels: [UInt8]

    public init(width: Int, height: Int, pixels: [UInt8]) {
        precondition(
            width > 0 && height > 0 && pixels.count == width * height * colours,
            "\(pixels.count) bytes are no picture of \(width)×\(height)")
        self.width = width
        self.height = height
        self.pixels = pixels
    }

    /// A black picture.
    init(width: Int, height: Int) {
        self.init(width: width, height: height, pixels: Array(repeating: 0, count: width * height * colours))
    }

    /// The picture as it is to be looked at.
    ///
    /// - Parameter orientation: EXIF's tag, 1 to 8; any other value leaves the picture as it is.
    public func upright(orientation: Int) -> Picture {
        guard (2...8).contains(orientation) else { return self }
        let swapped = orientation >= 5
        var out = Picture(width: swapped ? height : width, height: swapped ? width : height)
        let (right, bottom) = (width - 1, height - 1)
        for y in 0..<out.height {
            for x in 0..<out.width {
                let (column, row): (Int, Int)
                switch orientation {
                case 2: (column, row) = (right - x, y)
                case 3: (column, row) = (right - x, bottom - y)
                case 4: (column, row) = (x, bottom - y)
                case 5: (column, row) = (y, x)
                case 6: (column, row) = (y, bottom - x)
                case 7: (column, row) = (right - y, bottom - x)
                default: (column, row) = (right - y, x)
                }
                let (to, from) = ((y * out.width + x) * colours, (row * width + column) * colours)
                for c in 0..<colours { out.pixels[to + c] = pixels[from + c] }
            }
        }
        return out
    }

    /// The centred square, resized to `side` pixels (Lanczos).
    public func square(side: Int) -> Picture {
        let shorter = Double(min(width, height))
        let (left, top) = ((Double(width) - shorter) / 2, (Double(height) - shorter) / 2)
        return resampled(
            width: side, height: side, filter: .lanczos, across: left...left + shorter, down: top...top + shorter)
    }

    /// `factor` times as large.
    public func enlarged(factor: Int, filter: ResampleFilter) -> Picture {
        resampled(
            width: width * factor, height: height * factor, filter: filter,
            across: 0...Double(width), down: 0...Double(height))
    }

    /// The pixels of `square` as (3, side, side) float32 in [0, 1]. Beyond the right and lower edge the
    /// picture goes on mirrored, its edge pixels repeated.
    public func tile(_ square: Square) -> [Float] {
        let side = square.side
        let columns = (0..<side).map { mirrored(square.left + $0, width) * colours }
        var out = [Float](repeating: 0, count: colours * side * side)
        for y in 0..<side {
            let row = mirrored(square.top + y, height) * width * colours
            for x in 0..<side {
                for c in 0..<colours {
                    out[(c * side + y) * side + x] = Float(pixels[row + columns[x] + c]) / 255
                }
            }
        }
        return out
    }
}

private func mirrored(_ index: Int, _ size: Int) -> Int {
    let turn = index % (2 * size)
    return turn < size ? turn : 2 * size - 1 - turn
}
