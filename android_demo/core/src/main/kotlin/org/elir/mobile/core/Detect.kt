/**
 * Where the faces of a photograph are, with the five points that they are aligned by: `elir_mobile/faces/detect.py`.
 *
 * MediaPipe's full-range BlazeFace proposes, its face mesh places the points. Where the detector is not sure, it looks
 * again, with the face upright in the middle of its input. It looks at 192×192 pixels, so the photograph is looked at
 * whole and then in tiles, larger each time, until the smallest face is as large as the detector needs it.
 */
package org.elir.mobile.core

import java.io.Closeable
import kotlin.math.abs
import kotlin.math.atan2
import kotlin.math.ceil
import kotlin.math.cos
import kotlin.math.exp
import kotlin.math.ln
import kotlin.math.sin

/** Side of both networks' inputs, pixels. */
const val FACE_INPUT = 192
private const val STRIDE = 4 // of the detector's anchors
private const val ANCHORS = FACE_INPUT / STRIDE // in a row
private const val ROW = 16 // numbers of a proposal: a box and six points
private const val MIN_FACE = 24 // side of the box of the smallest face that is looked for, pixels
private const val SEEN = 20 // side of a box in the detector's input from which on it finds nearly every face
private const val TILE_OVERLAP = 48
private const val LEVEL = 2.5 // how many times larger the picture is at most than at the level before
private const val MIN_SCORE = 0.3
private const val SURE_SCORE = 0.8
private const val LOOK_SCORE = 0.05
private const val MIN_MEAN = 0.5
private const val MIN_PRESENCE = 0.5
private const val MIN_SIDE = 16 // of a box in the photograph, pixels
private const val SAME = 0.3 // intersection over union from which on two boxes are of one face
private const val INSIDE = 0.6 // share of the smaller box, likewise
private const val ROI = 1.5 // side of what the mesh is shown, in sides of the box

/** What the second looks show: sides of the box in shares of the input, and the spread of a blur, pixels. */
private val LOOKS = listOf(0.2 to 0.0, 0.35 to 0.0, 0.35 to 3.0)

/** The mesh's points: corners of both eyes as seen in the picture, nose, corners of the mouth. */
private val FIVE = listOf(listOf(33, 133), listOf(362, 263), listOf(4), listOf(61), listOf(291))

/** The detector's two networks, loaded; inputs are (192, 192, 3) float32. */
interface FaceNetworks : Closeable {
    /** Proposals (2304, 16) and the logits of their scores, of pixels in [-1, 1]. */
    fun detect(x: FloatArray): Pair<FloatArray, FloatArray>

    /** Points (468, 3) and the logit of there being a face, of pixels in [0, 1]. */
    fun mesh(x: FloatArray): Pair<FloatArray, Float>
}

/** Left, top, right, bottom and the x and y of six points, and how sure the detector is. */
private class Proposal(val row: DoubleArray, val score: Double) {
    val box = FaceBox(row[0], row[1], row[2], row[3])

    fun point(number: Int) = Point(row[4 + 2 * number], row[5 + 2 * number])
}

/** Finds the faces of photographs with [networks]. */
class FaceFinder(private val networks: FaceNetworks) {
    /** The faces of [photo], the largest first; [progress] may throw to cancel. */
    fun find(photo: Picture, progress: Progress = { _, _ -> }): List<Face> {
        val whole = FACE_INPUT.toDouble() / maxOf(photo.width, photo.height)
        val finest = SEEN.toDouble() / MIN_FACE
        val levels = maxOf(0, ceil(ln(finest / whole) / ln(LEVEL)).toInt())
        val proposals = mutableListOf<Proposal>()
        for (level in 0..levels) {
            val scale = whole * Math.pow(finest / whole, level.toDouble() / maxOf(levels, 1))
            val width = maxOf(1, Math.rint(photo.width * scale).toInt())
            val height = maxOf(1, Math.rint(photo.height * scale).toInt())
            val scene = photo.thumbnail(width, height)
            val (rows, columns) = listOf(height, width).map { axisWindows(it, FACE_INPUT, TILE_OVERLAP) }
            for (row in rows) {
                progress(level, levels + 1)
                for (column in columns) proposals += proposed(scene, scale, column.start, row.start)
            }
        }
        return distinct(suppressed(proposals).mapNotNull { face(photo, it) }).sortedByDescending { it.box.side }
    }

    /** What the detector proposes in a tile, in pixels of the photograph; faces that the tile cuts are left out. */
    private fun proposed(scene: Picture, scale: Double, left: Int, top: Int): List<Proposal> =
        detected(scene.cropped(left, top, FACE_INPUT), MIN_SCORE).filterNot {
            left > 0 && it.box.left < 1 || top > 0 && it.box.top < 1 ||
                left + FACE_INPUT < scene.width && it.box.right > FACE_INPUT - 1 ||
                top + FACE_INPUT < scene.height && it.box.bottom > FACE_INPUT - 1
        }.map { found ->
            Proposal(DoubleArray(ROW) { (found.row[it] + if (it % 2 == 0) left else top) / scale }, found.score)
        }

    /** The face of a proposal; null: it is none. */
    private fun face(photo: Picture, found: Proposal): Face? {
        val side = found.box.side
        if (side < MIN_SIDE) return null
        val middle = Point((found.box.left + found.box.right) / 2, (found.box.top + found.box.bottom) / 2)
        val angle = atan2(found.point(1).y - found.point(0).y, found.point(1).x - found.point(0).x)
        val map = upright(middle, ROI * side, angle)
        val pixels = Warp(photo, map, FACE_INPUT, FACE_INPUT).all()
        val (points, logit) = networks.mesh(FloatArray(pixels.size) { (pixels[it] / 255).coerceIn(0f, 1f) })
        if (found.score < SURE_SCORE) {
            val looks = LOOKS.map { (share, blur) -> looked(photo, middle, side, angle, share, blur) }
            if ((found.score + looks.sum()) / (1 + looks.size) < MIN_MEAN) return null
        }
        val presence = sigmoid(logit)
        if (presence < MIN_PRESENCE) return unmeshed(found)
        val back = map.inverse()
        val mesh = List(points.size / 3) { back.of(Point(points[3 * it].toDouble(), points[3 * it + 1].toDouble())) }
        val box = FaceBox(mesh.minOf { it.x }, mesh.minOf { it.y }, mesh.maxOf { it.x }, mesh.maxOf { it.y })
        val five = FIVE.map { numbers ->
            Point(numbers.map { mesh[it].x }.average(), numbers.map { mesh[it].y }.average())
        }
        return Face(box, five, maxOf(found.score, presence))
    }

    /** Without a mesh there is the middle of the mouth alone: its corners are where the template has them. */
    private fun unmeshed(found: Proposal): Face {
        val (leftCorner, rightCorner) = TEMPLATE.takeLast(2)
        val mouth = Point((leftCorner.x + rightCorner.x) / 2, (leftCorner.y + rightCorner.y) / 2)
        val map = Similarity.between(TEMPLATE.take(3) + mouth, List(4, found::point))
        return Face(found.box, List(3, found::point) + TEMPLATE.takeLast(2).map(map::of), found.score)
    }

    /** The detector's score of a face there, upright in the middle of its input, [share] of it and blurred. */
    private fun looked(
        photo: Picture,
        middle: Point,
        side: Double,
        angle: Double,
        share: Double,
        blur: Double,
    ): Double {
        val pixels = Warp(photo, upright(middle, side / share, angle), FACE_INPUT, FACE_INPUT).all()
        val bytes = ByteArray(pixels.size) { pixels[it].coerceIn(0f, 255f).toInt().toByte() } // Python cuts off, too
        return detected(Picture(FACE_INPUT, FACE_INPUT, bytes).blurred(blur), LOOK_SCORE).filter {
            val across = abs((it.box.left + it.box.right) / 2 - FACE_INPUT / 2)
            val down = abs((it.box.top + it.box.bottom) / 2 - FACE_INPUT / 2)
            maxOf(across, down) < 0.35 * share * FACE_INPUT
        }.maxOfOrNull { it.score } ?: 0.0
    }

    /** What the detector proposes in [tile] with a score of at least [least], in pixels of the tile. */
    private fun detected(tile: Picture, least: Double): List<Proposal> {
        val (raw, logits) = networks.detect(
            FloatArray(tile.pixels.size) { (tile.pixels[it].toInt() and 255) / 127.5f - 1 },
        )
        return logits.indices.filter { sigmoid(logits[it]) >= least }.map { anchor ->
            // Anchors are the middles of cells, row by row; all is given in pixels from there.
            val x = (anchor % ANCHORS + 0.5) * STRIDE
            val y = (anchor / ANCHORS + 0.5) * STRIDE
            val given = DoubleArray(ROW) { raw[anchor * ROW + it].toDouble() }
            val row = DoubleArray(ROW) { given[it] + if (it % 2 == 0) x else y }
            for ((side, at) in listOf(-0.5 to 0, 0.5 to 2)) {
                row[at] = x + given[0] + side * given[2]
                row[at + 1] = y + given[1] + side * given[3]
            }
            Proposal(row, sigmoid(logits[anchor]))
        }
    }
}

/** The map from a square of the photograph around [middle], turned by [angle], to a network's input. */
private fun upright(middle: Point, side: Double, angle: Double): Similarity {
    val scale = FACE_INPUT / side
    val turn = Similarity(scale * cos(angle), -scale * sin(angle), 0.0, 0.0)
    val moved = turn.of(middle)
    return turn.shifted(FACE_INPUT / 2 - moved.x, FACE_INPUT / 2 - moved.y)
}

private fun sigmoid(logit: Float) = 1 / (1 + exp(-logit.toDouble().coerceIn(-100.0, 100.0)))

/** Intersection over union, and over the smaller one. */
private fun overlaps(a: FaceBox, b: FaceBox): Pair<Double, Double> {
    val wide = (minOf(a.right, b.right) - maxOf(a.left, b.left)).coerceAtLeast(0.0)
    val high = (minOf(a.bottom, b.bottom) - maxOf(a.top, b.top)).coerceAtLeast(0.0)
    val (one, other) = listOf(a, b).map { (it.right - it.left) * (it.bottom - it.top) }
    return wide * high / (one + other - wide * high) to wide * high / minOf(one, other)
}

/**
 * One proposal for each face, best first: what overlaps a better one becomes part of its mean, weighted by score. A box
 * that lies within another one is of a part of the face: its coordinates do not count.
 */
private fun suppressed(proposals: List<Proposal>): List<Proposal> {
    var left = proposals.sortedByDescending { it.score }
    val kept = mutableListOf<Proposal>()
    while (left.isNotEmpty()) {
        val best = left.first()
        val judged = left.map { it to overlaps(best.box, it.box) }
        val same = judged.filter { (_, shared) -> shared.first >= SAME }.map { it.first }
        val total = same.sumOf { it.score }
        val mean = DoubleArray(ROW) { at -> same.sumOf { it.row[at] * it.score } / total }
        kept += Proposal(mean, best.score)
        left = judged.filter { (_, shared) -> shared.first < SAME && shared.second < INSIDE }.map { it.first }
    }
    return kept
}

/** One of those whose meshes lie on one another: the surest. */
private fun distinct(faces: List<Face>): List<Face> {
    val kept = mutableListOf<Face>()
    for (face in faces.sortedByDescending { it.score }) {
        val same = kept.any { other -> overlaps(face.box, other.box).let { it.first >= SAME || it.second >= INSIDE } }
        if (!same) kept += face
    }
    return kept
}
