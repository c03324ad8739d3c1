/// Before and after in one place, with a line between them; two fingers, two taps, keys and actions zoom.
///
/// Whose a gesture is, is the core's to say (`Zoom.swift`), so that a screen around it can scroll.

import ElirCore
import Foundation
import SwiftUI

struct CompareView: View {
    let before: CGImage
    let after: CGImage
    /// Whether a finger drags the pictures: nothing around them may scroll then.
    @Binding var isZoomed: Bool
    @State private var comparison = Comparison()
    /// Whether these gestures are under way: the system takes it back also where it cancels one, which ends without a word.
    @GestureState private var isDragging = false
    @GestureState private var isPinching = false

    private static let zoomStep = 1.5
    private static let lineStep = 0.1

    var body: some View {
        GeometryReader { geometry in
            let shown = sized(geometry.size)
            ZStack(alignment: .topLeading) {
                picture(after, shown.frame)
                    .offset(x: shown.frame.left, y: shown.frame.top)
                picture(before, shown.frame)
                    .mask(alignment: .leading) {
                        Rectangle().frame(width: max(shown.line - shown.frame.left, 0))
                    }
                    .offset(x: shown.frame.left, y: shown.frame.top)
                Rectangle()
                    .fill(.white)
                    .frame(width: 2)
                    .offset(x: shown.line - 1)
            }
            .frame(width: geometry.size.width, height: geometry.size.height, alignment: .topLeading)
            .clipped()
            .contentShape(Rectangle())
            .onTapGesture(count: 2) { place in change(geometry.size) { $0.doubleTapped(at: point(place)) } }
            .simultaneousGesture(
                DragGesture().updating($isDragging) { _, isDragging, _ in isDragging = true }
                    .onChanged { drag in
                        change(geometry.size) { $0.dragged(from: point(drag.startLocation), to: point(drag.location)) }
                    }
            )
            .simultaneousGesture(
                MagnifyGesture().updating($isPinching) { _, isPinching, _ in isPinching = true }
                    .onChanged { pinch in
                        change(geometry.size) {
                            $0.pinched(by: Double(pinch.magnification), at: point(pinch.startLocation))
                        }
                    }
            )
            .onChange(of: isDragging) { _, isDragging in if !isDragging { comparison.dragEnded() } }
            .onChange(of: isPinching) { _, isPinching in if !isPinching { comparison.pinchEnded() } }
            .accessibilityElement()
            .accessibilityLabel("Before and after")
            .accessibilityValue("\(Int((comparison.split * 100).rounded())) percent before")
            .accessibilityAdjustableAction { direction in
                switch direction {
                case .increment: moveLine(by: Self.lineStep)
                case .decrement: moveLine(by: -Self.lineStep)
                @unknown default: break
                }
            }
            .accessibilityAction(named: "Zoom in") { zoom(geometry.size, by: Self.zoomStep) }
            .accessibilityAction(named: "Zoom out") { zoom(geometry.size, by: 1 / Self.zoomStep) }
            .focusable()
            .onKeyPress(.leftArrow) { key { moveLine(by: -Self.lineStep) } }
            .onKeyPress(.rightArrow) { key { moveLine(by: Self.lineStep) } }
            .onKeyPress("+") { key { zoom(geometry.size, by: Self.zoomStep) } }
            .onKeyPress("-") { key { zoom(geometry.size, by: 1 / Self.zoomStep) } }
        }
        .aspectRatio(CGFloat(aspect), contentMode: .fit)
    }

    private var aspect: Double { Double(after.width) / Double(after.height) }

    private func picture(_ image: CGImage, _ frame: Frame) -> some View {
        Image(decorative: image, scale: 1).resizable().frame(width: frame.width, height: frame.height)
    }

    private func sized(_ size: CGSize) -> Comparison {
        var sized = comparison
        (sized.width, sized.height, sized.aspect) = (Double(size.width), Double(size.height), aspect)
        return sized
    }

    private func change(_ size: CGSize, _ gesture: (inout Comparison) -> Void) {
        var changed = sized(size)
        gesture(&changed)
        comparison = changed
        isZoomed = changed.isZoomed
    }

    private func moveLine(by share: Double) { comparison.moveLine(to: comparison.split + share) }

    private func zoom(_ size: CGSize, by factor: Double) { change(size) { $0.zoomed(by: factor) } }

    private func key(_ action: () -> Void) -> KeyPress.Result {
        action()
        return .handled
    }

    private func point(_ place: CGPoint) -> Point { Point(Double(place.x), Double(place.y)) }
}
