/** The faster chip's file is used where the golden vectors hold on it, and another one where not; that is remembered. */
package org.elir.mobile.core

import java.io.File
import java.util.concurrent.CancellationException
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertSame
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class ChooseTest {
    private val kept = File.createTempFile("verdicts", ".json").apply { delete() }
    private val fp32 = bundle.artifacts.first { it.path == "stub/fp32.stub" }
    private val w8a8 = bundle.artifacts.first { it.path == "stub/w8a8.stub" }
    private val opened = mutableListOf<String>()
    private val closed = mutableListOf<String>()

    private fun verdicts(device: String = "phone") = Verdicts(kept, device)

    private fun choose(
        files: List<Artifact> = listOf(fp32, w8a8),
        verdicts: Verdicts = verdicts(),
        change: (Programs) -> Programs = { it },
    ) = choose(bundle, files, verdicts) { artifact ->
        opened += artifact.path
        val stub = stub(artifact.path)
        val counted = object : Programs by stub {
            override fun close() {
                closed += artifact.path
            }
        }
        if (artifact === files.first()) change(counted) else counted
    }

    private fun zeros(programs: Programs) = object : Programs by programs {
        override fun step(latent: FloatArray, row: FloatArray) = FloatArray(latent.size)
    }

    @Test
    fun theFirstThatHoldsIsUsedAndCheckedOnce() {
        for (start in 1..2) {
            val chosen = choose()
            assertSame(fp32, chosen.artifact)
            assertEquals(emptyList<String>(), chosen.passedOver)
            chosen.programs.encode(bundle.golden("input"))
        }
        assertEquals(listOf(fp32.path, fp32.path), opened)
        assertEquals(emptyList<String>(), closed)
        // A check would fail now: what was found out before is believed, but not on another device.
        assertSame(fp32, choose(change = ::zeros).artifact)
        assertSame(w8a8, choose(change = ::zeros, verdicts = verdicts("phone with another driver")).artifact)
    }

    @Test
    fun aChipThatGivesZerosIsPassedOverAndNotAskedAgain() {
        val chosen = choose(change = ::zeros)
        assertSame(w8a8, chosen.artifact)
        val said = chosen.passedOver.single()
        val pattern = """stub/fp32.stub is not used on this phone: step reaches 0[.,]0 dB of [1-9].*, image reaches .*"""
        assertTrue(said, Regex(pattern).matches(said))
        assertEquals(listOf(fp32.path, w8a8.path), opened)
        assertEquals(listOf(fp32.path), closed)
        opened.clear()
        assertEquals(listOf(said), choose().passedOver)
        assertEquals(listOf(w8a8.path), opened)
    }

    @Test
    fun aFileMustBeAsNearToFloatAsTheProcessors() {
        assertSame(w8a8, choose(listOf(w8a8)).artifact)
        val chosen = choose(listOf(w8a8, fp32))
        assertSame(fp32, chosen.artifact)
        assertTrue(chosen.passedOver.single(), "step reaches " in chosen.passedOver.single())
    }

    @Test
    fun whatIsNoNumberOrNoResultIsPassedOver() {
        val broken = choose { programs ->
            object : Programs by programs {
                override fun decode(latent: FloatArray) = FloatArray(COLOURS * 64 * 64) { Float.NaN }
            }
        }
        assertTrue("decode reaches NaN" in broken.passedOver.single())
        val other = verdicts("another")
        val failing = choose(verdicts = other) { error("no driver") }
        assertSame(w8a8, failing.artifact)
        assertEquals("stub/fp32.stub is not used on this phone: no driver", failing.passedOver.single())
        // A failure may be one of memory: it is tried again.
        assertSame(fp32, choose(verdicts = other).artifact)
    }

    @Test
    fun aFileThatEndedTheAppIsNotTriedAgain() {
        verdicts().apply {
            // What is on the disk while the check runs is what is left if the app ends in it.
            find("${fp32.sha256} within ${w8a8.sha256}") {
                kept.copyTo(File("${kept.path}.then"))
                ""
            }
        }
        File("${kept.path}.then").renameTo(kept)
        val chosen = choose()
        assertSame(w8a8, chosen.artifact)
        assertEquals("stub/fp32.stub is not used on this phone: it ended the app", chosen.passedOver.single())
        assertEquals(listOf(w8a8.path), opened)
    }

    @Test
    fun cancellingIsNoVerdict() {
        assertThrows(CancellationException::class.java) {
            choose { programs ->
                object : Programs by programs {
                    override fun encode(image: FloatArray) = throw CancellationException()
                }
            }
        }
        assertEquals(listOf(fp32.path), closed)
        assertNull(verdicts()["${fp32.sha256} within ${w8a8.sha256}"])
        assertSame(fp32, choose().artifact)
    }

    @Test
    fun whereNothingHoldsThereIsASentenceForEach() {
        val said = assertThrows(IllegalStateException::class.java) {
            choose(listOf(fp32)) { zeros(it) }
        }.message.orEmpty()
        assertTrue(said, said.startsWith("stub/fp32.stub is not used on this phone: step reaches"))
        val none = assertThrows(IllegalStateException::class.java) { choose(emptyList()) }
        assertEquals("bundle has no file for a phone", none.message)
    }

    @Test
    fun adviceIsTheManifestsAsFarAsTheAppHasARuntime() {
        fun told(name: String) = Bundle.read(File(fixtures, "tasks/$name"))
        assertEquals(listOf("stub/w8a8.stub"), told("bfr").advised(stubs).map { it.path })
        val few = object : Runtimes by stubs {
            override fun has(artifact: Artifact) = artifact.path == "stub/fp32.stub"
        }
        assertEquals(listOf("stub/fp32.stub"), told("bfr").advised(few).map { it.path })
        assertEquals(listOf("coreml/tiny.mlpackage"), told("left-out").advised(stubs).map { it.path })
    }

    @Test
    fun aRestorerIsOpenedByItsFolderAlone() {
        Restorer.open(File(fixtures, "tasks/dehazing"), stubs, verdicts()).use { restorer ->
            val photo = picture(index.getJSONObject("photo"))
            val calls = mutableListOf<Pair<Int, Int>>()
            val side = restorer.bundle.task.upscale
            val restored = restorer.restore(photo) { done, total -> calls += done to total }
            assertEquals(photo.width * side to photo.height * side, restored.width to restored.height)
            assertEquals(calls.size to calls.size, calls.last())
        }
    }

    @Test
    fun facesAreRestoredInPlaceAndOtherNetworksOfFacesRefuseAPhotograph() {
        val scene = index.getJSONArray("faces").objects().last() // without a face
        val photo = picture(scene.getJSONObject("photo"))
        val calls = scene.getJSONArray("calls").objects()
        val finding = object : Runtimes by stubs {
            override fun open(detector: Detector) = Replayed(calls)
        }
        Restorer.open(File(fixtures, "tasks/bfr"), finding, verdicts()).use { assertSame(photo, it.restore(photo)) }
        Restorer.open(File(fixtures, "tasks/inpainting"), stubs, verdicts()).use { restorer ->
            val said = assertThrows(IllegalArgumentException::class.java) { restorer.restore(photo) }.message.orEmpty()
            assertTrue(said, said.endsWith("is for one upright face that fills 64×64 pixels: give that"))
            val square = photo.square(64)
            assertEquals(64, restorer.restore(square).width)
        }
    }
}
