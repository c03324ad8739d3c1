/// Image files to pictures and back: sRGB, 8 bits, EXIF orientation applied by the core.

import CoreGraphics
import ElirCore
import Foundation
import ImageIO
import Photos
import UniformTypeIdentifiers

enum PhotoFile {
    /// A pixel as it is drawn (4), as it is kept (3), and turned upright (3).
    private static let decodingBytes = 10

    /// The upright picture in an image file of any kind that the system reads.
    ///
    /// - Throws: ``ElirError``: not an image, or damaged.
    static func read(_ data: Data) throws -> Picture {
        guard let source = CGImageSourceCreateWithData(data as CFData, nil),
            let image = CGImageSourceCreateImageAtIndex(source, 0, nil)
        else { throw ElirError(.input, "this is not an image that can be read: choose another one") }
        let properties = CGImageSourceCopyPropertiesAtIndex(source, 0, nil) as? [CFString: Any]
        let orientation = properties?[kCGImagePropertyOrientation] as? Int ?? 1
        return try picture(of: image).upright(orientation: orientation)
    }

    /// Colours are converted to sRGB; transparent pixels are laid on white.
    private static func picture(of image: CGImage) throws -> Picture {
        let (width, height) = (image.width, image.height)
        guard width * height * decodingBytes <= Device.availableMemory,
            let space = CGColorSpace(name: CGColorSpace.sRGB),
            let context = CGContext(
                data: nil, width: width, height: height, bitsPerComponent: 8, bytesPerRow: width * 4, space: space,
                bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue),
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
        return Picture(width: width, height: height, pixels: pixels)
    }

    /// `picture` for the screen and for files.
    static func image(of picture: Picture) -> CGImage? {
        guard let space = CGColorSpace(name: CGColorSpace.sRGB),
            let provider = CGDataProvider(data: Data(picture.pixels) as CFData)
        else { return nil }
        return CGImage(
            width: picture.width, height: picture.height, bitsPerComponent: 8, bitsPerPixel: 8 * colours,
            bytesPerRow: picture.width * colours, space: space,
            bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.none.rawValue), provider: provider, decode: nil,
            shouldInterpolate: true, intent: .defaultIntent)
    }

    /// Write `image` as a PNG into the temporary folder.
    ///
    /// - Throws: ``ElirError``: the file cannot be written.
    static func write(_ image: CGImage, name: String) throws -> URL {
        let url = FileManager.default.temporaryDirectory.appendingPathComponent(name)
        let type = UTType.png.identifier as CFString
        guard let destination = CGImageDestinationCreateWithURL(url as CFURL, type, 1, nil) else {
            throw ElirError(.input, "\(name) cannot be written: free some space on the phone")
        }
        CGImageDestinationAddImage(destination, image, nil)
        guard CGImageDestinationFinalize(destination) else {
            throw ElirError(.input, "\(name) cannot be written: free some space on the phone")
        }
        return url
    }

    /// Add the file at `url` to the user's photos.
    ///
    /// - Throws: ``ElirError``: not allowed.
    static func saveToLibrary(_ url: URL) async throws {
        guard await PHPhotoLibrary.requestAuthorization(for: .addOnly) == .authorized else {
            throw ElirError(.input, "the app may not add photos: allow it in Settings › ELIR › Photos")
        }
        try await PHPhotoLibrary.shared().performChanges {
            PHAssetCreationRequest.forAsset().addResource(with: .photo, fileURL: url, options: nil)
        }
    }
}
