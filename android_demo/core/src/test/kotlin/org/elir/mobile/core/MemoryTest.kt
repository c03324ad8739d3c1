package org.elir.mobile.core

import com.sun.management.ThreadMXBean
import java.lang.management.ManagementFactory
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

private const val WIDTH = 8000
private const val HEIGHT = 6000 // 48 megapixels, 144 MB as a picture

/** What a large photograph takes of the heap; run with the 192 MB that an app has on many phones. */
class MemoryTest {
    private val threads = ManagementFactory.getThreadMXBean() as ThreadMXBean

    private fun <T> allocating(most: Long, make: () -> T): T {
        val thread = Thread.currentThread().id
        val before = threads.getThreadAllocatedBytes(thread)
        val made = make()
        val allocated = threads.getThreadAllocatedBytes(thread) - before
        assertTrue("$allocated bytes allocated, $most expected at most", allocated <= most)
        return made
    }

    @Test
    fun aPhotoOf48MegapixelsIsInMemoryOnceHoweverItIsTurned() {
        val bytes = COLOURS.toLong() * WIDTH * HEIGHT
        for (orientation in 1..8) {
            val photo = allocating(bytes + (1 shl 20)) {
                Picture.upright(WIDTH, HEIGHT, orientation) { y, line ->
                    for (x in line.indices) line[x] = (255 shl 24) or (x shl 12) or y // tells the corners apart
                }
            }
            val swapped = orientation >= 5
            assertEquals(if (swapped) HEIGHT else WIDTH, photo.width)
            val corners = listOf(0 to 0, WIDTH - 1 to 0, 0 to HEIGHT - 1, WIDTH - 1 to HEIGHT - 1)
            val shown = when (orientation) { // which of them is at the upper left
                1, 5 -> corners[0]
                2, 8 -> corners[1]
                4, 6 -> corners[2]
                else -> corners[3]
            }
            val first = photo.pixels.take(COLOURS).fold(0) { pixel, byte -> (pixel shl 8) or (byte.toInt() and 255) }
            assertEquals("orientation $orientation", ((shown.first shl 12) or shown.second) and 0xFFFFFF, first)
        }
    }

    @Test
    fun theSquareOfOneTakesLittleMore() {
        val photo = Picture(WIDTH, HEIGHT)
        val square = allocating(16L shl 20) { photo.square(512) }
        assertEquals(512 to 512, square.width to square.height)
    }
}
