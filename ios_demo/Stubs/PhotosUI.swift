import Foundation
import SwiftUI

public struct PHPickerFilter: Equatable, Hashable {
    public static var images: PHPickerFilter { fatalError() }
}

public struct PhotosPickerItem: Equatable, Hashable, Sendable {
    public func loadTransferable<T: Transferable>(type: T.Type) async throws -> T? { fatalError() }
}

public struct PhotosPicker<Label: View>: PrimitiveView {
    public init(
        selection: Binding<PhotosPickerItem?>, matching filter: PHPickerFilter? = nil,
        @ViewBuilder label: () -> Label
    ) { fatalError() }
}
