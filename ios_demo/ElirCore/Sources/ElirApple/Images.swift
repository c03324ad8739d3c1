/// Images of the system as pictures of the core, and back: 8 bits, in the colours of the image.

#if canImport(CoreGraphics)
import CoreGraphics
import ElirCore
import Foundation

extension CGImage {
    /// The space that the numbers of a picture of this image are in: the image's own, so that it keeps its profile, as far as
    /// bytes hold it and the system draws in it; nil: sRGB, as perhaps for PQ and HLG.
    public var pictureSpace: CGColorSpace? {
        guard let space = colorSpace, space.model == .rgb, space.supportsOutput, !CGColorSpaceUsesExtendedRange(space),
            bitmap(width: 1, height: 1, in: space) != nil
        else { return nil }
        return space
    }
}

/// What images are drawn into, 8 bits a colour; nil: there is no memory, or no such drawing in `space`.
private func bitmap(width: Int, height: Int, in space: CGColorSpace) -> CGContext? {
    CGContext(
        data: nil, width: width, height: height, bitsPerComponent: 8, bytesPerRow: width * 4, space: space,
        bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
}

extension Picture {
    /// The pixels of `image` as they lie in it, in `space`, nil: sRGB. What is transparent lies on white.
    ///
    /// - Throws: ``ElirError``: there is no memory for it.
    public init(_ image: CGImage, in space: CGColorSpace?) throws {
        let (width, height) = (image.width, image.height)
        guard let space = space ?? CGColorSpace(name: CGColorSpace.sRGB),
            let context = bitmap(width: width, height: height, in: space),
            let base = context.data
        else { throw ElirError(.memory, "there is no memory for \(width)×\(height) pixels: use a smaller picture") }
        let frame = CGRect(x: 0, y: 0, width: width, height: height)
        context.setFillColor(red: 1, green: 1, blue: 1, alpha: 1)
        context.fill(frame)
        context.draw(image, in: frame)
        let drawn = UnsafeRawBufferPointer(start: base, count: width * height * 4)
        var pixels = [UInt8](repeating: 0, count: width * height * colours)
        for at in 0..<width * height {
            for c in 0..<colours { pixels[at * colours + c] = drawn[at * 4 + c] }
        }
        self.init(width: width, height: height, pixels: pixels)
    }

    /// For the screen and for files, its numbers being in `space`, nil: sRGB. Nil: there is no memory for it.
    public func image(in space: CGColorSpace? = nil) -> CGImage? {
        guard let space = space ?? CGColorSpace(name: CGColorSpace.sRGB),
            let provider = CGDataProvider(data: Data(pixels) as CFData)
        else { return nil }
        return CGImage(
            width: width, height: height, bitsPerComponent: 8, bitsPerPixel: 8 * colours,
            bytesPerRow: width * colours, space: space,
            bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.none.rawValue), provider: provider, decode: nil,
            shouldInterpolate: true, intent: .defaultIntent)
    }
}
#endif
