/**
 * Overlapping windows whose raised-cosine weights sum to one at every sample, as `elir_mobile/core/tiling.py`.
 */
package org.elir.mobile.core

import kotlin.math.PI
import kotlin.math.min
import kotlin.math.sin

/** One window along an axis: it starts at [start], and [weights] say what each of its samples counts. */
class Window(val start: Int, val weights: FloatArray)

/**
 * Windows of [tile] samples, or one of [length] if that is less, that cover [length] and share at least
 * [overlap] samples. The last is moved back to end with the axis.
 *
 * @throws IllegalArgumentException [overlap] is negative or leaves no way forward.
 */
fun axisWindows(length: Int, tile: Int, overlap: Int): List<Window> {
    require(overlap in 0 until tile) { "overlap $overlap is not within 0 and tile $tile" }
    if (length <= tile) return listOf(Window(0, FloatArray(length) { 1f }))
    val starts = (0 until length - tile step tile - overlap) + (length - tile)
    val bump = DoubleArray(tile) {
        val ramp = min(it, tile - 1 - it) + 0.5 // distance from the nearer end
        val rise = sin(PI / 2 * min(ramp / maxOf(overlap, 1), 1.0))
        rise * rise
    }
    val total = DoubleArray(length)
    for (start in starts) for (i in bump.indices) total[start + i] += bump[i]
    return starts.map { start -> Window(start, FloatArray(tile) { (bump[it] / total[start + it]).toFloat() }) }
}
