/// Resizing that gives the bytes that Pillow gives, so that a phone restores what the Python package restores.
///
/// It follows Pillow's `Resample.c`: one axis after the other with an 8-bit picture in between, and weights
/// in fixed point with 22 bits after the point.

import Foundation

/// How a picture is resized, by Pillow's names.
public enum ResampleFilter: String, Decodable, Sendable {
    case nearest, box, bicubic, lanczos

    /// Reach of the kernel in pixels.
    fileprivate var support: Double {
        switch self {
        case .nearest: return 0
        case .box: return 0.5
        case .bicubic: return 2
        case .lanczos: return 3
        }
    }

    func weight(_ x: Double) -> Double {
        switch self {
        case .nearest:
            return 1
        case .box:
            return x > -0.5 && x <= 0.5 ? 1 : 0
        case .bicubic:  // Keys' cubic with a = -0.5
            let (a, d) = (-0.5, abs(x))
            if d < 1 { return ((a + 2) * d - (a + 3)) * d * d + 1 }
            return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0
        case .lanczos:
            return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0
        }
    }
}

private func sinc(_ x: Double) -> Double { x == 0 ? 1 : sin(x * .pi) / (x * .pi) }

extension Picture {
    /// The part of the picture within `across` and `down` (pixels and parts of them) at `width`×`height`.
    func resampled(
        width: Int, height: Int, filter: ResampleFilter, across: ClosedRange<Double>, down: ClosedRange<Double>
    ) -> Picture {
        var picture = self
        if let axis = Axis(from: across, size: picture.width, count: width, filter: filter) {
            let source = picture.pixels
            let stride = picture.width * colours
            picture = Picture(width: width, height: picture.height)
            for y in 0..<picture.height {
                for x in 0..<width {
                    for c in 0..<colours {
                        picture.pixels[(y * width + x) * colours + c] = axis.sample(
                            source, offset: y * stride + c, pitch: colours, x)
                    }
                }
            }
        }
        if let axis = Axis(from: down, size: picture.height, count: height, filter: filter) {
            let source = picture.pixels
            let stride = picture.width * colours
            picture = Picture(width: picture.width, height: height)
            for y in 0..<height {
                for x in 0..<stride {
                    picture.pixels[y * stride + x] = axis.sample(source, offset: x, pitch: stride, y)
                }
            }
        }
        return picture
    }
}

/// Along one axis: output sample i is made of the inputs from `firsts[i]` on, weighted by `weights[i]`.
private struct Axis {
    private static let bits = 22

    private var firsts: [Int] = []
    private var weights: [[Int32]] = []

    /// How to get `count` samples from those within `range`, of `size`; nil: they are the same.
    init?(from range: ClosedRange<Double>, size: Int, count: Int, filter: ResampleFilter) {
        let (from, to) = (range.lowerBound, range.upperBound)
        if count == size && from == 0 && to == Double(size) { return nil }
        let scale = (to - from) / Double(count)
        let stretch = max(scale, 1)
        let support = filter.support * stretch
        for i in 0..<count {
            let centre = from + (Double(i) + 0.5) * scale
            if filter == .nearest {
                firsts.append(Int(centre))
                weights.append([1 << Self.bits])
                continue
            }
            let first = max(Int(centre - support + 0.5), 0)
            let last = min(Int(centre + support + 0.5), size)
            let kernel = (first..<last).map { filter.weight((Double($0) - centre + 0.5) / stretch) }
            let sum = kernel.reduce(0, +)
            firsts.append(first)
            weights.append(
                kernel.map { Int32(($0 / sum * Double(1 << Self.bits)).rounded(.toNearestOrAwayFromZero)) })
        }
    }

    func sample(_ pixels: [UInt8], offset: Int, pitch: Int, _ i: Int) -> UInt8 {
        var sum: Int32 = 1 << (Self.bits - 1)
        var at = offset + firsts[i] * pitch
        for weight in weights[i] {
            sum &+= Int32(pixels[at]) &* weight
            at += pitch
        }
        return UInt8(min(max(sum >> Self.bits, 0), 255))
    }
}
