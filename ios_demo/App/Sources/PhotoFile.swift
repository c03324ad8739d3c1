/// Image files to pictures and back: sRGB, 8 bits, EXIF orientation applied by the core.

import CoreGraphics
import ElirApple
import ElirCore
import Foundation
import ImageIO
import Photos
import UniformTypeIdentifiers

enum PhotoFile {
    /// A pixel as it is decoded (4), as it is drawn (4), as it is kept (3), and turned upright (3).
    private static let decodingBytes = 14

    /// The upright picture in an image file of any kind that the system reads, reduced while it is decoded if memory is
    /// short.
    ///
    /// - Throws: ``ElirError``: not an image, or damaged.
    static func read(_ data: Data) throws -> Picture {
        guard let source = CGImageSourceCreateWithData(data as CFData, nil),
            let properties = CGImageSourceCopyPropertiesAtIndex(source, 0, nil) as? [CFString: Any],
            let width = properties[kCGImagePropertyPixelWidth] as? Int,
            let height = properties[kCGImagePropertyPixelHeight] as? Int
        else { throw unreadable }
        let most = largestSide(
            width: width, height: height, bytesPerPixel: decodingBytes, available: Device.availableMemory)
        let options: [CFString: Any] = [
            kCGImageSourceCreateThumbnailFromImageAlways: true, kCGImageSourceThumbnailMaxPixelSize: most,
        ]
        guard let image = CGImageSourceCreateThumbnailAtIndex(source, 0, options as CFDictionary) else {
            throw unreadable
        }
        return try Picture(image).upright(orientation: properties[kCGImagePropertyOrientation] as? Int ?? 1)
    }

    private static var unreadable: ElirError {
        ElirError(.input, "this is not an image that can be read: choose another one")
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
