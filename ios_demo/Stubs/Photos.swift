import Foundation

public enum PHAccessLevel: Int { case addOnly = 1, readWrite }
public enum PHAuthorizationStatus: Int { case notDetermined, restricted, denied, authorized, limited }
public enum PHAssetResourceType: Int { case photo = 1, video }

public class PHPhotoLibrary: NSObject {
    public class func shared() -> PHPhotoLibrary { fatalError() }
    public class func requestAuthorization(for accessLevel: PHAccessLevel) async -> PHAuthorizationStatus {
        fatalError()
    }
    public func performChanges(_ changeBlock: @escaping () -> Void) async throws { fatalError() }
}

public class PHAssetResourceCreationOptions: NSObject {}

public class PHAssetCreationRequest: NSObject {
    public class func forAsset() -> Self { fatalError() }
    public func addResource(
        with type: PHAssetResourceType, fileURL: URL, options: PHAssetResourceCreationOptions?
    ) { fatalError() }
}
