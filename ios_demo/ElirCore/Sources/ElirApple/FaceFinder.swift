/// The faces of a photograph, found by Vision.

#if canImport(Vision)
import CoreGraphics
import ElirCore
import Foundation
import Vision

public enum FaceFinder {
    /// The faces of `photo`, the largest first.
    ///
    /// - Throws: ``ElirError``: Vision refuses the picture.
    public static func find(in photo: Picture) throws -> [Face] {
        guard let image = photo.image() else {
            throw ElirError(.memory, "there is no memory to look for faces: use a smaller picture")
        }
        let request = VNDetectFaceLandmarksRequest()
        do {
            try VNImageRequestHandler(cgImage: image, options: [:]).perform([request])
        } catch {
            throw ElirError(.runtime, "Vision cannot look for faces: \(error.localizedDescription)")
        }
        let size = CGSize(width: photo.width, height: photo.height)
        return (request.results ?? [])
            .sorted { $0.boundingBox.height > $1.boundingBox.height }
            .compactMap { face(of: $0, size: size) }
    }

    /// Vision counts from below.
    private static func face(of found: VNFaceObservation, size: CGSize) -> Face? {
        guard let landmarks = found.landmarks else { return nil }
        let outlines = [landmarks.leftEye, landmarks.rightEye, landmarks.noseCrest, landmarks.outerLips]
            .compactMap { region in
                region?.pointsInImage(imageSize: size).map { Point(Double($0.x), Double(size.height - $0.y)) }
            }
        guard outlines.count == 4, outlines.allSatisfy({ !$0.isEmpty }) else { return nil }
        return Face(eyes: Array(outlines[..<2]), ridge: outlines[2], lips: outlines[3])
    }
}
#endif
