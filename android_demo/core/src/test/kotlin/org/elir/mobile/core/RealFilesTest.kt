/**
 * The core with real exported files: what a phone's runtime does for it is done here by a Python process that
 * executes the same files (`python -m android_demo.tests.serve BUNDLE PATH`). Needs -Delir.bundle, -Delir.python
 * and -Delir.result.
 */
package org.elir.mobile.core

import java.io.DataInputStream
import java.io.DataOutputStream
import java.io.File
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assume.assumeTrue
import org.junit.Before
import org.junit.Test

/** Programs in another process: a command byte and arrays there, an array back, big-endian as Java has it. */
private class Served(bundle: Bundle, artifact: Artifact) : Programs {
    private val process = ProcessBuilder(
        System.getProperty("elir.python"), "-m", "android_demo.tests.serve", bundle.folder.path, artifact.path,
    ).redirectError(ProcessBuilder.Redirect.INHERIT).start()
    private val out = DataOutputStream(process.outputStream.buffered())
    private val back = DataInputStream(process.inputStream.buffered())

    override fun encode(image: FloatArray) = call('e', image)

    override fun step(latent: FloatArray, row: FloatArray) = call('s', latent, row)

    override fun decode(latent: FloatArray) = call('d', latent)

    override fun close() {
        out.close()
        process.waitFor()
    }

    private fun call(command: Char, vararg arrays: FloatArray): FloatArray {
        out.writeByte(command.code)
        for (array in arrays) {
            out.writeInt(array.size)
            array.forEach(out::writeFloat)
        }
        out.flush()
        return FloatArray(back.readInt()) { back.readFloat() }
    }
}

class RealFilesTest {
    private val bundle by lazy { Bundle.read(File(System.getProperty("elir.bundle"))) }

    @Before
    fun needsABundle() = assumeTrue("give -Delir.bundle", System.getProperty("elir.bundle") != null)

    @Test
    fun goldenNoiseIsThatOfItsSeed() {
        val noise = bundle.golden("noise")
        assertClose("noise", noise, seededNoise(noise.size, 0))
    }

    @Test
    fun everyFileHoldsItsBudgetAndComputesWhatTheHostComputed() {
        val files = bundle.artifacts.filter { it.target == "executorch" }
        val job = Job(bundle.folder, files.map { it.path }, 1, Protocol(1, 2), parity = true)
        val served = Runtimes { bundle, artifact, _ -> Served(bundle, artifact) }
        val result = runJob(job, served, JSONObject().put("kind", "host"))
        writeWhole(File(System.getProperty("elir.result")), result.toString(1))
        for ((artifact, row) in files.zip(result.getJSONArray("rows").objects())) {
            assertEquals(null, row.opt("error").takeUnless { it == JSONObject.NULL })
            val parity = row.getJSONObject("parity")
            for ((name, budget) in artifact.parity) assertEquals(name, budget.hostDb!!, parity.getDouble(name), 0.01)
        }
    }
}
