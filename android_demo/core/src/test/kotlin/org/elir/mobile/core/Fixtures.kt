/** The golden files that `python -m tests.app_fixtures` wrote, and the stub runtime that belongs to them. */
package org.elir.mobile.core

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import org.json.JSONArray
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue

val fixtures: File = File(
    System.getProperty("elir.fixtures")
        ?: error("run with -Delir.fixtures=FOLDER, written by python -m tests.app_fixtures"),
)
val index: JSONObject = JSONObject(File(fixtures, "index.json").readText())

fun JSONArray.objects(): List<JSONObject> = (0 until length()).map { getJSONObject(it) }

fun JSONArray.ints(): List<Int> = (0 until length()).map { getInt(it) }

fun JSONArray.doubles(): List<Double> = (0 until length()).map { getDouble(it) }

fun JSONObject.shape(): List<Int> = getJSONArray("shape").ints()

/** The float32 array of an index entry. */
fun floats(entry: JSONObject): FloatArray {
    val bytes = File(fixtures, entry.getString("path")).readBytes()
    val values = FloatArray(bytes.size / 4)
    ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(values)
    assertEquals(entry.shape().fold(1, Int::times), values.size)
    return values
}

/** The picture of an index entry. */
fun picture(entry: JSONObject): Picture {
    val (height, width, _) = entry.shape()
    return Picture(width, height, File(fixtures, entry.getString("path")).readBytes())
}

fun assertClose(what: String, expected: FloatArray, actual: FloatArray, tolerance: Float = 1e-6f) {
    assertEquals("$what: length", expected.size, actual.size)
    val worst = expected.indices.maxOf { if (actual[it].isNaN()) Float.MAX_VALUE else abs(expected[it] - actual[it]) }
    assertTrue("$what: $worst apart", worst <= tolerance)
}

/** Every byte within 1, and hardly any another one. */
fun assertNear(what: String, expected: Picture, actual: Picture) {
    assertEquals(what, expected.width to expected.height, actual.width to actual.height)
    val apart = expected.pixels.indices.map { abs((expected.pixels[it].toInt() and 255) - (actual.pixels[it].toInt() and 255)) }
    assertTrue("$what: ${apart.max()} apart", apart.max() <= 1)
    val others = apart.count { it > 0 }
    assertTrue("$what: $others of ${apart.size} bytes differ", others <= apart.size / 1000)
}

/** The arithmetic of a `.stub` file; `tests/app_fixtures.py:stub_runner` says what it is. */
class Stub(private val bundle: Bundle, artifact: Artifact) : Programs {
    private val side = bundle.size / DOWNSCALE
    private val steps = bundle.steps
    private val facts = JSONObject(bundle.file(artifact).readText())
    private val a = facts.getDouble("a").toFloat()
    private val b = facts.getDouble("b").toFloat()
    var closed = false
        private set

    override fun encode(image: FloatArray): FloatArray {
        val size = side * DOWNSCALE
        return FloatArray(bundle.latentShape.reduce(Int::times)) { at ->
            val (c, y, x) = position(at)
            var sum = 0f
            for (dy in 0 until DOWNSCALE) for (dx in 0 until DOWNSCALE) {
                sum += image[(c % COLOURS * size + y * DOWNSCALE + dy) * size + x * DOWNSCALE + dx]
            }
            sum / (DOWNSCALE * DOWNSCALE) * (1 - c / 32f)
        }
    }

    override fun step(latent: FloatArray, row: FloatArray) = FloatArray(latent.size) { at ->
        latent[at] + (a * latent[at] + b * row[at / (side * side)]) / steps
    }

    override fun decode(latent: FloatArray): FloatArray {
        val size = side * DOWNSCALE
        return FloatArray(COLOURS * size * size) { at ->
            val c = at / (size * size)
            val y = at / size % size / DOWNSCALE
            val x = at % size / DOWNSCALE
            latent[(c * side + y) * side + x].coerceIn(0f, 1f)
        }
    }

    override fun close() {
        closed = true
    }

    private fun position(at: Int) = Triple(at / (side * side), at / side % side, at % side)
}

val stubs = Runtimes { bundle, artifact, _ ->
    if (artifact.target != "stub") throw RuntimeMissingException("no runtime for ${artifact.target} here")
    Stub(bundle, artifact)
}

val bundle: Bundle by lazy { Bundle.read(File(fixtures, index.getString("bundle"))) }

fun stub(path: String): Stub = Stub(bundle, bundle.artifacts.first { it.path == path })
