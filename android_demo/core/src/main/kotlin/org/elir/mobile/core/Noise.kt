/**
 * Seeded noise, equal to PyTorch's: `torch.randn(shape, generator=torch.Generator().manual_seed(seed))`.
 *
 * Mersenne Twister (Matsumoto and Nishimura 1998, the reference `mt19937ar`), 24 bits of each word as a
 * uniform number, and Box-Muller in blocks of sixteen, as PyTorch's `normal_fill` does on the CPU.
 */
package org.elir.mobile.core

import kotlin.math.PI
import kotlin.math.cos
import kotlin.math.ln
import kotlin.math.sin
import kotlin.math.sqrt

private const val WORDS = 624
private const val SHIFT = 397
private const val BLOCK = 16

/** The 32-bit Mersenne Twister; only the low 32 bits of [seed] count, as in PyTorch. */
class MersenneTwister(seed: Long) {
    private val state = IntArray(WORDS)
    private var next = WORDS

    init {
        state[0] = seed.toInt()
        for (i in 1 until WORDS) {
            val last = state[i - 1]
            state[i] = 1812433253 * (last xor (last ushr 30)) + i
        }
    }

    /** The next 32 bits. */
    fun next(): Int {
        if (next == WORDS) twist()
        var bits = state[next++]
        bits = bits xor (bits ushr 11)
        bits = bits xor ((bits shl 7) and 0x9d2c5680.toInt())
        bits = bits xor ((bits shl 15) and 0xefc60000.toInt())
        return bits xor (bits ushr 18)
    }

    /** The next float32 in [0, 1): the low 24 bits. */
    fun uniform(): Float = (next() and 0xffffff) / 16777216f

    private fun twist() {
        for (i in 0 until WORDS) {
            val bits = (state[i] and Int.MIN_VALUE) or (state[(i + 1) % WORDS] and Int.MAX_VALUE)
            val twisted = if (bits and 1 == 0) 0 else 0x9908b0df.toInt()
            state[i] = state[(i + SHIFT) % WORDS] xor (bits ushr 1) xor twisted
        }
        next = 0
    }
}

/**
 * [count] numbers of unit Gaussian noise that depend on nothing but [count] and [seed].
 *
 * @throws IllegalArgumentException fewer than sixteen: PyTorch draws those in another way, and no latent is
 *   that small.
 */
fun seededNoise(count: Int, seed: Long): FloatArray {
    require(count >= BLOCK) { "noise of $count numbers: at least $BLOCK are needed" }
    val twister = MersenneTwister(seed)
    val out = FloatArray(count) { twister.uniform() }
    for (start in 0..count - BLOCK step BLOCK) boxMuller(out, start)
    if (count % BLOCK != 0) { // the last sixteen are drawn anew, over what is there
        for (i in count - BLOCK until count) out[i] = twister.uniform()
        boxMuller(out, count - BLOCK)
    }
    return out
}

private fun boxMuller(values: FloatArray, start: Int) {
    for (i in start until start + BLOCK / 2) {
        val radius = sqrt(-2 * ln(1.0 - values[i]))
        val angle = ((2 * PI).toFloat() * values[i + BLOCK / 2]).toDouble() // PyTorch multiplies in float32
        values[i] = (radius * cos(angle)).toFloat()
        values[i + BLOCK / 2] = (radius * sin(angle)).toFloat()
    }
}
