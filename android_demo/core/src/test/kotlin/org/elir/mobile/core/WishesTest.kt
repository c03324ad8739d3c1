/** Fidelity, colours and backgrounds are the package's, to 1 of 255; what is kept of a file's EXIF. */
package org.elir.mobile.core

import java.io.ByteArrayInputStream
import java.io.ByteArrayOutputStream
import java.io.File
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class WishesTest {
    @Test
    fun coloursAreThoseOfTheGivenPicture() {
        val cases = index.getJSONArray("colors").objects()
        assertTrue(cases.size >= 9)
        for (case in cases) {
            val restored = picture(case.getJSONObject("restored"))
            keepColours(restored, picture(case.getJSONObject("given")))
            assertNear(case.toString(), picture(case.getJSONObject("expected")), restored)
        }
        assertThrows(IllegalArgumentException::class.java) { keepColours(Picture(2, 2), Picture(2, 3)) }
    }

    @Test
    fun tilesGetOneLevel() {
        val case = index.getJSONObject("levels")
        val places = case.getJSONArray("places").let { all -> (0 until all.length()).map { all.getJSONArray(it).ints() } }
        val values = floats(case.getJSONObject("tiles"))
        val tiles = places.mapIndexed { i, (top, left) -> Level(left, top, 8, values.copyOfRange(i * 64, i * 64 + 64)) }
        assertClose("first row", floats(case.getJSONObject("first")), levelOffsets(tiles.take(3), emptyList()))
        assertClose("second row", floats(case.getJSONObject("second")), levelOffsets(tiles.drop(3), tiles.take(3)))
        val flat = Level.of(FloatArray(COLOURS * 16 * 16) { 0.25f }, 16, 8, 0)
        assertEquals(1.0 to 0.25, flat.met(flat.lifted(0.25f)))
    }

    /** `tests/app_fixtures.py:moody`: tiles are lighter the lighter their input is. */
    private class Moody(private val stub: Stub) : Programs by stub {
        override fun encode(image: FloatArray): FloatArray {
            val lighter = (0.3 * (image.average() - 0.5)).toFloat()
            return stub.encode(image).also { latent -> for (at in latent.indices) latent[at] += lighter }
        }
    }

    /** The fp32 stub of the bundle of a task. */
    private fun moody(task: String): Restorer {
        val bundle = Bundle.read(File(fixtures, "tasks/$task"))
        return Restorer(bundle, Moody(Stub(bundle, bundle.artifacts.first { it.path == "stub/fp32.stub" })))
    }

    /** What is kept of a photo the bundle says: of the package's own tasks, all kinds that there are. */
    @Test
    fun picturesAreRestoredWithTheseWishesAsThePackageDoes() {
        val cases = index.getJSONArray("finished").objects()
        assertTrue(cases.size >= 10)
        for (case in cases) {
            val keeps = case.getBoolean("keep_colors") to case.getBoolean("keep_grey")
            val restorer = moody(if (keeps.first) "bfr" else if (keeps.second) "inpainting" else "colorization")
            restorer.fidelity = case.getDouble("fidelity").toFloat()
            assertEquals(keeps.first, restorer.keepsColours)
            val seed = case.getLong("seed")
            val given = picture(case.getJSONObject("input"))
            val bands = mutableListOf<Float>()
            val calls = mutableListOf<Pair<Int, Int>>()
            restorer.blend(given, seed, { done, total -> calls += done to total }) { _, band -> bands += band.asList() }
            assertEquals(restorer.callsFor(given) to restorer.callsFor(given), calls.last())
            assertEquals(calls.size, calls.last().first)
            assertClose(case.toString(), floats(case.getJSONObject("blended")), bands.toFloatArray(), 2e-6f)
            assertNear(case.toString(), picture(case.getJSONObject("output")), restorer.restoreTiles(given, seed))
        }
        assertThrows(IllegalArgumentException::class.java) { Restorer(bundle, stub("stub/fp32.stub")).fidelity = 1.5f }
    }

    @Test
    fun greyPhotosComeOutGreyUnlessColoursAreNotToBeKept() {
        val case = index.getJSONArray("finished").objects().first { picture(it.getJSONObject("input")).isGrey }
        val grey = picture(case.getJSONObject("input"))
        fun made(task: String, keeps: Boolean?) =
            moody(task).apply { keeps?.let { keepsColours = it } }.restoreTiles(grey, 0)
        for (task in listOf("bfr", "inpainting")) assertTrue(task, made(task, null).isGrey)
        for ((task, keeps) in listOf("bfr" to false, "colorization" to null)) assertFalse(task, made(task, keeps).isGrey)
        assertTrue(made("colorization", true).isGrey) // where it is wished for
    }

    @Test
    fun theManifestSaysWithWhatToBegin() {
        for (case in index.getJSONArray("tasks").objects()) {
            val task = Bundle.read(File(fixtures, case.getString("path"))).task
            val kept = listOf("keep_colors", "keep_grey").map(case::getBoolean)
            assertEquals(task.name, kept, listOf(task.keepsColours, task.keepsGrey))
            assertEquals(0f, task.fidelity, 0f)
        }
    }

    @Test
    fun aPhotographIsRestoredWithItsBackgroundAndOneCountOfCalls() {
        val scenes = index.getJSONArray("faces").objects()
        val scene = scenes.first { it.getJSONArray("faces").length() == 2 }
        val photo = picture(scene.getJSONObject("photo"))
        val behind = Bundle.read(File(fixtures, "tasks/bsr"))
        val networks = { Replayed(scene.getJSONArray("calls").objects()) }
        val faces = Bundle.read(File(fixtures, "tasks/bfr"))
        val background = Restorer(behind, Stub(behind, behind.artifacts.first { it.target == "stub" }))
        val calls = mutableListOf<Pair<Int, Int>>()
        val restorer = Restorer(faces, stub("stub/fp32.stub"), networks = networks())
        val out = restorer.restore(photo, 0, background) { done, total -> calls += done to total }
        val total = background.callsFor(photo) + restorer.calls(2)
        assertEquals((1..total).map { it to total }, calls)
        assertEquals(4 * photo.width to 4 * photo.height, out.width to out.height)
        val corner = background.restore(photo, 0)
        assertArrayEquals(corner.pixels.copyOf(30), out.pixels.copyOf(30))
        val wrong = Restorer(faces, stub("stub/fp32.stub"), networks = networks())
        val said = assertThrows(IllegalArgumentException::class.java) { wrong.restore(photo, 0, restorer) }.message.orEmpty()
        assertTrue(said, "is for aligned faces" in said)
    }

    /** The tags of a segment by number, as Android's own reader and others find them: directory by directory. */
    private fun directory(block: java.nio.ByteBuffer, place: Int): Map<Int, Pair<Int, Int>> {
        val count = block.getShort(place).toInt()
        assertEquals("no further directory", 0, block.getInt(place + 2 + 12 * count))
        return (0 until count).map { place + 2 + 12 * it }.associate { at ->
            (block.getShort(at).toInt() and 0xFFFF) to (block.getShort(at + 2).toInt() to at + 8)
        }.also { assertEquals(it.keys.sorted(), it.keys.toList()) }
    }

    @Test
    fun exifIsKeptWithoutWhatDescribesTheStoredPixels() {
        for (entry in index.getJSONArray("photographs").objects()) {
            val exif = File(fixtures, entry.getString("path")).inputStream().use(Exif::read)
            if (!entry.getBoolean("has")) {
                assertNull(exif)
                continue
            }
            val segment = exif!!.segment(640, 480)
            assertEquals(segment.size - 2, ((segment[2].toInt() and 255) shl 8) or (segment[3].toInt() and 255))
            val block = java.nio.ByteBuffer.wrap(segment, 10, segment.size - 10).slice()
            if (block[0] == 'I'.code.toByte()) block.order(java.nio.ByteOrder.LITTLE_ENDIAN)
            val main = directory(block, block.getInt(4))
            assertEquals(setOf(271, 306, 282, 0x8769, 0x8825), main.keys) // Make, DateTime, XResolution, two directories
            val make = ByteArray(9).also { bytes -> repeat(9) { bytes[it] = block[block.getInt(main.getValue(271).second) + it] } }
            assertEquals("A camera\u0000", String(make))
            val own = directory(block, block.getInt(main.getValue(0x8769).second))
            assertEquals(setOf(33434, 37500, 0xA001, 0xA002, 0xA003), own.keys)
            assertEquals(1, block.getShort(own.getValue(0xA001).second).toInt())
            assertEquals(640 to 480, block.getInt(own.getValue(0xA002).second) to block.getInt(own.getValue(0xA003).second))
            val note = block.getInt(own.getValue(37500).second)
            assertEquals((0 until 200).toList(), (0 until 200).map { block[note + it].toInt() and 255 })
            val gps = directory(block, block.getInt(main.getValue(0x8825).second))
            assertEquals(setOf(1, 2), gps.keys)
            assertEquals(48, block.getInt(block.getInt(gps.getValue(2).second)))
            System.getProperty("elir.saved")?.let { saved ->
                File(saved, File(entry.getString("path")).name + ".jpg").outputStream().use { file ->
                    val jpeg = File(fixtures, "photographs/none.jpg").readBytes()
                    WithSegment(file, segment).use { it.write(jpeg) }
                }
            }
        }
    }

    @Test
    fun damagedExifIsLeftOutAndNeverEndsTheApp() {
        val files = index.getJSONArray("photographs").objects().map { File(fixtures, it.getString("path")).readBytes() }
        val random = java.util.Random(0)
        for (whole in files) {
            for (length in 0 until minOf(whole.size, 900)) Exif.read(ByteArrayInputStream(whole.copyOf(length)))?.segment(1, 1)
            repeat(3000) {
                val damaged = whole.copyOf()
                repeat(1 + random.nextInt(6)) { damaged[random.nextInt(minOf(900, damaged.size))] = random.nextInt().toByte() }
                Exif.read(ByteArrayInputStream(damaged))?.segment(1, 1)
            }
        }
        assertNull(Exif.read(ByteArrayInputStream("GIF89a".toByteArray())))
    }

    @Test
    fun whatDoesNotFitIntoASegmentIsLeftOutTheLargestFirst() {
        val name = java.nio.ByteBuffer.allocate(8 + 2 + 24 + 4 + 70_000 + 40)
        name.put("MM".toByteArray()).putShort(42).putInt(8).putShort(2)
        name.putShort(271).putShort(2).putInt(40).putInt(38)
        name.putShort(37510.toShort()).putShort(7).putInt(70_000).putInt(78).putInt(0)
        val chunk = java.nio.ByteBuffer.allocate(8 + 8 + name.capacity() + 4)
        chunk.put(byteArrayOf(0x89.toByte(), 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A))
        chunk.putInt(name.capacity()).put("eXIf".toByteArray()).put(name.array())
        val segment = Exif.read(ByteArrayInputStream(chunk.array()))!!.segment(1, 1)
        assertTrue("${segment.size}", segment.size in 100..200)
    }

    @Test
    fun theSegmentStandsBehindAJpegsStartHoweverItIsWritten() {
        val segment = byteArrayOf(7, 8, 9)
        val given = ByteArray(10) { it.toByte() }
        val expected = byteArrayOf(0, 1, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9)
        for (piece in 1..10) {
            val out = ByteArrayOutputStream()
            WithSegment(out, segment).use { stream ->
                given.indices.step(piece).forEach { stream.write(given, it, minOf(piece, 10 - it)) }
            }
            assertArrayEquals(expected, out.toByteArray())
        }
        val out = ByteArrayOutputStream()
        WithSegment(out, segment).use { stream -> given.forEach { stream.write(it.toInt()) } }
        assertArrayEquals(expected, out.toByteArray())
    }
}
