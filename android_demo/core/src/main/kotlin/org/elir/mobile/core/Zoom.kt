/**
 * Comparing two pictures by touch: how far they are zoomed, where the line between them is, and whose a gesture is.
 *
 * One finger that moves sideways drags the line, and one that moves up or down is left to what scrolls around the view.
 * Two fingers zoom. In a zoomed picture one finger drags the picture, unless it starts at the line.
 */
package org.elir.mobile.core

import kotlin.math.abs
import kotlin.math.hypot

/** Times as large as all of the picture, at most. */
const val MOST_ZOOM = 12.0
private const val TAPPED_ZOOM = 3.0

/** A rectangle in a view, pixels. */
data class Frame(val left: Double, val top: Double, val width: Double, val height: Double) {
    val right: Double get() = left + width
    val bottom: Double get() = top + height
}

/**
 * What of a picture is seen.
 *
 * @property scale times as large as all of it in the view.
 * @property x place in the middle of the view, in shares of the picture's width; [y] of its height.
 */
data class Zoom(val scale: Double = 1.0, val x: Double = 0.5, val y: Double = 0.5) {
    /** Where all of a picture with the [aspect] of width to height lies in a view of [width]×[height] pixels. */
    fun frame(width: Double, height: Double, aspect: Double): Frame {
        val wide = minOf(width, height * aspect) * scale
        val high = wide / aspect
        return Frame(placed(x, wide, width), placed(y, high, height), wide, high)
    }

    /** Where a side of [length] starts: no gap is left where the picture is larger than the view, else it is in the middle. */
    private fun placed(middle: Double, length: Double, view: Double): Double =
        if (length <= view) (view - length) / 2 else (view / 2 - middle * length).coerceIn(view - length, 0.0)

    /** [factor] times as large, with what is at ([atX], [atY]) staying there. */
    fun by(factor: Double, atX: Double, atY: Double, width: Double, height: Double, aspect: Double): Zoom {
        val before = frame(width, height, aspect)
        val scale = (scale * factor).coerceIn(1.0, MOST_ZOOM)
        val grown = scale / this.scale
        val left = atX - (atX - before.left) * grown
        val top = atY - (atY - before.top) * grown
        return Zoom(scale, (width / 2 - left) / (before.width * grown), (height / 2 - top) / (before.height * grown))
            .settled(width, height, aspect)
    }

    /** Moved by so many pixels. */
    fun moved(byX: Double, byY: Double, width: Double, height: Double, aspect: Double): Zoom {
        val frame = frame(width, height, aspect)
        return copy(x = x - byX / frame.width, y = y - byY / frame.height).settled(width, height, aspect)
    }

    /** With the middle that [frame] shows, so that a drag beyond an edge is not to be dragged back. */
    private fun settled(width: Double, height: Double, aspect: Double): Zoom {
        val frame = frame(width, height, aspect)
        return copy(x = (width / 2 - frame.left) / frame.width, y = (height / 2 - frame.top) / frame.height)
    }

    /** After a double tap at ([atX], [atY]): larger, or all of it again. */
    fun tapped(atX: Double, atY: Double, width: Double, height: Double, aspect: Double): Zoom =
        if (scale > 1) Zoom() else by(TAPPED_ZOOM, atX, atY, width, height, aspect)
}

/** What a gesture does. */
enum class Gesture { NONE, LINE, PICTURE, ZOOM, OTHERS }

/**
 * The comparison in a view: give it touches, draw what it says.
 *
 * @param slop pixels from which on a finger moves.
 * @param reach pixels beside the line that belong to it.
 */
class Comparison(private val slop: Double, private val reach: Double) {
    var width = 0.0
    var height = 0.0
    var aspect = 1.0

    /** Whether there is a line to drag. */
    var compares = false
    var zoom = Zoom()
        private set

    /** Where the line is, in shares of what is seen of the picture's width. */
    var part = 0.5
        private set
    var gesture = Gesture.NONE
        private set
    private var down = Point(0.0, 0.0)
    private var last = Point(0.0, 0.0)
    private var spread = 0.0 // between two fingers

    val frame: Frame get() = zoom.frame(width, height, aspect)

    /** The place of the line in the view. */
    val line: Double get() = seen().let { (from, to) -> from + part * (to - from) }

    private fun seen() = frame.let { maxOf(it.left, 0.0) to minOf(it.right, width) }

    /** Show another picture, all of it. */
    fun reset() {
        zoom = Zoom()
        gesture = Gesture.NONE
    }

    /** The first finger is down. */
    fun down(x: Double, y: Double) {
        down = Point(x, y)
        last = down
        gesture = if (compares && zoom.scale > 1 && abs(x - line) <= reach) Gesture.LINE else Gesture.NONE
    }

    /** A second one is down, or another one of two is up: from now on these [fingers] count. */
    fun fingers(fingers: List<Point>) {
        if (fingers.size > 1) gesture = Gesture.ZOOM else if (gesture == Gesture.ZOOM) gesture = Gesture.PICTURE
        last = middle(fingers)
        spread = spread(fingers)
    }

    /**
     * The fingers are here now.
     *
     * @return whether the gesture is this view's, and none of what scrolls around it.
     */
    fun moved(fingers: List<Point>): Boolean {
        val here = middle(fingers)
        if (gesture == Gesture.NONE) gesture = begun(here)
        when (gesture) {
            Gesture.LINE -> moveLine((here.x - seen().first) / (seen().second - seen().first))
            Gesture.PICTURE -> zoom = zoom.moved(here.x - last.x, here.y - last.y, width, height, aspect)
            Gesture.ZOOM -> {
                val now = spread(fingers)
                if (spread > 0 && now > 0) zoom = zoom.by(now / spread, here.x, here.y, width, height, aspect)
                zoom = zoom.moved(here.x - last.x, here.y - last.y, width, height, aspect)
                spread = now
            }
            Gesture.NONE, Gesture.OTHERS -> Unit
        }
        last = here
        return gesture != Gesture.NONE && gesture != Gesture.OTHERS
    }

    private fun begun(here: Point): Gesture {
        val across = abs(here.x - down.x)
        val along = abs(here.y - down.y)
        return when {
            maxOf(across, along) <= slop -> Gesture.NONE
            zoom.scale > 1 -> Gesture.PICTURE
            across > along && compares -> Gesture.LINE
            else -> Gesture.OTHERS
        }
    }

    /** Whether the finger that is up now has tapped. */
    fun up(): Boolean = (gesture == Gesture.NONE || gesture == Gesture.LINE && hypot(last.x - down.x, last.y - down.y) <= slop)
        .also { gesture = Gesture.NONE }

    /** Put the line [to] a share of what is seen. */
    fun moveLine(to: Double) {
        part = to.coerceIn(0.0, 1.0)
    }

    /** One tap: the line goes there. */
    fun tapped(x: Double) = seen().let { (from, to) -> moveLine((x - from) / (to - from)) }

    /** Two taps. */
    fun doubleTapped(x: Double, y: Double) {
        zoom = zoom.tapped(x, y, width, height, aspect)
    }

    /** [factor] times as large, about the middle. */
    fun zoomed(factor: Double) {
        zoom = zoom.by(factor, width / 2, height / 2, width, height, aspect)
    }

    private fun middle(fingers: List<Point>) = Point(fingers.map { it.x }.average(), fingers.map { it.y }.average())

    private fun spread(fingers: List<Point>) =
        if (fingers.size < 2) 0.0 else hypot(fingers[0].x - fingers[1].x, fingers[0].y - fingers[1].y)
}
