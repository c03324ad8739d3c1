/// Overlapping windows whose raised-cosine weights sum to one at every sample, as `elir_mobile/core/tiling.py`.

import Foundation

/// One window along an axis.
public struct Window: Equatable, Sendable {
    public let start: Int
    /// What each sample counts.
    public let weights: [Float]

    public var stop: Int { start + weights.count }
}

/// Windows of `tile` samples, or one of `length` if that is less, that cover `length` and share at least
/// `overlap` samples. The last is moved back to end with the axis.
///
/// - Precondition: `overlap` is not negative and less than `tile`.
public func axisWindows(length: Int, tile: Int, overlap: Int) -> [Window] {
    precondition((0..<tile).contains(overlap), "overlap \(overlap) is not within 0 and tile \(tile)")
    if length <= tile { return [Window(start: 0, weights: Array(repeating: 1, count: length))] }
    let starts = Array(stride(from: 0, to: length - tile, by: tile - overlap)) + [length - tile]
    let bump = (0..<tile).map { i -> Double in
        let ramp = Double(min(i, tile - 1 - i)) + 0.5  // distance from the nearer end
        let rise = sin(Double.pi / 2 * min(ramp / Double(max(overlap, 1)), 1))
        return rise * rise
    }
    var total = [Double](repeating: 0, count: length)
    for start in starts { for (i, value) in bump.enumerated() { total[start + i] += value } }
    return starts.map { start in
        Window(start: start, weights: bump.enumerated().map { Float($0.element / total[start + $0.offset]) })
    }
}
