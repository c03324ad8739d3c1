/**
 * Pictures in memory: upright, cropped, enlarged, cut into tiles of float32.
 *
 * Everything gives the bytes that Pillow gives, so that a phone restores what the Python package restores:
 * resampling follows `Resample.c` (8-bit intermediate, 22-bit fixed-point coefficients).
 */
package org.elir.mobile.core

import kotlin.math.PI
import kotlin.math.abs
import kotlin.math.floor
import kotlin.math.sin
import kotlin.math.sqrt

/** Channels of a picture. */
const val COLOURS = 3
private const val REDUCING_GAP = 2.0 // of Pillow's resize

/** A channel of a pixel laid on white, as Pillow's `Image.composite` rounds it; both of 0 to 255. */
fun onWhite(channel: Int, alpha: Int): Int {
    val sum = channel * alpha + 255 * (255 - alpha) + 128
    return (sum + (sum shr 8)) shr 8
}

/** A value of 0 to 255 as a byte, halves to even. */
internal fun toByte(value: Float): Byte = Math.rint(value.toDouble()).coerceIn(0.0, 255.0).toInt().toByte()

/** An 8-bit RGB picture; [pixels] are (height, width, 3). */
class Picture(val width: Int, val height: Int, val pixels: ByteArray = ByteArray(width * height * COLOURS)) {
    init {
        require(width > 0 && height > 0 && pixels.size == width * height * COLOURS) {
            "${pixels.size} bytes are no picture of $width×$height"
        }
    }

    /** The centred square, resized to [side] pixels (Lanczos). */
    fun square(side: Int): Picture {
        val shorter = minOf(width, height)
        val left = (width - shorter) * 0.5
        val top = (height - shorter) * 0.5
        return resampled(side, side, Filter.LANCZOS, Box(left, top, left + shorter, top + shorter))
    }

    /** [factor] times as large. */
    fun enlarged(factor: Int, filter: Filter): Picture =
        if (factor == 1) this else resampled(width * factor, height * factor, filter)

    /** The part of the picture inside [box] at [toWidth]×[toHeight] pixels. */
    fun resampled(
        toWidth: Int,
        toHeight: Int,
        filter: Filter,
        box: Box = Box(0.0, 0.0, width.toDouble(), height.toDouble()),
    ): Picture {
        val across = Resampling.of(box.left, box.right, width, toWidth, filter)
        val down = Resampling.of(box.top, box.bottom, height, toHeight, filter)
        val wide = across?.let { Picture(toWidth, height, it.apply(pixels, height, width * COLOURS, COLOURS)) } ?: this
        return down?.let { Picture(wide.width, toHeight, it.applyDown(wide.pixels, wide.width * COLOURS)) } ?: wide
    }

    /** [resampled] with a filter that is cheap for pictures far larger: boxes of pixels are averaged first. */
    fun thumbnail(toWidth: Int, toHeight: Int): Picture {
        val across = maxOf(1, (width / toWidth.toDouble() / REDUCING_GAP).toInt())
        val down = maxOf(1, (height / toHeight.toDouble() / REDUCING_GAP).toInt())
        val box = Box(0.0, 0.0, width / across.toDouble(), height / down.toDouble())
        return averaged(across, down).resampled(toWidth, toHeight, Filter.BILINEAR, box)
    }

    /** The means of [across]×[down] pixels, and of what is left of them at the edges. */
    private fun averaged(across: Int, down: Int): Picture {
        if (across == 1 && down == 1) return this
        val out = Picture((width + across - 1) / across, (height + down - 1) / down)
        for (y in 0 until out.height) for (x in 0 until out.width) for (c in 0 until COLOURS) {
            val columns = x * across until minOf((x + 1) * across, width)
            val rows = y * down until minOf((y + 1) * down, height)
            val count = columns.count() * rows.count()
            var sum = count / 2
            for (row in rows) for (column in columns) sum += pixels[(row * width + column) * COLOURS + c].toInt() and 255
            out.pixels[(y * out.width + x) * COLOURS + c] = (sum.toLong() * ((1 shl 24) / count) shr 24).toByte()
        }
        return out
    }

    /** The [side]×[side] pixels from ([left], [top]) on, black beyond the picture. */
    fun cropped(left: Int, top: Int, side: Int): Picture {
        val out = Picture(side, side)
        val columns = minOf(side, width - left) * COLOURS
        for (y in 0 until minOf(side, height - top)) {
            val from = ((top + y) * width + left) * COLOURS
            pixels.copyInto(out.pixels, y * side * COLOURS, from, from + columns)
        }
        return out
    }

    /** Blurred as by Pillow's `GaussianBlur` with a radius of [spread]: three boxes along each axis. */
    fun blurred(spread: Double): Picture {
        if (spread == 0.0) return this
        val variance = spread * spread / 3
        val whole = floor((sqrt(12 * variance + 1) - 1) / 2)
        val more = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) * (whole + 1)))
        var out = pixels
        repeat(3) { out = boxBlurred(out, whole.toInt(), (whole + more).toFloat(), COLOURS, width) }
        repeat(3) { out = boxBlurred(out, whole.toInt(), (whole + more).toFloat(), width * COLOURS, height) }
        return Picture(width, height, out)
    }

    /** Along an axis of [size] samples that lie [pitch] bytes apart; [reach] is [radius] with its fraction. */
    private fun boxBlurred(from: ByteArray, radius: Int, reach: Float, pitch: Int, size: Int): ByteArray {
        val weight = ((1 shl 24) / (reach * 2 + 1)).toInt()
        val far = ((1 shl 24) - (radius * 2 + 1) * weight) / 2
        return ByteArray(from.size) { at ->
            val i = at / pitch % size
            fun sample(j: Int) = from[at + (j.coerceIn(0, size - 1) - i) * pitch].toInt() and 255
            var sum = 0L
            for (j in i - radius..i + radius) sum += sample(j)
            val bulk = sum * weight + (sample(i - radius - 1) + sample(i + radius + 1)).toLong() * far
            ((bulk + (1 shl 23)) shr 24).toByte()
        }
    }

    /**
     * The tile at ([left], [top]) as (3, [rows], [columns]) float32 in [0, 1]. Beyond the right and lower
     * edge the picture goes on mirrored, its edge pixels repeated.
     */
    fun tile(left: Int, top: Int, columns: Int, rows: Int): FloatArray {
        val out = FloatArray(COLOURS * rows * columns)
        for (y in 0 until rows) for (x in 0 until columns) {
            val at = (mirrored(top + y, height) * width + mirrored(left + x, width)) * COLOURS
            for (c in 0 until COLOURS) out[(c * rows + y) * columns + x] = (pixels[at + c].toInt() and 255) / 255f
        }
        return out
    }

    /** A part of a picture, in pixels and parts of them. */
    class Box(val left: Double, val top: Double, val right: Double, val bottom: Double)

    companion object {
        /**
         * The picture as it is to be looked at, from an image of [width]×[height] pixels that is read line by line,
         * so that memory holds the picture once, however it is turned. What is transparent lies on white.
         *
         * @param orientation EXIF's tag, 1 to 8; any other value leaves the image as it is.
         * @param read fills the given line with the pixels of line `y`, as 0xAARRGGBB.
         */
        fun upright(width: Int, height: Int, orientation: Int, read: (y: Int, line: IntArray) -> Unit): Picture {
            val swapped = orientation in 5..8
            val out = Picture(if (swapped) height else width, if (swapped) width else height)
            // Whether the image's first column comes last, and its first line.
            val mirrored = orientation in listOf(2, 3, 7, 8)
            val flipped = orientation in listOf(3, 4, 6, 7)
            val across = COLOURS * (if (swapped) out.width else 1) * (if (mirrored) -1 else 1)
            val line = IntArray(width)
            for (y in 0 until height) {
                read(y, line)
                val x = if (mirrored) width - 1 else 0
                val turnedY = if (flipped) height - 1 - y else y
                var at = COLOURS * (if (swapped) x * out.width + turnedY else turnedY * out.width + x)
                for (pixel in line) {
                    val alpha = pixel ushr 24
                    for (c in 0 until COLOURS) {
                        val channel = (pixel shr (16 - 8 * c)) and 255
                        out.pixels[at + c] = onWhite(channel, alpha).toByte()
                    }
                    at += across
                }
            }
            return out
        }
    }
}

private fun mirrored(index: Int, size: Int): Int {
    val turn = index % (2 * size)
    return if (turn < size) turn else 2 * size - 1 - turn
}

/** How a picture is resized, by Pillow's names; [support] is the reach of the kernel in pixels. */
enum class Filter(val support: Double) {
    NEAREST(0.0) {
        override fun weight(x: Double) = throw UnsupportedOperationException("nearest has no kernel")
    },
    BOX(0.5) {
        override fun weight(x: Double) = if (x > -0.5 && x <= 0.5) 1.0 else 0.0
    },
    BILINEAR(1.0) {
        override fun weight(x: Double) = maxOf(0.0, 1 - abs(x))
    },
    BICUBIC(2.0) {
        override fun weight(x: Double): Double {
            val a = -0.5
            val d = abs(x)
            return when {
                d < 1 -> ((a + 2) * d - (a + 3)) * d * d + 1
                d < 2 -> (((d - 5) * d + 8) * d - 4) * a
                else -> 0.0
            }
        }
    },
    LANCZOS(3.0) {
        override fun weight(x: Double) = if (x >= -3 && x < 3) sinc(x) * sinc(x / 3) else 0.0
    };

    abstract fun weight(x: Double): Double
}

private fun sinc(x: Double): Double = if (x == 0.0) 1.0 else sin(x * PI) / (x * PI)

private const val BITS = 22

/** Along one axis: output sample i is made of the inputs from [firsts]`[i]` on, weighted by [weights]`[i]`. */
private class Resampling(private val firsts: IntArray, private val weights: Array<IntArray>) {
    /** Resample each of [lines] lines of [stride] bytes, whose samples have [channels] bytes. */
    fun apply(pixels: ByteArray, lines: Int, stride: Int, channels: Int): ByteArray {
        val out = ByteArray(lines * firsts.size * channels)
        var at = 0
        for (line in 0 until lines) for (i in firsts.indices) for (c in 0 until channels) {
            out[at++] = sample(pixels, line * stride + c, channels, i)
        }
        return out
    }

    /** Resample each column; a line has [stride] bytes. */
    fun applyDown(pixels: ByteArray, stride: Int): ByteArray {
        val out = ByteArray(firsts.size * stride)
        for (i in firsts.indices) for (x in 0 until stride) out[i * stride + x] = sample(pixels, x, stride, i)
        return out
    }

    private fun sample(pixels: ByteArray, offset: Int, pitch: Int, i: Int): Byte {
        var sum = 1 shl (BITS - 1)
        var at = offset + firsts[i] * pitch
        for (weight in weights[i]) {
            sum += (pixels[at].toInt() and 255) * weight
            at += pitch
        }
        return (sum shr BITS).coerceIn(0, 255).toByte()
    }

    companion object {
        /** How to get [count] samples from those between [from] and [to], of [size]; null: leave them. */
        fun of(from: Double, to: Double, size: Int, count: Int, filter: Filter): Resampling? {
            if (count == size && from == 0.0 && to == size.toDouble()) return null
            val scale = (to - from) / count
            if (filter == Filter.NEAREST) {
                val firsts = IntArray(count) { (from + (it + 0.5) * scale).toInt() }
                return Resampling(firsts, Array(count) { intArrayOf(1 shl BITS) })
            }
            val stretch = maxOf(scale, 1.0)
            val support = filter.support * stretch
            val firsts = IntArray(count)
            val weights = Array(count) { i ->
                val centre = from + (i + 0.5) * scale
                val first = maxOf((centre - support + 0.5).toInt(), 0)
                val last = minOf((centre + support + 0.5).toInt(), size)
                firsts[i] = first
                val kernel = DoubleArray(last - first) { filter.weight((it + first - centre + 0.5) / stretch) }
                val sum = kernel.sum()
                IntArray(kernel.size) {
                    val exact = kernel[it] / sum * (1 shl BITS)
                    (if (exact < 0) exact - 0.5 else exact + 0.5).toInt()
                }
            }
            return Resampling(firsts, weights)
        }
    }
}
