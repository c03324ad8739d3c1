/**
 * From a photograph to the square that a face network was trained on, and back: `elir_mobile/faces/align.py`.
 *
 * Coordinates are in pixels and continuous: pixel `i` covers `i` to `i + 1`.
 */
package org.elir.mobile.core

import kotlin.math.ceil
import kotlin.math.floor
import kotlin.math.hypot

/** A place in a picture. */
data class Point(val x: Double, val y: Double)

/**
 * Left eye, right eye (as seen in the picture), nose, left and right corner of the mouth in a square of side 1: the mean
 * positions in FFHQ that facexlib gives for 512 pixels (`FaceRestoreHelper.face_template`).
 */
val TEMPLATE: List<Point> = listOf(
    Point(192.98138 / 512, 239.94708 / 512),
    Point(318.90277 / 512, 240.19360 / 512),
    Point(256.63416 / 512, 314.01935 / 512),
    Point(201.26117 / 512, 371.41043 / 512),
    Point(313.08905 / 512, 371.15118 / 512),
)

/** A turn with a scale, the complex factor [re] + i·[im], and a shift by ([dx], [dy]). */
class Similarity(val re: Double, val im: Double, val dx: Double, val dy: Double) {
    /** How many times longer it makes things. */
    val scale: Double get() = hypot(re, im)

    /** Where [point] goes. */
    fun of(point: Point) = Point(re * point.x - im * point.y + dx, im * point.x + re * point.y + dy)

    /** The map back. */
    fun inverse(): Similarity {
        val square = re * re + im * im
        val a = re / square
        val b = -im / square
        return Similarity(a, b, -(a * dx - b * dy), -(b * dx + a * dy))
    }

    /** This, and then a shift. */
    fun shifted(x: Double, y: Double) = Similarity(re, im, dx + x, dy + y)

    companion object {
        /** The map that brings [source] nearest to [target] in least squares (Umeyama 1991), never a mirror image. */
        fun between(source: List<Point>, target: List<Point>): Similarity {
            val (px, py) = source.map { it.x }.average() to source.map { it.y }.average()
            val (qx, qy) = target.map { it.x }.average() to target.map { it.y }.average()
            var re = 0.0
            var im = 0.0
            var spread = 0.0
            for ((p, q) in source zip target) {
                val (ax, ay) = p.x - px to p.y - py
                val (bx, by) = q.x - qx to q.y - qy
                re += ax * bx + ay * by
                im += ax * by - ay * bx
                spread += ax * ax + ay * ay
            }
            return Similarity(re / spread, im / spread, 0.0, 0.0).let { turn ->
                val moved = turn.of(Point(px, py))
                turn.shifted(qx - moved.x, qy - moved.y)
            }
        }
    }
}

/** The map of a face's five [points] to its aligned square of side [size]. */
fun aligned(points: List<Point>, size: Int): Similarity =
    Similarity.between(points, TEMPLATE.map { Point(it.x * size, it.y * size) })

/** The four corners of a picture. */
fun corners(width: Double, height: Double): List<Point> =
    listOf(Point(0.0, 0.0), Point(width, 0.0), Point(width, height), Point(0.0, height))

/** Float32 samples (height, width, channels). */
class Raster(val width: Int, val height: Int, val channels: Int, val values: FloatArray) {
    /** At [toWidth]×[toHeight] as PyTorch's `interpolate(mode="bicubic", antialias=True)`. */
    fun resized(toWidth: Int, toHeight: Int): Raster {
        val across = Taps(width, toWidth)
        val down = Taps(height, toHeight)
        val wide = FloatArray(height * toWidth * channels)
        val line = toWidth * channels
        for (y in 0 until height) across.along(wide, y * line, channels) { at -> values[y * width * channels + at] }
        return Raster(toWidth, toHeight, channels, down.down(wide, line))
    }
}

/** Weights along one axis that make [count] samples of [size]: Keys' cubic with a = -0.5, widened where it shrinks. */
internal class Taps(size: Int, count: Int) {
    private val firsts = IntArray(count)
    private val weights: Array<FloatArray>

    init {
        val scale = size.toDouble() / count
        val stretch = maxOf(scale, 1.0)
        weights = Array(count) { i ->
            val centre = (i + 0.5) * scale
            val first = maxOf((centre - 2 * stretch + 0.5).toInt(), 0)
            val last = minOf((centre + 2 * stretch + 0.5).toInt(), size)
            firsts[i] = first
            val kernel = DoubleArray(last - first) { Filter.BICUBIC.weight((it + first - centre + 0.5) / stretch) }
            val sum = kernel.sum()
            FloatArray(kernel.size) { (kernel[it] / sum).toFloat() }
        }
    }

    /** Write a line to [out] from [start] on; [read] gives the sample at an index of the line it is made of. */
    inline fun along(out: FloatArray, start: Int, channels: Int, read: (Int) -> Float) {
        for (i in firsts.indices) for (c in 0 until channels) {
            var sum = 0f
            for (k in weights[i].indices) sum += weights[i][k] * read((firsts[i] + k) * channels + c)
            out[start + i * channels + c] = sum
        }
    }

    /** Line [i] of what [down] makes. */
    fun line(values: FloatArray, line: Int, i: Int): FloatArray {
        val out = FloatArray(line)
        for (k in weights[i].indices) {
            val from = (firsts[i] + k) * line
            for (x in 0 until line) out[x] += weights[i][k] * values[from + x]
        }
        return out
    }

    /** Each column of [wide], whose lines have [line] values. */
    fun down(wide: FloatArray, line: Int): FloatArray {
        val out = FloatArray(firsts.size * line)
        for (i in firsts.indices) line(wide, line, i).copyInto(out, i * line)
        return out
    }
}

/**
 * [picture] through [map], line by line, so that no more of it is in memory as floats than is looked at: bicubic (Keys'
 * cubic with a = -0.75, as PyTorch's `grid_sample`), reduced with antialiasing first where it shrinks. Its borders are
 * mirrored, as FFHQ's are. Values are those of bytes, and a little beyond 0 and 255.
 */
class Warp(picture: Picture, map: Similarity, private val width: Int, private val height: Int) {
    private val back = map.inverse()
    private val left: Int
    private val top: Int
    private val part: Raster
    private val shrunkX: Double // samples of the part to a pixel of the picture
    private val shrunkY: Double

    init {
        val needed = corners(width.toDouble(), height.toDouble()).map(back::of)
        val margin = 2 + 2 / minOf(map.scale, 1.0) // what the filters reach
        val (fromX, toX) = reach(needed.map { it.x }, margin, picture.width)
        val (fromY, toY) = reach(needed.map { it.y }, margin, picture.height)
        left = fromX
        top = fromY
        val wide = toX - fromX
        val high = toY - fromY
        val shrinks = minOf(map.scale, 1.0)
        val columns = maxOf(1, Math.rint(wide * shrinks).toInt())
        val rows = maxOf(1, Math.rint(high * shrinks).toInt())
        val line = columns * COLOURS
        val across = Taps(wide, columns)
        val half = FloatArray(high * line)
        for (y in 0 until high) {
            val start = ((fromY + y) * picture.width + fromX) * COLOURS
            across.along(half, y * line, COLOURS) { (picture.pixels[start + it].toInt() and 255).toFloat() }
        }
        part = Raster(columns, rows, COLOURS, if (rows == high) half else Taps(high, rows).down(half, line))
        shrunkX = columns.toDouble() / wide
        shrunkY = rows.toDouble() / high
    }

    /** What is needed along an axis of [size] pixels; what lies beyond a border is mirrored from as far inside. */
    private fun reach(needed: List<Double>, margin: Double, size: Int): Pair<Int, Int> {
        val first = needed.min() - margin
        val last = needed.max() + margin
        val low = floor(minOf(first, 2 * size - last).coerceIn(0.0, size - 1.0)).toInt()
        return low to minOf(ceil(maxOf(last, -first)).toInt(), size)
    }

    /** Line [y] of the result: (width, 3). */
    fun line(y: Int): FloatArray {
        val out = FloatArray(width * COLOURS)
        val (acrossWeights, downWeights) = FloatArray(TAPS) to FloatArray(TAPS)
        for (x in 0 until width) {
            val place = back.of(Point(x + 0.5, y + 0.5))
            val column = (place.x - left) * shrunkX - 0.5
            val row = (place.y - top) * shrunkY - 0.5
            val firstColumn = floor(column).toInt() - 1
            val firstRow = floor(row).toInt() - 1
            cubic(column - floor(column), acrossWeights)
            cubic(row - floor(row), downWeights)
            for (j in 0 until TAPS) {
                val from = reflected(firstRow + j, part.height) * part.width
                for (i in 0 until TAPS) {
                    val at = (from + reflected(firstColumn + i, part.width)) * COLOURS
                    val weight = downWeights[j] * acrossWeights[i]
                    for (c in 0 until COLOURS) out[x * COLOURS + c] += weight * part.values[at + c]
                }
            }
        }
        return out
    }

    /** All of it: (height, width, 3). */
    fun all(): FloatArray {
        val out = FloatArray(height * width * COLOURS)
        for (y in 0 until height) line(y).copyInto(out, y * width * COLOURS)
        return out
    }

    /** As a picture. */
    fun picture(): Picture = all().let { values ->
        Picture(width, height, ByteArray(values.size) { toByte(values[it]) })
    }
}

private const val TAPS = 4

private fun cubic(t: Double, weights: FloatArray) {
    val a = -0.75
    fun near(x: Double) = ((a + 2) * x - (a + 3)) * x * x + 1
    fun far(x: Double) = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    weights[0] = far(t + 1).toFloat()
    weights[1] = near(t).toFloat()
    weights[2] = near(1 - t).toFloat()
    weights[3] = far(2 - t).toFloat()
}

private fun reflected(index: Int, size: Int): Int {
    val turn = index.mod(2 * size)
    return if (turn < size) turn else 2 * size - 1 - turn
}
