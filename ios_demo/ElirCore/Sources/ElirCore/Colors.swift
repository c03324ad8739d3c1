/// Colours of the photograph for its restored picture: `elir_mobile/colors.py`.

import Foundation

private let band = 16  // pixels; waves longer than about twice this are the photograph's
/// Full-range BT.601, as in JPEG: red, green and blue to Cb and Cr, and how much of these is in each.
private let (toBlue, toRed) = (
    SIMD3<Float>(-0.168736, -0.331264, 0.5), SIMD3<Float>(0.5, -0.418688, -0.081312)
)
private let (fromBlue, fromRed) = (SIMD3<Float>(0, -0.344136, 1.772), SIMD3<Float>(1.402, -0.714136, 0))

extension Picture {
    /// Whether it has no colour at all.
    public var isGrey: Bool {
        for at in stride(from: 0, to: pixels.count, by: colours) {
            let red = pixels[at]
            if red != pixels[at + 1] || red != pixels[at + 2] { return false }
        }
        return true
    }

    /// Take the chroma of `given`, of the same size, at low frequencies; be grey where that is.
    public mutating func keepColors(of given: Picture) {
        if given.isGrey { return loseColors() }
        func reduced(_ side: Int) -> Int {
            max(1, Int((Double(side) / Double(band)).rounded(.toNearestOrEven)))
        }
        let (columns, rows) = (reduced(width), reduced(height))
        func small(_ picture: Picture) -> [UInt8] {
            // Pillow reduces the lines of a tall picture before its columns, which rounds in another place.
            let lower =
                height > 2 * width
                ? picture.resampled(
                    width: width, height: rows, filter: .box, across: 0...Double(width), down: 0...Double(height))
                : picture
            return lower.resampled(
                width: columns, height: rows, filter: .box, across: 0...Double(width), down: 0...Double(lower.height)
            ).pixels
        }
        let (theirs, ours) = (small(given), small(self))
        // Cb and Cr side by side, first as wide as the picture: a sixteenth of its lines.
        let (across, down) = (Taps(size: columns, count: width), Taps(size: rows, count: height))
        var wide = [Float](repeating: 0, count: rows * width * 2)
        for y in 0..<rows {
            let moved = (0..<columns).flatMap { x -> [Float] in
                let at = (y * columns + x) * colours
                let change = SIMD3((0..<colours).map { Float(theirs[at + $0]) - Float(ours[at + $0]) })
                return [(change * toBlue).sum(), (change * toRed).sum()]
            }
            across.along(&wide, from: y * width * 2, channels: 2) { moved[$0] }
        }
        for y in 0..<height {
            let chroma = down.line(y, of: wide, count: width * 2)
            for x in 0..<width {
                let change = fromBlue * chroma[2 * x] + fromRed * chroma[2 * x + 1]
                let at = (y * width + x) * colours
                for c in 0..<colours { pixels[at + c] = byte(Float(pixels[at + c]) + change[c]) }
            }
        }
    }

    /// Pillow's luma of an RGB picture.
    private mutating func loseColors() {
        for at in stride(from: 0, to: pixels.count, by: colours) {
            let luma = 19595 * Int(pixels[at]) + 38470 * Int(pixels[at + 1]) + 7471 * Int(pixels[at + 2])
            for c in 0..<colours { pixels[at + c] = UInt8((luma + 32768) >> 16) }
        }
    }
}
