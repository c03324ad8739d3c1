/**
 * Colours of the given picture for a restored one: `elir_mobile/colors.py`, and the level of its tiles:
 * `elir_mobile/core/tiling.py:level_offsets`.
 *
 * A restorer may change a hue. What the given picture says of colour at low frequencies is more to be trusted, so the low
 * band of both chroma channels is taken from it.
 */
package org.elir.mobile.core

private const val BAND = 16.0 // pixels; waves longer than about twice this are the given picture's
private const val CHROMA = 2 // channels

// Full-range BT.601, as in JPEG: (R, G, B) to Cb and Cr, and what each of the two gives to R, G and B.
private val TO_CHROMA = arrayOf(floatArrayOf(-0.168736f, -0.331264f, 0.5f), floatArrayOf(0.5f, -0.418688f, -0.081312f))
private val FROM_CHROMA = arrayOf(floatArrayOf(0f, 1.402f), floatArrayOf(-0.344136f, -0.714136f), floatArrayOf(1.772f, 0f))

/** Whether a picture has no colour at all. */
val Picture.isGrey: Boolean
    get() = (pixels.indices step COLOURS).all { pixels[it] == pixels[it + 1] && pixels[it] == pixels[it + 2] }

/** Give [restored], in place, the chroma of [given] at low frequencies, and none where [given] is grey; both of one size. */
fun keepColours(restored: Picture, given: Picture) {
    require(restored.width == given.width && restored.height == given.height) {
        "${restored.width}×${restored.height} pixels restored of ${given.width}×${given.height}"
    }
    val out = restored.pixels
    if (given.isGrey) {
        for (at in out.indices step COLOURS) {
            // Pillow's luma
            val luma = 19595 * byte(out[at]) + 38470 * byte(out[at + 1]) + 7471 * byte(out[at + 2]) + (1 shl 15)
            out.fill((luma shr 16).toByte(), at, at + COLOURS)
        }
        return
    }
    val width = maxOf(1, Math.rint(given.width / BAND).toInt())
    val height = maxOf(1, Math.rint(given.height / BAND).toInt())
    // Pillow reduces the lines of a tall picture before its columns, which rounds in another place.
    fun lower(picture: Picture) =
        if (given.height > 2 * given.width) picture.resampled(given.width, height, Filter.BOX) else picture
    val (theirs, ours) = listOf(given, restored).map { lower(it).resampled(width, height, Filter.BOX).pixels }
    val moved = FloatArray(width * height * CHROMA) { at ->
        val (pixel, channel) = at / CHROMA to at % CHROMA
        val weights = TO_CHROMA[channel]
        var sum = 0f
        for (c in 0 until COLOURS) sum += weights[c] * (byte(theirs[pixel * COLOURS + c]) - byte(ours[pixel * COLOURS + c]))
        sum
    }
    val across = Taps(width, given.width)
    val down = Taps(height, given.height)
    val line = FloatArray(given.width * CHROMA)
    for (y in 0 until given.height) {
        val narrow = down.line(moved, width * CHROMA, y)
        across.along(line, 0, CHROMA) { narrow[it] }
        for (x in 0 until given.width) for (c in 0 until COLOURS) {
            val at = (y * given.width + x) * COLOURS + c
            val chroma = FROM_CHROMA[c][0] * line[x * CHROMA] + FROM_CHROMA[c][1] * line[x * CHROMA + 1]
            out[at] = toByte(chroma + byte(out[at]))
        }
    }
}

private fun byte(value: Byte) = value.toInt() and 255

private const val HOLD = 0.05 // how strongly a tile keeps its own level, against the share of it that overlaps others

/**
 * A restored tile, reduced to the means of squares: its place in the reduced picture, and [values] in lines of [side].
 */
class Level(val left: Int, val top: Int, val side: Int, private val values: FloatArray) {
    /** The same tile, [by] lighter. */
    fun lifted(by: Float) = Level(left, top, side, FloatArray(values.size) { values[it] + by })

    /**
     * The share of this tile that [other] overlaps, and by how much [other] is lighter in the middle of that: a network's
     * padding shows along the borders of its tiles.
     */
    fun met(other: Level): Pair<Double, Double> {
        val fromX = maxOf(left, other.left)
        val fromY = maxOf(top, other.top)
        val wide = minOf(left, other.left) + side - fromX
        val high = minOf(top, other.top) + side - fromY
        if (wide <= 0 || high <= 0) return 0.0 to 0.0
        var sum = 0.0
        var count = 0
        for (y in fromY + high / 4 until fromY + high - high / 4) for (x in fromX + wide / 4 until fromX + wide - wide / 4) {
            sum += other.at(x, y) - at(x, y)
            count++
        }
        return wide * high / values.size.toDouble() to sum / count
    }

    private fun at(x: Int, y: Int) = values[(y - top) * side + x - left]

    companion object {
        /** Of a tile (3, [size], [size]) at ([left], [top]), in squares of [DOWNSCALE] pixels a side. */
        fun of(tile: FloatArray, size: Int, left: Int, top: Int): Level {
            val side = size / DOWNSCALE
            val sums = FloatArray(side * side)
            for (c in 0 until COLOURS) for (y in 0 until size) for (x in 0 until size) {
                sums[y / DOWNSCALE * side + x / DOWNSCALE] += tile[(c * size + y) * size + x]
            }
            val count = COLOURS * DOWNSCALE * DOWNSCALE
            return Level(left / DOWNSCALE, top / DOWNSCALE, side, FloatArray(sums.size) { sums[it] / count })
        }
    }
}

/**
 * What to add to each of [tiles] so that all have one level where they overlap, in least squares; those of [before] stay
 * as they are. A network whose norms see the tile makes each a little lighter or darker.
 */
fun levelOffsets(tiles: List<Level>, before: List<Level>): FloatArray {
    val count = tiles.size
    val system = Array(count) { i -> DoubleArray(count + 1) { if (it == i) HOLD else 0.0 } } // its last column: the right side
    for ((i, tile) in tiles.withIndex()) {
        for (other in before) {
            val (share, lighter) = tile.met(other)
            system[i][i] += share
            system[i][count] += share * lighter
        }
        for (j in 0 until i) {
            val (share, lighter) = tile.met(tiles[j])
            system[i][i] += share
            system[j][j] += share
            system[i][j] -= share
            system[j][i] -= share
            system[i][count] += share * lighter
            system[j][count] -= share * lighter
        }
    }
    // Gauss and Jordan; the system is positive definite, so no pivot is sought.
    for (pivot in 0 until count) for (row in 0 until count) {
        if (row == pivot) continue
        val factor = system[row][pivot] / system[pivot][pivot]
        if (factor != 0.0) for (k in pivot..count) system[row][k] -= factor * system[pivot][k]
    }
    return FloatArray(count) { (system[it][count] / system[it][it]).toFloat() }
}
