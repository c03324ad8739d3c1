/** Faces are found, aligned, judged and put back as the Python package does on its golden photographs. */
package org.elir.mobile.core

import java.io.File
import java.util.concurrent.CancellationException
import kotlin.math.abs
import org.json.JSONArray
import org.json.JSONObject
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertSame
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

private const val NEAR = 1e-5

/** Gives what Python's networks gave, call by call. */
class Replayed(private val calls: List<JSONObject>) : FaceNetworks {
    var next = 0
        private set

    fun call(network: String): Pair<FloatArray, FloatArray> {
        val call = calls[next++]
        assertEquals(network, call.getString("network"))
        return floats(call.getJSONObject("points")) to floats(call.getJSONObject("logits"))
    }

    override fun detect(x: FloatArray) = call("detect")

    override fun mesh(x: FloatArray) = call("mesh").let { (points, logit) -> points to logit.single() }

    override fun close() = Unit
}

class FacesTest {
    private val scenes = index.getJSONArray("faces").objects()

    private fun points(json: JSONArray) = (0 until json.length()).map { json.getJSONArray(it).doubles() }.map { (x, y) -> Point(x, y) }

    private fun faces(scene: JSONObject) = scene.getJSONArray("faces").objects().map { face ->
        val (left, top, right, bottom) = face.getJSONArray("box").doubles()
        Face(FaceBox(left, top, right, bottom), points(face.getJSONArray("points")), face.getDouble("score"))
    }

    private fun bytes(entry: JSONObject) = File(fixtures, entry.getString("path")).readBytes()

    /** [Replayed], and holds what it is given against what Python's networks were given. */
    private inner class Recorded(private val calls: List<JSONObject>) : FaceNetworks {
        private val replayed = Replayed(calls)
        val next get() = replayed.next

        private fun call(network: String, x: FloatArray): Pair<FloatArray, FloatArray> {
            val given = calls[next].getJSONObject("input")
            val made = replayed.call(network)
            if (network == "mesh") {
                assertClose("input of call $next", floats(given), x, 1e-4f)
            } else {
                // The first looks are resized pictures, to the byte; those at a warped face may round another way.
                val expected = bytes(given).map { (it.toInt() and 255) / 127.5f - 1 }.toFloatArray()
                assertClose("input of call $next", expected, x, 1.01f / 127.5f)
                val others = expected.indices.count { abs(expected[it] - x[it]) > 1e-6f }
                val looked = calls.take(next).any { it.getString("network") == "mesh" }
                assertTrue("$others bytes of call $next differ", others <= if (looked) x.size / 50 else 0)
            }
            return made
        }

        override fun detect(x: FloatArray) = call("detect", x)

        override fun mesh(x: FloatArray) = call("mesh", x).let { (points, logit) -> points to logit.single() }

        override fun close() = Unit
    }

    @Test
    fun facesAreFoundAsThePackageFindsThem() {
        assertTrue(scenes.count { it.getJSONArray("faces").length() > 0 } >= 12)
        for (scene in scenes) {
            val networks = Recorded(scene.getJSONArray("calls").objects())
            val found = FaceFinder(networks).find(picture(scene.getJSONObject("photo")))
            assertEquals(scene.getJSONArray("calls").length(), networks.next)
            val expected = faces(scene)
            assertEquals(expected.size, found.size)
            for ((wanted, face) in expected zip found) {
                assertEquals(wanted.score, face.score, NEAR)
                val numbers = { it: Face -> it.box.run { listOf(left, top, right, bottom) } + it.points.flatMap { (x, y) -> listOf(x, y) } }
                assertArrayEquals(numbers(wanted).toDoubleArray(), numbers(face).toDoubleArray(), NEAR)
            }
        }
    }

    @Test
    fun findingCanBeCancelled() {
        val scene = scenes.first()
        val networks = Recorded(scene.getJSONArray("calls").objects())
        assertThrows(CancellationException::class.java) {
            FaceFinder(networks).find(picture(scene.getJSONObject("photo"))) { _, _ -> throw CancellationException() }
        }
        assertEquals(0, networks.next)
    }

    @Test
    fun facesAreAlignedJudgedAndPutBackAsThePackageDoes() {
        for (scene in scenes) {
            val size = scene.getInt("square")
            val entries = scene.getJSONArray("faces").objects()
            val found = faces(scene)
            for ((face, entry) in found zip entries) {
                val rows = entry.getJSONArray("matrix")
                val map = aligned(face.points, size)
                val ours = doubleArrayOf(map.re, -map.im, map.dx, map.im, map.re, map.dy)
                val theirs = (0..1).flatMap { rows.getJSONArray(it).doubles() }.toDoubleArray()
                assertArrayEquals(theirs, ours, NEAR)
                assertEquals(entry.getDouble("side"), size / map.scale, NEAR)
            }
            val photo = picture(scene.getJSONObject("photo"))
            val wanted = WantedFaces(scene.getBoolean("all_faces"), margin = scene.getDouble("margin"))
            val (out, treated) = restoreFaces(photo, found, size, wanted) { number, square ->
                assertNear("square", picture(entries[number].getJSONObject("given")), square)
                picture(entries[number].getJSONObject("made"))
            }
            for ((entry, face) in entries zip treated) {
                assertEquals(entry.getBoolean("restored"), face.restored)
                assertEquals(entry.getDouble("detail"), face.detail!!, 1e-3)
                assertEquals(entry.getDouble("agreement"), face.agreement!!, 1e-3)
            }
            assertNear("photograph", picture(scene.getJSONObject("output")), out)
            if (treated.none { it.restored }) assertSame(photo, out)
        }
    }

    @Test
    fun facesAreSetIntoBackgroundsOfAnySizeAsThePackageDoes() {
        val behind = scenes.filter { !it.isNull("background") }
        assertTrue(behind.size >= 3)
        for (scene in behind) {
            val made = scene.getJSONArray("faces").objects().map { picture(it.getJSONObject("made")) }
            val wanted = WantedFaces(scene.getBoolean("all_faces"), margin = scene.getDouble("margin"))
            val photo = picture(scene.getJSONObject("photo"))
            val canvas = picture(scene.getJSONObject("background").getJSONObject("canvas"))
            val size = scene.getInt("square")
            val (out, _) = restoreFaces(photo, faces(scene), size, wanted, canvas) { number, _ -> made[number] }
            assertNear("background", picture(scene.getJSONObject("background").getJSONObject("output")), out)
            val left = WantedFaces(left = made.indices.toSet())
            assertSame(canvas, restoreFaces(photo, faces(scene), size, left, canvas) { _, _ -> error("asked") }.first)
        }
    }

    @Test
    fun aFaceThatIsSwitchedOffIsLeftAloneAndNotPaintedOver() {
        val scene = scenes.first { it.getJSONArray("faces").length() == 2 }
        val photo = picture(scene.getJSONObject("photo"))
        val found = faces(scene)
        val size = scene.getInt("square")
        val grey = Picture(size, size, ByteArray(size * size * COLOURS) { 127 })
        val asked = mutableListOf<Int>()
        val (out, treated) = restoreFaces(photo, found, size, WantedFaces(all = true, left = setOf(1))) { number, _ ->
            asked += number
            grey
        }
        assertEquals(listOf(0), asked)
        assertEquals(listOf(true, false), treated.map { it.restored })
        fun pixel(picture: Picture, place: Point) = picture.pixels[(place.y.toInt() * picture.width + place.x.toInt()) * COLOURS].toInt()
        assertEquals(127, pixel(out, found[0].points[2]))
        for (point in found[1].points) assertEquals(pixel(photo, point), pixel(out, point))
        val (untouched, _) = restoreFaces(photo, found, size, WantedFaces(left = setOf(0, 1))) { _, _ -> error("asked") }
        assertSame(photo, untouched)
    }
}
