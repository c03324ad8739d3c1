/// Tiles brought to one level where they overlap: `elir_mobile/core/tiling.py:level_offsets`.

/// How strongly a tile keeps its own level, against the share of it that overlaps others.
private let hold = 0.05

/// The level of a tile, a value for each latent pixel.
struct TileLevels {
    let top: Int
    let left: Int
    let side: Int
    private(set) var values: [Float]

    /// - Parameter tile: (3, 8·`side`, 8·`side`) in [0, 1], whose colours are averaged.
    init(top: Int, left: Int, side: Int, tile: [Float]) {
        (self.top, self.left, self.side) = (top, left, side)
        let width = side * downscale
        values = [Float](repeating: 0, count: side * side)
        for at in tile.indices {
            let (y, x) = (at / width % width, at % width)
            values[y / downscale * side + x / downscale] += tile[at]
        }
        let count = Float(colours * downscale * downscale)
        for at in values.indices { values[at] /= count }
    }

    /// The same tile, `by` lighter.
    func lifted(_ by: Float) -> TileLevels {
        var lifted = self
        for at in values.indices { lifted.values[at] += by }
        return lifted
    }

    /// The share of this tile that `other` overlaps, and by how much that is lighter in the middle of it: a network's
    /// padding shows along the borders of its tiles.
    func met(_ other: TileLevels) -> (share: Double, lighter: Double) {
        let (top, left) = (max(top, other.top), max(left, other.left))
        let (height, width) = (
            min(self.top, other.top) + side - top, min(self.left, other.left) + side - left
        )
        guard height > 0, width > 0 else { return (0, 0) }
        var (sum, count) = (0.0, 0)
        for y in top + height / 4..<top + height - height / 4 {
            for x in left + width / 4..<left + width - width / 4 {
                sum += Double(other.value(y, x) - value(y, x))
                count += 1
            }
        }
        return (Double(height * width) / Double(side * side), sum / Double(count))
    }

    private func value(_ y: Int, _ x: Int) -> Float { values[(y - top) * side + x - left] }
}

/// What to add to each of `tiles` so that all have one level where they overlap, those in `before` as they are: least
/// squares, drawn towards 0, so that levels do not drift.
func levelOffsets(_ tiles: [TileLevels], before: [TileLevels]) -> [Float] {
    let count = tiles.count
    var system = [[Double]](repeating: [Double](repeating: 0, count: count + 1), count: count)  // and the right side
    for (i, tile) in tiles.enumerated() {
        system[i][i] += hold
        for other in before {
            let (share, lighter) = tile.met(other)
            system[i][i] += share
            system[i][count] += share * lighter
        }
        for (j, other) in tiles[..<i].enumerated() {
            let (share, lighter) = tile.met(other)
            for (a, b, sign) in [(i, j, 1.0), (j, i, -1.0)] {
                system[a][a] += share
                system[a][b] -= share
                system[a][count] += sign * share * lighter
            }
        }
    }
    // Elimination without a change of rows: the diagonal outweighs the rest of its row.
    for pivot in 0..<count {
        for row in pivot + 1..<count {
            let factor = system[row][pivot] / system[pivot][pivot]
            if factor == 0 { continue }
            for column in pivot...count { system[row][column] -= factor * system[pivot][column] }
        }
    }
    var offsets = [Double](repeating: 0, count: count)
    for row in (0..<count).reversed() {
        var rest = system[row][count]
        for column in row + 1..<count { rest -= system[row][column] * offsets[column] }
        offsets[row] = rest / system[row][row]
    }
    return offsets.map { Float($0) }
}
