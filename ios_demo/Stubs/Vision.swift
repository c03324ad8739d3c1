import CoreGraphics
import Foundation

public struct VNImageOption: Hashable, RawRepresentable, Sendable {
    public let rawValue: String
    public init(rawValue: String) { fatalError() }
}

open class VNRequest: NSObject {}

open class VNImageBasedRequest: VNRequest {}

public class VNDetectFaceLandmarksRequest: VNImageBasedRequest {
    public override init() { fatalError() }
    public var results: [VNFaceObservation]? { fatalError() }
}

public class VNImageRequestHandler: NSObject {
    public init(cgImage image: CGImage, options: [VNImageOption: Any] = [:]) { fatalError() }
    public func perform(_ requests: [VNRequest]) throws { fatalError() }
}

public class VNFaceObservation: NSObject {
    public var boundingBox: CGRect { fatalError() }
    public var landmarks: VNFaceLandmarks2D? { fatalError() }
}

public class VNFaceLandmarks2D: NSObject {
    public var leftEye: VNFaceLandmarkRegion2D? { fatalError() }
    public var rightEye: VNFaceLandmarkRegion2D? { fatalError() }
    public var noseCrest: VNFaceLandmarkRegion2D? { fatalError() }
    public var outerLips: VNFaceLandmarkRegion2D? { fatalError() }
}

public class VNFaceLandmarkRegion2D: NSObject {
    public func pointsInImage(imageSize: CGSize) -> [CGPoint] { fatalError() }
}
