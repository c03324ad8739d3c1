/// From a picture to the restored picture: the three programs, the sampling loop, and tiles.
///
/// The loop is `elir_mobile/core/sampling.py:sample`, the tiles are `elir_mobile/restore.py:restore`: noise
/// is drawn once for the whole picture, so that neighbours start from the same latent.

import Foundation

/// The domain of networks for one face that fills the square, upright as in FFHQ.
public let alignedFace = "aligned-face"
/// The domain of networks for any photograph.
public let anyPhoto = "photo"

/// A latent pixel stands for a square of this many pixels a side.
public let downscale = 8
private let overlap = 0.25  // of a tile's side, as `elir_mobile/restore.py`

/// The three programs of one exported file, loaded. Arrays are float32 in NCHW order with N = 1.
public protocol Programs: AnyObject {
    /// Image (3, size, size) in [0, 1] to the coarse latent (channels, size/8, size/8).
    func encode(_ image: [Float]) throws -> [Float]

    /// The latent after one Euler step.
    ///
    /// - Parameter row: that step's row of the table.
    func step(_ latent: [Float], row: [Float]) throws -> [Float]

    /// Latent to image in [0, 1].
    func decode(_ latent: [Float]) throws -> [Float]
}

/// What one tile went through.
public struct Sample {
    public let coarse: [Float]
    /// The latents from the noised coarse one to the last.
    public let trajectory: [[Float]]
    public let image: [Float]
}

/// The sampling loop over one square.
///
/// - Parameters:
///   - rows: of the steps to take. All of a bundle's restore; a first part of them stops underway.
///   - fidelity: 0 decodes the sample, 1 the coarse estimate, without taking steps; between them the latents are mixed.
///   - called: told after each program has run; what it throws ends the loop.
public func sample(
    _ programs: Programs, image: [Float], noise: [Float], rows: some Collection<[Float]>, sigmaS: Float,
    fidelity: Float = 0, called: () throws -> Void = {}
) throws -> Sample {
    let coarse = try programs.encode(image)
    try called()
    var trajectory = [try noised(coarse, noise: noise, sigmaS: sigmaS)]
    var latent = coarse
    if fidelity < 1 {
        for row in rows {
            trajectory.append(try programs.step(trajectory[trajectory.count - 1], row: row))
            try called()
        }
        latent = trajectory[trajectory.count - 1]
        if fidelity > 0 { latent = zip(latent, coarse).map { $0 + fidelity * ($1 - $0) } }
    }
    let restored = try programs.decode(latent)
    try called()
    return Sample(coarse: coarse, trajectory: trajectory, image: restored)
}

/// Where the steps start: `coarse` with `sigmaS` times `noise`.
func noised(_ coarse: [Float], noise: [Float], sigmaS: Float) throws -> [Float] {
    guard coarse.count == noise.count else {
        throw ElirError(
            .runtime, "encode gives \(coarse.count) values instead of \(noise.count): export the file again")
    }
    return zip(coarse, noise).map { $0 + sigmaS * $1 }
}

/// Told how many of all program calls are done. What it throws cancels the work.
public typealias Progress = (_ done: Int, _ total: Int) throws -> Void

/// How a person wants a picture to be restored.
public struct Wishes: Codable, Equatable, Sendable {
    /// From the sample (0) to the coarse estimate (1), which is nearer to the truth on average and smoother.
    public var fidelity: Float
    /// Whether colours and greys are the photograph's, as far as the task keeps them.
    public var keepsColors: Bool

    public init(fidelity: Float = 0, keepsColors: Bool = true) {
        (self.fidelity, self.keepsColors) = (fidelity, keepsColors)
    }
}

/// Restores pictures of any size with one loaded file.
public struct Restorer {
    public let bundle: ModelBundle
    public let programs: Programs
    /// How many of the bundle's steps to take: fewer than all stop underway.
    public let steps: Int
    public let wishes: Wishes

    /// - Precondition: 0 ≤ `steps` ≤ the bundle's, and 0 ≤ fidelity ≤ 1.
    public init(bundle: ModelBundle, programs: Programs, steps: Int, wishes: Wishes = Wishes()) {
        precondition((0...bundle.steps).contains(steps), "\(steps) steps: the bundle has \(bundle.steps)")
        precondition((0...1).contains(wishes.fidelity), "a fidelity of \(wishes.fidelity)")
        self.wishes = wishes
        self.bundle = bundle
        self.programs = programs
        self.steps = steps
    }

    /// Program calls that a picture of `width`×`height` takes.
    public func calls(width: Int, height: Int) -> Int {
        Self.calls(TileGrid(width: width, height: height, size: bundle.size).tiles, steps: steps, wishes: wishes)
    }

    /// Program calls that so many `tiles` take.
    public static func calls(_ tiles: Int, steps: Int, wishes: Wishes) -> Int {
        tiles * (2 + (wishes.fidelity < 1 ? steps : 0))
    }

    private var keepsColors: Bool { wishes.keepsColors && bundle.task.keepsColors }

    private var keepsGrey: Bool { wishes.keepsColors && bundle.task.keepsGrey }

    /// `photo` restored: the faces of a whole photograph where they are, if that is what the bundle is for, and nothing if
    /// there is none; else all of it, enlarged as the task says.
    ///
    /// - Throws: ``ElirError``: the bundle is for aligned faces, and this is none. What `findFaces` and `progress` throw.
    public func restore(
        _ photo: Picture, seed: Int64, findFaces: (Picture) throws -> [Face], progress: Progress
    ) throws -> Picture {
        let side = bundle.size / bundle.task.upscale
        if bundle.task.domain != alignedFace || (photo.width == side && photo.height == side) {
            let large = photo.enlarged(factor: bundle.task.upscale, filter: bundle.task.enlarge)
            return try restore(large, seed: seed, progress: progress)
        }
        guard bundle.findsFaces else {
            throw ElirError(
                .input, "\(bundle.task.title) is for one upright face that fills \(side)×\(side) pixels: give that")
        }
        return try restoreFaces(
            of: photo, findFaces(photo), wanted: WantedFaces(), seed: seed, progress: progress
        ).picture
    }

    /// `photo` with `faces` restored, and what was done with each.
    ///
    /// - Parameter background: what the faces are set into, see ``Picture/restoringFaces(_:size:wanted:background:restore:)``.
    public func restoreFaces(
        of photo: Picture, _ faces: [Face], wanted: WantedFaces, background: Picture? = nil, seed: Int64,
        progress: Progress
    ) throws -> (picture: Picture, treated: [Treated]) {
        let calls = Self.calls(faces.count - wanted.left.count, steps: steps, wishes: wishes)
        var done = 0
        return try photo.restoringFaces(faces, size: bundle.size, wanted: wanted, background: background) { _, square in
            try restore(square, seed: seed) { _, _ in
                done += 1
                try progress(done, calls)
            }
        }
    }

    /// Restore `picture`, which is as large as the result will be; `seed` is that of the noise.
    public func restore(_ picture: Picture, seed: Int64, progress: Progress = { _, _ in }) throws -> Picture {
        var out = Picture(width: picture.width, height: picture.height)
        let stride = TileGrid(picture, size: bundle.size).width * colours
        let line = picture.width * colours
        try blend(picture, seed: seed, progress: progress) { top, band in
            for y in 0..<min(band.count / stride, picture.height - top) {
                for x in 0..<line {
                    out.pixels[(top + y) * line + x] = byte(255 * band[band.startIndex + y * stride + x])
                }
            }
        }
        if keepsColors || (keepsGrey && picture.isGrey) { out.keepColors(of: picture) }
        return out
    }

    /// ``restore(_:seed:progress:)`` before rounding: `lines` is given the float32 lines (n, padded width, 3)
    /// from line `top` on, band after band, so that memory grows with the width of the picture only.
    public func blend(
        _ picture: Picture, seed: Int64, progress: Progress, lines: (_ top: Int, _ band: ArraySlice<Float>) -> Void
    ) throws {
        let size = bundle.size
        let grid = TileGrid(picture, size: size)
        let noise = Latents(channels: bundle.latentShape[0], seed: seed, grid: grid)
        let calls = calls(width: picture.width, height: picture.height)
        var done = 0
        var top = 0
        let stride = grid.width * colours
        var band = [Float](repeating: 0, count: size * stride)
        var levelled: [TileLevels] = []
        for row in grid.rows {
            let finished = (row.start - top) * stride  // no further tile reaches these
            lines(top, band[..<finished])
            band.removeFirst(finished)
            band.append(contentsOf: repeatElement(0, count: finished))
            top = row.start
            var levels: [TileLevels] = []
            for column in grid.columns {
                let tile = try sample(
                    programs,
                    image: picture.tile(Square(column.start, row.start, size)),
                    noise: noise.cut(Square(column.start / downscale, row.start / downscale, size / downscale)),
                    rows: bundle.table.prefix(steps),
                    sigmaS: bundle.sigmaS,
                    fidelity: wishes.fidelity
                ) {
                    done += 1
                    try progress(done, calls)
                }.image
                try check(tile)
                add(tile, to: &band, stride: stride, row: row, column: column)
                if keepsColors {
                    levels.append(
                        TileLevels(
                            top: row.start / downscale, left: column.start / downscale, side: size / downscale,
                            tile: tile))
                }
            }
            if keepsColors {
                let offsets = levelOffsets(levels, before: levelled)
                lift(&band, stride: stride, row: row, columns: grid.columns, offsets)
                levelled = levelled.suffix(levels.count) + zip(levels, offsets).map { $0.lifted($1) }
            }
        }
        lines(top, band[...])
    }

    /// What a device computes in half precision can overflow: no number is no picture.
    private func check(_ tile: [Float]) throws {
        guard tile.count == colours * bundle.size * bundle.size else {
            throw ElirError(.runtime, "decode gives \(tile.count) values: export the file again")
        }
        guard tile.allSatisfy(\.isFinite) else {
            throw ElirError(.runtime, "the picture has values that are not finite: choose another precision or unit")
        }
    }

    private func add(_ tile: [Float], to band: inout [Float], stride: Int, row: Window, column: Window) {
        let size = bundle.size
        for y in 0..<size {
            for x in 0..<size {
                let weight = row.weights[y] * column.weights[x]
                let at = y * stride + (column.start + x) * colours
                for c in 0..<colours { band[at + c] += weight * tile[(c * size + y) * size + x] }
            }
        }
    }
}

/// Make each tile of a row as much lighter as `offsets` say.
private func lift(_ band: inout [Float], stride: Int, row: Window, columns: [Window], _ offsets: [Float]) {
    var across = [Float](repeating: 0, count: stride / colours)
    for (column, offset) in zip(columns, offsets) {
        for (x, weight) in column.weights.enumerated() { across[column.start + x] += weight * offset }
    }
    for (y, weight) in row.weights.enumerated() {
        for x in 0..<stride { band[y * stride + x] += weight * across[x / colours] }
    }
}

/// How a picture is cut into tiles: its padded sides and the windows along them.
public struct TileGrid {
    public let width: Int
    public let height: Int
    public let rows: [Window]
    public let columns: [Window]

    /// - Parameter size: side of a tile.
    public init(_ picture: Picture, size: Int) {
        self.init(width: picture.width, height: picture.height, size: size)
    }

    public init(width: Int, height: Int, size: Int) {
        func padded(_ side: Int) -> Int {
            side <= size ? size : (side + downscale - 1) / downscale * downscale
        }
        func windows(_ side: Int) -> [Window] {
            axisWindows(length: side, tile: size, overlap: Int(Double(size) * overlap) / downscale * downscale)
        }
        self.width = padded(width)
        self.height = padded(height)
        rows = windows(self.height)
        columns = windows(self.width)
    }

    public var tiles: Int { rows.count * columns.count }
}

/// The noise of a whole picture, (channels, height/8, width/8).
private struct Latents {
    let channels: Int
    let width: Int
    let height: Int
    let values: [Float]

    init(channels: Int, seed: Int64, grid: TileGrid) {
        self.channels = channels
        width = grid.width / downscale
        height = grid.height / downscale
        values = seededNoise(count: channels * width * height, seed: seed)
    }

    func cut(_ square: Square) -> [Float] {
        var out: [Float] = []
        out.reserveCapacity(channels * square.side * square.side)
        for c in 0..<channels {
            for y in 0..<square.side {
                let from = (c * height + square.top + y) * width + square.left
                out += values[from..<from + square.side]
            }
        }
        return out
    }
}
