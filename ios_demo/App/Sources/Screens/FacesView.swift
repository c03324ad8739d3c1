/// A photograph with a ring around each face, which a tap switches off and on.

import ElirCore
import Foundation
import SwiftUI

struct FacesView: View {
    let photo: CGImage
    let faces: [Face]
    /// Numbers of the faces that are left alone.
    @Binding var left: Set<Int>

    /// Of a face, in sides of its aligned square.
    private static let ring = 0.8

    var body: some View {
        GeometryReader { geometry in
            let scale = geometry.size.width / CGFloat(photo.width)
            ZStack(alignment: .leading) {
                Image(decorative: photo, scale: 1).resizable().scaledToFit()
                ForEach(Array(faces.indices), id: \.self) { number in
                    ring(number)
                        .frame(
                            width: faces[number].side * Self.ring * scale,
                            height: faces[number].side * Self.ring * scale
                        )
                        .position(x: faces[number].middle.x * scale, y: faces[number].middle.y * scale)
                }
            }
        }
        .aspectRatio(CGFloat(photo.width) / CGFloat(photo.height), contentMode: .fit)
    }

    private func ring(_ number: Int) -> some View {
        Button {
            if left.remove(number) == nil { left.insert(number) }
        } label: {
            Circle().stroke(Color.white, lineWidth: 3).opacity(left.contains(number) ? 0.35 : 1)
        }
        .buttonStyle(.plain)
        .contentShape(Circle())
        .accessibilityLabel("Face \(number + 1)")
        .accessibilityValue(left.contains(number) ? "left alone" : "restored")
    }
}
