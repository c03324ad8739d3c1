/// Every face of a photograph restored where it is, the rest left alone: `elir_mobile/faces/inplace.py` and `paste.py`.
///
/// A square is put back with a mask that fades out before its borders. Where the squares of two faces overlap, each
/// pixel belongs to the face whose middle is nearer, in units of the face. A face that is left alone takes part in that,
/// so that a neighbour's square never paints over it. What no mask reaches keeps its bytes.

import Foundation

private let fade = 0.25  // share of the mask's radius over which it fades out
private let sharpness = 12.0  // how quickly one face's pixels become the next one's
/// Middle and half axes of the mask at margin 0 and at margin 1.
private let (faceOnly, wholeSquare) = (SIMD4(0.5, 0.56, 0.30, 0.36), SIMD4(0.5, 0.5, 0.5, 0.5))
/// A face is left alone from this detail and this agreement on; how they were chosen is said in `inplace.py`.
private let (enoughDetail, enoughAgreement) = (0.45, 0.35)
private let fineSpread = 0.7  // of the Gaussian that takes fine structure away, pixels

/// A face of a photograph.
public struct Face: Equatable, Sendable {
    /// Eyes, nose and corners of the mouth in the order of ``faceTemplate``.
    public let points: [Point]

    public init(points: [Point]) { self.points = points }

    /// The middle of its aligned square.
    public var middle: Point { Similarity(aligning: points, size: 1).inverse(Point(0.5, 0.5)) }

    /// Side of that square, pixels.
    public var side: Double { 1 / Similarity(aligning: points, size: 1).scale }

    /// From what is found of a face: the outlines of both eyes, the ridge of the nose and the outline of the lips.
    ///
    /// Which of the eyes is called the left one does not matter: left is what is left when the face is upright.
    public init(eyes: [[Point]], ridge: [Point], lips: [Point]) {
        let middles = eyes.map(Point.mean)
        let (between, mouth) = (Point.mean(middles), Point.mean(lips))
        // From the eyes to the mouth is down, and a quarter of a turn before it is right.
        let down = Point(mouth.x - between.x, mouth.y - between.y)
        func right(_ point: Point) -> Double { point.x * down.y - point.y * down.x }
        func below(_ point: Point) -> Double { point.x * down.x + point.y * down.y }
        let ordered = middles.sorted { right($0) < right($1) }
        points = [
            ordered[0], ordered[1],
            ridge.max { below($0) < below($1) }!,
            lips.min { right($0) < right($1) }!, lips.max { right($0) < right($1) }!,
        ]
    }
}

/// What is done with the faces of a photograph.
public struct WantedFaces: Sendable {
    /// Also restore those that are sharp already.
    public var all: Bool
    /// Numbers of faces that are left alone.
    public var left: Set<Int>
    /// From the face alone (0) to the whole square, with hair and ears (1).
    public var margin: Double

    public init(all: Bool = false, left: Set<Int> = [], margin: Double = 1) {
        (self.all, self.left, self.margin) = (all, left, margin)
    }
}

/// What was done with a face.
public struct Treated: Sendable {
    public let face: Face
    public let restored: Bool
    /// See ``compared(_:_:side:)``; nil where the network was not asked.
    public let detail: Double?
    public let agreement: Double?
}

extension Picture {
    /// This photograph with its `faces` restored.
    ///
    /// - Parameters:
    ///   - size: side of the squares that `restore` takes, pixels.
    ///   - background: the same scene, as large or some times larger, that the faces are set into; nil: this photograph.
    ///   - restore: what the network makes of aligned square number so and so.
    public func restoringFaces(
        _ faces: [Face], size: Int, wanted: WantedFaces, background: Picture? = nil,
        restore: (_ number: Int, _ square: Picture) throws -> Picture
    ) rethrows -> (picture: Picture, treated: [Treated]) {
        let ground = background ?? self
        let larger = Double(ground.width) / Double(width)
        var patches: [Patch] = []
        var treated: [Treated] = []
        for (number, face) in faces.enumerated() {
            let map = Similarity(aligning: face.points, size: size)
            if wanted.left.contains(number) {
                patches.append(Patch(map: map.after(scaling: 1 / larger), size: size, restored: nil))
                treated.append(Treated(face: face, restored: false, detail: nil, agreement: nil))
                continue
            }
            let given = Warp(self, map, width: size, height: size).picture()
            let made = try restore(number, given)
            let (detail, agreement) = compared(given, made, side: Double(size) / map.scale)
            let restored = wanted.all || detail < enoughDetail || agreement < enoughAgreement
            patches.append(
                Patch(map: map.after(scaling: 1 / larger), size: size, restored: restored ? made : nil))
            treated.append(Treated(face: face, restored: restored, detail: detail, agreement: agreement))
        }
        return (ground.pasting(patches, margin: wanted.margin), treated)
    }

    /// With every restored patch in its place; for `margin` see ``WantedFaces``.
    func pasting(_ patches: [Patch], margin: Double) -> Picture {
        var out = self
        for (number, patch) in patches.enumerated() {
            guard let restored = patch.restored else { continue }
            let outline = corners(Double(patch.size), Double(patch.size)).map { patch.back($0) }
            let left = within(outline.map(\.x).min()!.rounded(.down), width)
            let top = within(outline.map(\.y).min()!.rounded(.down), height)
            let across = within(outline.map(\.x).max()!.rounded(.up), width) - left
            let down = within(outline.map(\.y).max()!.rounded(.up), height) - top
            if across <= 0 || down <= 0 { continue }
            let others = patches.enumerated().filter { $0.offset != number && patch.meets($0.element) }.map(\.element)
            let warp = Warp(
                restored, patch.back.shifted(-Double(left), -Double(top)), width: across, height: down)
            for y in 0..<down {
                let made = warp.line(y)
                for x in 0..<across {
                    let place = Point(Double(left + x) + 0.5, Double(top + y) + 0.5)
                    let share = patch.share(of: place, others: others, margin: margin)
                    if share == 0 { continue }
                    for c in 0..<colours {
                        let at = ((top + y) * width + left + x) * colours + c
                        let change = share * (Double(min(max(made[x * colours + c], 0), 255)) - Double(pixels[at]))
                        out.pixels[at] = byte(Float(Double(out.pixels[at]) + change))
                    }
                }
            }
        }
        return out
    }
}

private func within(_ value: Double, _ size: Int) -> Int { Int(min(max(value, 0), Double(size))) }

/// How the fine structure of a face relates to that of its restoration, both looked at no finer than the photograph is.
///
/// - Parameter side: of the square in the photograph, pixels.
/// - Returns: how strongly the restored structure appears in the given one, and their correlation.
public func compared(_ given: Picture, _ restored: Picture, side: Double) -> (detail: Double, agreement: Double) {
    let size = min(given.width, max(16, Int(side.rounded(.toNearestOrEven))))
    let (ours, theirs) = (fine(given, size: size), fine(restored, size: size))
    var (common, own, made) = (0.0, 0.0, 0.0)
    for row in 0..<size {
        for column in 0..<size {
            let across = ((Double(column) + 0.5) / Double(size) - faceOnly.x) / faceOnly.z
            let down = ((Double(row) + 0.5) / Double(size) - faceOnly.y) / faceOnly.w
            if across * across + down * down >= 1 { continue }
            let (a, b) = (Double(ours[row * size + column]), Double(theirs[row * size + column]))
            common += a * b
            own += a * a
            made += b * b
        }
    }
    return (common / max(made, 1e-6), common / max((own * made).squareRoot(), 1e-6))
}

/// What a narrow Gaussian takes away from the luma (BT.601) of `picture` at `size`×`size` pixels.
private func fine(_ picture: Picture, size: Int) -> [Float] {
    let side = picture.width
    var wide = [Float](repeating: 0, count: picture.height * size)
    let across = Taps(size: side, count: size)
    for y in 0..<picture.height {
        across.along(&wide, from: y * size, channels: 1) { x in
            let at = (y * side + x) * colours
            return 0.299 * Float(picture.pixels[at]) + 0.587 * Float(picture.pixels[at + 1])
                + 0.114 * Float(picture.pixels[at + 2])
        }
    }
    let luma = Taps(size: picture.height, count: size).down(wide, line: size)
    let kernel = (-3...3).map { exp(-0.5 * (Double($0) / fineSpread) * (Double($0) / fineSpread)) }
    let taps = kernel.map { Float($0 / kernel.reduce(0, +)) }
    // Mirrored at the pixel's middle.
    func inside(_ at: Int) -> Int { at < 0 ? -at : at < size ? at : 2 * (size - 1) - at }
    var smooth = luma
    for y in 0..<size {
        for x in 0..<size {
            smooth[y * size + x] = taps.enumerated().reduce(0) {
                $0 + $1.element * luma[y * size + inside(x + $1.offset - 3)]
            }
        }
    }
    var out = luma
    for y in 0..<size {
        for x in 0..<size {
            out[y * size + x] -= taps.enumerated().reduce(0) {
                $0 + $1.element * smooth[inside(y + $1.offset - 3) * size + x]
            }
        }
    }
    return out
}

/// One face of a photograph.
struct Patch {
    /// From the photograph to its aligned square of side `size`.
    let map: Similarity
    let back: Similarity
    let size: Int
    /// That square restored; nil: the face is left alone.
    let restored: Picture?

    init(map: Similarity, size: Int, restored: Picture?) {
        (self.map, back, self.size, self.restored) = (map, map.inverse, size, restored)
    }

    /// Distance of a place of the photograph from the middle of the face in units of its mask's: 1 at the outline.
    private func radius(_ place: Point, _ margin: Double) -> Double {
        let mask = faceOnly + margin * (wholeSquare - faceOnly)
        let inSquare = map(place)
        let across = abs(inSquare.x / Double(size) - mask.x) / mask.z
        let down = abs(inSquare.y / Double(size) - mask.y) / mask.w
        return (across * across * across * across + down * down * down * down).squareRoot().squareRoot()
    }

    /// Whether the circles around the two squares overlap.
    func meets(_ other: Patch) -> Bool {
        let (here, there) = (middle, other.middle)
        let (dx, dy) = (here.x - there.x, here.y - there.y)
        return (dx * dx + dy * dy).squareRoot() < reach + other.reach
    }

    private var middle: Point { back(Point(Double(size) / 2, Double(size) / 2)) }

    private var reach: Double { Double(size) / map.scale / 2.0.squareRoot() }

    /// How much of the photograph's `place` this paints over: its mask, less what is nearer to `others`.
    func share(of place: Point, others: [Patch], margin: Double) -> Double {
        let mine = radius(place, margin)
        let mask = faded(mine)
        if mask == 0 { return 0 }
        let claims = others.reduce(mask) { claims, other in
            let theirs = other.radius(place, margin)
            return claims + faded(theirs) * exp(sharpness * min(max(mine - theirs, -50), 50))
        }
        return mask * mask / claims
    }
}

/// The mask at a radius: 1 inside, 0 from the outline on, a half cosine between.
private func faded(_ distance: Double) -> Double { 0.5 - 0.5 * cos(.pi * min(max((1 - distance) / fade, 0), 1)) }
