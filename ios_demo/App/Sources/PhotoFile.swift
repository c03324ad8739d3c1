/// Image files to pictures and back: 8 bits in the photograph's own colours, EXIF orientation applied by the core.

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
    private static let quality = 0.95  // of a JPEG

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
        return try Picture(image, in: space(of: source))
            .upright(orientation: properties[kCGImagePropertyOrientation] as? Int ?? 1)
    }

    /// The file at `url`, which another app hands over: read away from the main actor, as it may come over the network. A copy
    /// that the system made for that is removed.
    ///
    /// - Throws: what the system says if it cannot be read.
    static func read(handedOver url: URL, documents: URL) async throws -> Data {
        try await withCheckedThrowingContinuation { continuation in
            DispatchQueue.global(qos: .userInitiated).async {
                continuation.resume(with: Result { try coordinated(url, documents: documents) })
            }
        }
    }

    private static func coordinated(_ url: URL, documents: URL) throws -> Data {
        let reaches = url.startAccessingSecurityScopedResource()
        defer {
            if reaches { url.stopAccessingSecurityScopedResource() }
            removeHandedOverCopy(url, documents: documents)
        }
        var (refused, found): (NSError?, Result<Data, Error>?)
        NSFileCoordinator().coordinate(readingItemAt: url, error: &refused) { place in
            found = Result { try Data(contentsOf: place) }
        }
        guard let found else { throw refused ?? unreadable }
        return try found.get()
    }

    private static var unreadable: ElirError {
        ElirError(.input, "this is not an image that can be read: choose another one")
    }

    /// The space of the numbers that ``read(_:)`` makes of the file `data`; nil: sRGB.
    static func space(of data: Data?) -> CGColorSpace? {
        data.flatMap { CGImageSourceCreateWithData($0 as CFData, nil) }.flatMap(space)
    }

    /// Not decoded for that: ImageIO does so where pixels are asked for.
    private static func space(of source: CGImageSource) -> CGColorSpace? {
        CGImageSourceCreateImageAtIndex(source, 0, nil)?.pictureSpace
    }

    /// Write `image` as a JPEG to `url`, with what the file `photo` says of the photograph that it was made of.
    ///
    /// - Throws: ``ElirError``: the file cannot be written.
    static func write(_ image: CGImage, to url: URL, madeOf photo: Data?) throws {
        let source = photo.flatMap { CGImageSourceCreateWithData($0 as CFData, nil) }
        let said = source.flatMap { CGImageSourceCopyPropertiesAtIndex($0, 0, nil) as? [String: Any] } ?? [:]
        var properties = keptProperties(said, width: image.width, height: image.height)
        properties[kCGImageDestinationLossyCompressionQuality as String] = quality
        let type = UTType.jpeg.identifier as CFString
        guard let destination = CGImageDestinationCreateWithURL(url as CFURL, type, 1, nil) else { throw unwritable }
        CGImageDestinationAddImage(destination, image, properties as CFDictionary)
        guard CGImageDestinationFinalize(destination) else { throw unwritable }
    }

    private static var unwritable: ElirError {
        ElirError(.input, "the picture cannot be written: free some space on the phone")
    }

    /// The image in a file that ``write(_:to:madeOf:)`` wrote; nil: it is damaged.
    static func image(at url: URL) -> CGImage? {
        CGImageSourceCreateWithURL(url as CFURL, nil).flatMap { CGImageSourceCreateImageAtIndex($0, 0, nil) }
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

/// What was given and what came of it, on the screen and in files.
struct RestoredPair: Identifiable, Sendable {
    let before: CGImage
    let after: CGImage
    let kept: LastWork.Made
    let id = UUID()

    /// What was `made` by an earlier process; nil: its files cannot be read.
    init?(_ made: LastWork.Made) {
        guard let before = PhotoFile.image(at: made.before), let after = PhotoFile.image(at: made.after) else {
            return nil
        }
        (self.before, self.after, kept) = (before, after, made)
    }

    /// `given` and `restored`, shown, and kept by `last`.
    ///
    /// - Parameter photo: the file that `given` was read from; nil: none.
    /// - Throws: ``ElirError``: there is no memory, or no space for the files.
    static func make(
        _ given: Picture, _ restored: Picture, of photo: Data?, facts: String, keptBy last: LastWork
    ) async throws -> RestoredPair {
        let space = PhotoFile.space(of: photo)
        guard let before = given.image(in: space), let after = restored.image(in: space) else {
            throw ElirError(.memory, "there is no memory to show the picture: use a smaller one")
        }
        let kept = try await last.keepMade(of: photo, facts: facts) { first, second in
            try PhotoFile.write(before, to: first, madeOf: nil)
            try PhotoFile.write(after, to: second, madeOf: photo)
        }
        return RestoredPair(before, after, kept)
    }

    private init(_ before: CGImage, _ after: CGImage, _ kept: LastWork.Made) {
        (self.before, self.after, self.kept) = (before, after, kept)
    }
}
