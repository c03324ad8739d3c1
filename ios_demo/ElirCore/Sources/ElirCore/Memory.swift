/// How much memory a restoration takes, so that an app can say so before the system ends it.
///
/// An estimate from above, not a measurement: the weights twice (as read, and as the runtime packs them),
/// and the buffers of the widest layer of the decoder at full resolution.

/// Float32 buffers of the widest layer that are alive at once: input, output, residual and one to spare.
private let liveBuffers = 4

/// Bytes to load `artifact` of `bundle` and run it on one tile.
public func memoryOfModel(_ bundle: ModelBundle, _ artifact: Artifact) -> Int {
    2 * artifact.bytes + liveBuffers * bundle.width * bundle.size * bundle.size * 4
}

/// Bytes beside the model to restore a picture of `width`×`height`: input and output, noise, a band of tiles.
public func memoryOfPicture(_ bundle: ModelBundle, width: Int, height: Int) -> Int {
    let (size, channels) = (bundle.size, bundle.latentShape[0])
    let grid = TileGrid(width: width, height: height, size: size)
    let pixels = grid.width * grid.height
    let noise = channels * pixels / (downscale * downscale) * 4
    return 2 * colours * pixels + noise + 2 * size * grid.width * colours * 4
}

/// Say so if `available` bytes are not enough for `artifact` and a picture.
///
/// - Throws: ``ElirError`` with fault ``ElirError/Fault/memory``.
public func checkMemory(
    available: Int, bundle: ModelBundle, artifact: Artifact, width: Int, height: Int
) throws {
    let needed =
        memoryOfModel(bundle, artifact) + memoryOfPicture(bundle, width: width, height: height)
    guard needed <= available else {
        throw ElirError(
            .memory,
            "\(needed >> 20) MB are needed and \(available >> 20) MB are free: close other apps, "
                + "or choose a smaller picture or an int8 file")
    }
}

/// The longer side that a picture of `width`×`height` may keep if each of its pixels is to take `bytesPerPixel` of half
/// of the `available` bytes; the other half is for what is made of it.
public func largestSide(width: Int, height: Int, bytesPerPixel: Int, available: Int) -> Int {
    let part = (Double(available / 2) / Double(max(width * height * bytesPerPixel, 1))).squareRoot()
    return max(1, Int(Double(max(width, height)) * min(part, 1)))
}
