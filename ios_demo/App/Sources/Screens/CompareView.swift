/// Before and after in one place, with a handle between them.

import Foundation
import SwiftUI

struct CompareView: View {
    let before: CGImage
    let after: CGImage
    /// Where the handle is, 0 (all after) to 1 (all before).
    @State private var split = 0.5

    var body: some View {
        GeometryReader { geometry in
            ZStack(alignment: .leading) {
                picture(after)
                picture(before)
                    .mask(alignment: .leading) {
                        Rectangle().frame(width: geometry.size.width * split)
                    }
                Rectangle()
                    .fill(.white)
                    .frame(width: 2)
                    .offset(x: geometry.size.width * split - 1)
            }
            .contentShape(Rectangle())
            .gesture(
                DragGesture(minimumDistance: 0).onChanged { drag in
                    split = min(max(drag.location.x / geometry.size.width, 0), 1)
                }
            )
        }
        .aspectRatio(CGFloat(after.width) / CGFloat(after.height), contentMode: .fit)
        .accessibilityElement()
        .accessibilityLabel("Before and after")
        .accessibilityValue("\(Int((split * 100).rounded())) percent before")
        .accessibilityAdjustableAction { direction in
            switch direction {
            case .increment: split = min(split + 0.1, 1)
            case .decrement: split = max(split - 0.1, 0)
            @unknown default: break
            }
        }
    }

    private func picture(_ image: CGImage) -> some View {
        Image(decorative: image, scale: 1).resizable().scaledToFit()
    }
}
