/**
 * Every face of a photograph restored where it is, the rest left alone: `elir_mobile/faces/inplace.py` and `paste.py`.
 *
 * A square is put back with a mask that fades out before its borders. Where the squares of two faces overlap, each pixel
 * belongs to the face whose middle is nearer, in units of the face. A face that is left alone takes part in that, so that
 * a neighbour's square never paints over it. What no mask reaches keeps its bytes.
 */
package org.elir.mobile.core

import kotlin.math.PI
import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.cos
import kotlin.math.exp
import kotlin.math.floor
import kotlin.math.hypot
import kotlin.math.sqrt

private const val FADE = 0.25 // share of the mask's radius over which it fades out
private const val SHARPNESS = 12.0 // how quickly one face's pixels become the next one's
private val FACE_ONLY = doubleArrayOf(0.5, 0.56, 0.30, 0.36) // middle and half axes of the mask at margin 0
private val WHOLE = doubleArrayOf(0.5, 0.5, 0.5, 0.5) // and at margin 1

/** A face is left alone from this detail and this agreement on; how they were chosen is said in `inplace.py`. */
private const val ENOUGH_DETAIL = 0.45
private const val ENOUGH_AGREEMENT = 0.35
private const val FINE = 0.7 // spread of the Gaussian that takes fine structure away, pixels

/** An upright rectangle in pixels. */
data class FaceBox(val left: Double, val top: Double, val right: Double, val bottom: Double) {
    /** The longer side. */
    val side: Double get() = maxOf(right - left, bottom - top)
}

/**
 * A face.
 *
 * @property points eyes, nose and corners of the mouth in the order of [TEMPLATE].
 * @property score how sure the detector is, 0 to 1.
 */
class Face(val box: FaceBox, val points: List<Point>, val score: Double)

/**
 * What is done with the faces of a photograph.
 *
 * @property all also restore those that are sharp already.
 * @property left numbers of faces that are left alone.
 * @property margin from the face alone (0) to the whole square, with hair and ears (1).
 */
class WantedFaces(val all: Boolean = false, val left: Set<Int> = emptySet(), val margin: Double = 1.0)

/** What was done with a face; see [compared], null where the network was not asked. */
class Treated(val face: Face, val restored: Boolean, val detail: Double?, val agreement: Double?)

/**
 * [canvas] with the faces of [photo] restored; the very same object where nothing was to be done.
 *
 * @param size side of the squares that [restore] takes, pixels.
 * @param canvas what the faces are set into: the photograph itself, or the same scene restored, in the same or a larger size.
 * @param restore what the network makes of aligned square number so and so.
 */
fun restoreFaces(
    photo: Picture,
    faces: List<Face>,
    size: Int,
    wanted: WantedFaces,
    canvas: Picture = photo,
    restore: (number: Int, square: Picture) -> Picture,
): Pair<Picture, List<Treated>> {
    val larger = canvas.width.toDouble() / photo.width
    val patches = mutableListOf<Patch>()
    val treated = faces.mapIndexed { number, face ->
        val map = aligned(face.points, size)
        val onto = Similarity(map.re / larger, map.im / larger, map.dx, map.dy)
        if (number in wanted.left) {
            patches += Patch(onto, size, null)
            return@mapIndexed Treated(face, false, null, null)
        }
        val given = Warp(photo, map, size, size).picture()
        val made = restore(number, given)
        val (detail, agreement) = compared(given, made, size / map.scale)
        val restored = wanted.all || detail < ENOUGH_DETAIL || agreement < ENOUGH_AGREEMENT
        patches += Patch(onto, size, made.takeIf { restored })
        Treated(face, restored, detail, agreement)
    }
    val out = if (treated.any { it.restored }) paste(canvas, patches, wanted.margin) else canvas
    return out to treated
}

/**
 * How the fine structure of a face relates to that of its restoration, both looked at no finer than the photograph is.
 *
 * @param side of the square in the photograph, pixels.
 * @return how strongly the restored structure appears in the given one, and their correlation.
 */
fun compared(given: Picture, restored: Picture, side: Double): Pair<Double, Double> {
    val size = minOf(given.width, maxOf(16, Math.rint(side).toInt()))
    val ours = fine(given, size)
    val theirs = fine(restored, size)
    val (x, y, wide, high) = FACE_ONLY
    var common = 0.0
    var own = 0.0
    var made = 0.0
    for (row in 0 until size) for (column in 0 until size) {
        val across = ((column + 0.5) / size - x) / wide
        val down = ((row + 0.5) / size - y) / high
        if (across * across + down * down >= 1) continue
        val (a, b) = ours[row * size + column].toDouble() to theirs[row * size + column].toDouble()
        common += a * b
        own += a * a
        made += b * b
    }
    return common / maxOf(made, 1e-6) to common / maxOf(sqrt(own * made), 1e-6)
}

/** What a narrow Gaussian takes away from the luma (BT.601) of [picture] at [size]×[size] pixels. */
private fun fine(picture: Picture, size: Int): FloatArray {
    val luma = FloatArray(picture.width * picture.height) {
        fun channel(c: Int) = (picture.pixels[it * COLOURS + c].toInt() and 255).toFloat()
        0.299f * channel(0) + 0.587f * channel(1) + 0.114f * channel(2)
    }
    val x = Raster(picture.width, picture.height, 1, luma).resized(size, size).values
    val kernel = DoubleArray(7) { exp(-0.5 * ((it - 3) / FINE) * ((it - 3) / FINE)) }
    val sum = kernel.sum()
    val taps = FloatArray(7) { (kernel[it] / sum).toFloat() }
    fun inside(at: Int) = if (at < 0) -at else if (at < size) at else 2 * (size - 1) - at // mirrored at the pixel's middle
    val wide = FloatArray(size * size) { at ->
        (0 until 7).fold(0f) { sum, k -> sum + taps[k] * x[at / size * size + inside(at % size + k - 3)] }
    }
    return FloatArray(size * size) { at ->
        x[at] - (0 until 7).fold(0f) { sum, k -> sum + taps[k] * wide[inside(at / size + k - 3) * size + at % size] }
    }
}

/**
 * One face of a photograph.
 *
 * @property map from the photograph to its aligned square of side [size].
 * @property restored that square restored; null: the face is left alone.
 */
class Patch(val map: Similarity, val size: Int, val restored: Picture?) {
    val back = map.inverse()

    /** Distance of a place of the photograph from the middle of the face in units of its mask's: 1 at the outline. */
    fun radius(place: Point, margin: Double): Double {
        val (x, y, wide, high) = DoubleArray(4) { FACE_ONLY[it] + margin * (WHOLE[it] - FACE_ONLY[it]) }
        val inSquare = map.of(place)
        val across = abs(inSquare.x / size - x) / wide
        val down = abs(inSquare.y / size - y) / high
        return sqrt(sqrt(across * across * across * across + down * down * down * down))
    }

    /** Whether the circles around the two squares overlap. */
    fun meets(other: Patch): Boolean {
        val (here, there) = listOf(this, other).map { it.back.of(Point(it.size / 2.0, it.size / 2.0)) }
        val reach = listOf(this, other).sumOf { it.size / it.map.scale / sqrt(2.0) }
        return hypot(here.x - there.x, here.y - there.y) < reach
    }
}

/** [photo] with every restored patch in its place; for [margin] see [WantedFaces]. */
fun paste(photo: Picture, patches: List<Patch>, margin: Double): Picture {
    val out = Picture(photo.width, photo.height, photo.pixels.copyOf())
    for (patch in patches) {
        val restored = patch.restored ?: continue
        val outline = corners(patch.size.toDouble(), patch.size.toDouble()).map(patch.back::of)
        val left = floor(outline.minOf { it.x }).toInt().coerceIn(0, photo.width)
        val top = floor(outline.minOf { it.y }).toInt().coerceIn(0, photo.height)
        val width = ceil(outline.maxOf { it.x }).toInt().coerceIn(0, photo.width) - left
        val height = ceil(outline.maxOf { it.y }).toInt().coerceIn(0, photo.height) - top
        if (width <= 0 || height <= 0) continue
        val others = patches.filter { it !== patch && patch.meets(it) }
        val warp = Warp(restored, patch.back.shifted(-left.toDouble(), -top.toDouble()), width, height)
        for (y in 0 until height) {
            val made = warp.line(y)
            for (x in 0 until width) {
                val share = share(patch, others, Point(left + x + 0.5, top + y + 0.5), margin)
                if (share == 0.0) continue
                for (c in 0 until COLOURS) {
                    val at = ((top + y) * photo.width + left + x) * COLOURS + c
                    val given = photo.pixels[at].toInt() and 255
                    val change = share * (made[x * COLOURS + c].coerceIn(0f, 255f) - given)
                    out.pixels[at] = toByte(((out.pixels[at].toInt() and 255) + change).toFloat())
                }
            }
        }
    }
    return out
}

/** How much of the photograph's [place] [patch] paints over: its mask, less what is nearer to [others]. */
private fun share(patch: Patch, others: List<Patch>, place: Point, margin: Double): Double {
    val mine = patch.radius(place, margin)
    val mask = faded(mine)
    if (mask == 0.0) return 0.0
    val claims = mask + others.sumOf { other ->
        val theirs = other.radius(place, margin)
        faded(theirs) * exp(SHARPNESS * (mine - theirs).coerceIn(-50.0, 50.0))
    }
    return mask * mask / claims
}

/** The mask at a radius: 1 inside, 0 from the outline on, a half cosine between. */
private fun faded(distance: Double) = 0.5 - 0.5 * cos(PI * ((1 - distance) / FADE).coerceIn(0.0, 1.0))

