/** The core computes what the Python package computes, to 1e-6 on float values and exactly on bytes. */
package org.elir.mobile.core

import java.io.File
import java.util.concurrent.CancellationException
import kotlin.math.abs
import org.json.JSONObject
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class CoreTest {
    @Test
    fun theRuntimeIsToldByTheTarget() {
        for ((target, runtime) in listOf("litert" to "litert", "executorch/vulkan" to "executorch")) {
            assertEquals(runtime, Artifact("a.pte", "", 1, target, "fp32", emptyMap()).runtime)
        }
    }

    @Test
    fun noiseIsPyTorchs() {
        val cases = index.getJSONArray("noise").objects()
        assertTrue(cases.size >= 30)
        for (case in cases) {
            val expected = floats(case)
            assertClose(case.getString("path"), expected, seededNoise(expected.size, case.getString("seed").toLong()))
        }
        assertThrows(IllegalArgumentException::class.java) { seededNoise(15, 0) }
    }

    @Test
    fun windowsAreThoseOfThePackage() {
        for (case in index.getJSONArray("windows").objects()) {
            val windows = axisWindows(case.getInt("length"), case.getInt("tile"), case.getInt("overlap"))
            assertEquals(case.getJSONArray("starts").ints(), windows.map { it.start })
            val weights = windows.flatMap { it.weights.asList() }.toFloatArray()
            assertClose(case.toString(), floats(case.getJSONObject("weights")), weights)
        }
        for (overlap in listOf(-1, 32)) {
            assertThrows(IllegalArgumentException::class.java) { axisWindows(100, 32, overlap) }
        }
    }

    @Test
    fun transparentPixelsAreLaidOnWhiteAsPillowDoes() {
        assertEquals(listOf(0, 10, 255), listOf(0, 10, 255).map { onWhite(it, 255) })
        assertEquals(listOf(255, 255, 255), listOf(0, 10, 255).map { onWhite(it, 0) })
        assertEquals(listOf(127, 254, 133, 59), listOf(0 to 128, 1 to 1, 12 to 128, 20 to 213).map { onWhite(it.first, it.second) })
        val half = Picture.upright(1, 1, 1) { _, line -> line[0] = (128 shl 24) or (12 shl 8) }
        assertEquals(listOf(127, 133, 127), half.pixels.map { it.toInt() and 255 })
    }

    @Test
    fun orientationIsPillows() {
        val cases = index.getJSONObject("orientation")
        val input = picture(cases.getJSONObject("input"))
        for (case in cases.getJSONArray("upright").objects()) {
            val expected = picture(case)
            val upright = upright(input, case.getInt("orientation"))
            assertEquals(expected.width to expected.height, upright.width to upright.height)
            assertArrayEquals(case.toString(), expected.pixels, upright.pixels)
        }
        for (none in listOf(0, 1, 9)) assertArrayEquals(input.pixels, upright(input, none).pixels)
    }

    private fun upright(input: Picture, orientation: Int) =
        Picture.upright(input.width, input.height, orientation) { y, line ->
            for (x in line.indices) {
                val at = (y * input.width + x) * COLOURS
                line[x] = (0 until COLOURS).fold(255) { pixel, c -> (pixel shl 8) or (input.pixels[at + c].toInt() and 255) }
            }
        }

    @Test
    fun resamplingIsPillows() {
        val cases = index.getJSONObject("resize")
        val input = picture(cases.getJSONObject("input"))
        for (case in cases.getJSONArray("enlarged").objects()) {
            val filter = Filter.valueOf(case.getString("filter").uppercase())
            assertSame(case, input.enlarged(case.getInt("factor"), filter))
        }
        for (case in cases.getJSONArray("squares").objects()) assertSame(case, input.square(case.getInt("side")))
        for (case in cases.getJSONArray("thumbnails").objects()) {
            val (height, width) = case.shape()
            assertSame(case, input.thumbnail(width, height))
        }
        for (case in cases.getJSONArray("blurred").objects()) assertSame(case, input.blurred(case.getDouble("spread")))
    }

    private fun assertSame(case: JSONObject, actual: Picture) {
        val expected = picture(case)
        assertEquals(expected.width to expected.height, actual.width to actual.height)
        assertArrayEquals(case.toString(), expected.pixels, actual.pixels)
    }

    @Test
    fun theManifestSaysAllOfTheTaskAndWhichFileToRun() {
        val cases = index.getJSONArray("tasks").objects()
        assertTrue(cases.size >= 8)
        val photo = picture(index.getJSONObject("photo"))
        for (case in cases) {
            val bundle = Bundle.read(File(fixtures, case.getString("path")))
            val what = case.toString()
            assertEquals(what, case.getString("task"), bundle.task.name)
            assertEquals(what, case.getString("title"), bundle.task.title)
            assertEquals(what, case.opt("domain").takeUnless { it == JSONObject.NULL }, bundle.task.domain)
            assertEquals(what, case.getInt("upscale"), bundle.task.upscale)
            assertEquals(what, case.getString("enlarge"), bundle.task.enlarge.name.lowercase())
            assertEquals(what, case.getBoolean("detector"), bundle.detector != null)
            bundle.detector?.let { assertEquals(listOf("detect", "mesh"), listOf(it.detect, it.mesh).map(File::readText)) }
            val recommended = case.opt("recommended").takeUnless { it == JSONObject.NULL }
            for (kind in listOf("android-npu", "android-gpu", "android")) {
                assertEquals(what, recommended, bundle.recommended(kind)?.path)
                assertEquals(what, case.opt("reason").takeUnless { it == JSONObject.NULL }, bundle.reason(kind))
            }
            assertSame(case.getJSONObject("square"), bundle.prepared(photo, whole = false, Long.MAX_VALUE))
            val whole = picture(case.getJSONObject("whole"))
            val pixels = whole.width.toLong() * whole.height
            assertSame(case.getJSONObject("whole"), bundle.prepared(photo, whole = true, pixels))
            assertThrows(IllegalArgumentException::class.java) { bundle.prepared(photo, whole = true, pixels - 1) }
        }
    }

    @Test
    fun theLoopIsThePackages() {
        for (case in index.getJSONArray("loop").objects()) {
            val made = sample(
                stub(case.getString("path")),
                bundle.golden("input"),
                bundle.golden("noise"),
                bundle.table,
                bundle.sigmaS,
            )
            assertClose("coarse", floats(case.getJSONObject("coarse")), made.coarse)
            val trajectory = made.trajectory.flatMap { it.asList() }.toFloatArray()
            assertClose("trajectory", floats(case.getJSONObject("trajectory")), trajectory)
            assertClose("image", floats(case.getJSONObject("image")), made.image)
        }
    }

    @Test
    fun goldenNoiseIsThatOfItsSeed() {
        val noise = bundle.golden("noise")
        assertClose("noise", noise, seededNoise(noise.size, 0))
    }

    @Test
    fun picturesOfAnySizeAreRestoredAsThePackageDoes() {
        for (case in index.getJSONArray("restore").objects()) {
            val restorer = Restorer(bundle, stub("stub/fp32.stub")).apply { keepsColours = false }
            val input = picture(case.getJSONObject("input"))
            val seed = case.getLong("seed")
            assertEquals(case.getInt("tiles"), restorer.tiles(input.width, input.height))
            val blended = mutableListOf<Float>()
            restorer.blend(input, seed, { _, _ -> }) { top, band ->
                assertEquals(blended.size, top * case.getJSONObject("blended").shape()[1] * COLOURS)
                blended.addAll(band.asList())
            }
            val expected = floats(case.getJSONObject("blended"))
            assertClose("blended", expected, blended.toFloatArray())
            val output = picture(case.getJSONObject("output"))
            val restored = restorer.restoreTiles(input, seed)
            for (i in output.pixels.indices) {
                // Values within 1e-6 of a half may round either way.
                val difference = abs((output.pixels[i].toInt() and 255) - (restored.pixels[i].toInt() and 255))
                assertTrue("byte $i", difference == 0 || difference == 1 && nearHalf(expected, i, output, case))
            }
        }
    }

    private fun nearHalf(blended: FloatArray, byte: Int, output: Picture, case: JSONObject): Boolean {
        val stride = case.getJSONObject("blended").shape()[1] * COLOURS
        val value = blended[byte / (output.width * COLOURS) * stride + byte % (output.width * COLOURS)] * 255
        return abs(value - value.toInt() - 0.5f) < 1e-3f
    }

    @Test
    fun stoppingAfterNoStepDecodesTheNoisedCoarseLatent() {
        val programs = stub("stub/fp32.stub")
        val calls = mutableListOf<Pair<Int, Int>>()
        val picture = bundle.goldenPicture()
        val restorer = Restorer(bundle, programs, steps = 0).apply { keepsColours = false }
        val restored = restorer.restoreTiles(picture, 0) { done, total -> calls += done to total }
        assertEquals(listOf(1 to 2, 2 to 2), calls)
        val noise = bundle.golden("noise")
        val image = programs.decode(noised(programs.encode(bundle.golden("input")), noise, bundle.sigmaS))
        for (at in 0 until 64 * 64) {
            assertEquals(Math.rint(image[at] * 255.0), (restored.pixels[at * COLOURS].toInt() and 255).toDouble(), 0.0)
        }
        assertThrows(IllegalArgumentException::class.java) { Restorer(bundle, programs, bundle.steps + 1) }
    }

    @Test
    fun restoringStopsWhereItIsCancelled() {
        var calls = 0
        assertThrows(CancellationException::class.java) {
            Restorer(bundle, stub("stub/fp32.stub")).restoreTiles(Picture(200, 200), 0) { done, _ ->
                calls = done
                if (done == 7) throw CancellationException()
            }
        }
        assertEquals(7, calls)
    }

    @Test
    fun fidelityIsThePackages() {
        for (case in index.getJSONArray("fidelity").objects()) {
            val reference = floats(case.getJSONObject("reference"))
            val out = floats(case.getJSONObject("out"))
            if (case.isNull("psnr_db")) {
                assertEquals(Double.POSITIVE_INFINITY, psnrDb(reference, out), 0.0)
                assertEquals(Double.POSITIVE_INFINITY, sqnrDb(reference, out), 0.0)
            } else {
                assertEquals(case.getDouble("psnr_db"), psnrDb(reference, out), 1e-3) // there the mean is float32
                assertEquals(case.getDouble("sqnr_db"), sqnrDb(reference, out), 1e-6)
            }
        }
    }

    @Test
    fun percentilesAreNumPys() {
        for (case in index.getJSONArray("percentiles").objects()) {
            val latency = Latency(case.getJSONArray("runs_ms").doubles())
            assertEquals(case.getDouble("median"), latency.median, 1e-6)
            assertEquals(case.getDouble("p90"), latency.p90, 1e-6)
        }
    }

    @Test
    fun warmupsAreNotCountedAndAStepIsOneStep() {
        var now = 0L
        val slowing = object : Programs by stub("stub/fp32.stub") {
            var encoded = 0

            override fun encode(image: FloatArray): FloatArray {
                now += if (encoded++ < 2) 900_000_000 else 5_000_000
                return stub("stub/fp32.stub").encode(image)
            }

            override fun step(latent: FloatArray, row: FloatArray): FloatArray {
                now += 2_000_000
                return latent
            }
        }
        val timing = measure(bundle, slowing, Protocol(warmup = 2, runs = 4), { now })
        assertEquals(906.0, timing.firstMs, 1e-9)
        assertEquals(listOf(5.0, 5.0, 5.0, 5.0), timing.programs.getValue("encode").runs)
        assertEquals(2.0, timing.programs.getValue("step").median, 1e-9)
        assertEquals(11.0, timing.total.p90, 1e-9)
    }

    @Test
    fun parityIsTheHosts() {
        for (artifact in bundle.artifacts.filter { it.target == "stub" }) {
            val parity = goldenParity(bundle, stub(artifact.path))
            assertEquals(setOf("encode", "step", "decode", "image"), artifact.parity.keys)
            for ((name, budget) in artifact.parity) {
                assertTrue("$name of ${artifact.path}", parity.holds(name, budget))
                val host = budget.hostDb // null: the host was exact, this machine may round once more
                if (host == null) assertTrue(name, parity.decibels.getValue(name) > 100)
                else assertEquals("$name of ${artifact.path}", host, parity.decibels.getValue(name), 0.01)
            }
        }
    }

    @Test
    fun anotherFilesOutputsAreOverBudget() {
        val fp32 = bundle.artifacts.first { it.path == "stub/fp32.stub" }
        val parity = goldenParity(bundle, stub("stub/w8a8.stub"))
        assertFalse(parity.holds("step", fp32.parity.getValue("step")))
        val broken = Parity(emptyMap(), mapOf("step" to Double.NaN))
        assertFalse(broken.holds("step", Budget(null, -1.0)))
    }

    @Test
    fun theWholeBundleIsRead() {
        assertEquals("bfr", bundle.task.name)
        assertEquals(index.getJSONArray("latent_shape").ints(), bundle.latentShape.toList())
        assertEquals(3 to bundle.latentShape[0], bundle.table.size to bundle.table[1].size)
        val paths = listOf("coreml/tiny.mlpackage", "stub/fp32.stub", "stub/w8a8.stub")
        assertEquals(paths, bundle.artifacts.map { it.path })
        assertTrue(bundle.hasGolden)
        assertArrayEquals(bundle.golden("input"), bundle.goldenPicture().tile(0, 0, 64, 64), 0f)
    }

    @Test
    fun damagedBundlesAreRefusedWithTheirFault() {
        val cases = index.getJSONArray("damaged").objects()
        assertTrue(cases.size >= 12)
        for (case in cases) {
            val error = assertThrows(case.toString(), BundleException::class.java) {
                Bundle.read(File(fixtures, case.getString("path")))
            }
            assertEquals(case.toString(), case.getString("fault"), error.fault.name.lowercase().replace('_', ' '))
        }
    }

    @Test
    fun aDetectorThatWasChangedIsRefused() {
        val whole = index.getJSONArray("tasks").objects().single { it.getBoolean("detector") }
        val copy = File.createTempFile("bundle", "").apply { delete() }
        try {
            File(fixtures, whole.getString("path")).copyRecursively(copy)
            Bundle.read(copy).detector!!.mesh.writeText("another")
            assertEquals(Fault.DAMAGED, assertThrows(BundleException::class.java) { Bundle.read(copy) }.fault)
        } finally {
            copy.deleteRecursively()
        }
    }

    @Test
    fun goldenVectorsOfAnotherSizeAreRefusedBeforeNativeCodeGetsThem() {
        val copy = File.createTempFile("bundle", "").apply { delete() }
        try {
            bundle.folder.copyRecursively(copy)
            val manifest = JSONObject(File(copy, MANIFEST).readText())
            File(copy, MANIFEST).writeText(manifest.put("size", 128).toString())
            val error = assertThrows(BundleException::class.java) { Bundle.read(copy) }
            assertEquals(Fault.DAMAGED, error.fault)
        } finally {
            copy.deleteRecursively()
        }
    }

    @Test
    fun aJobGivesARowForEveryFile() {
        val file = File(fixtures, index.getString("job"))
        val job = Job.read(file)
        val seen = mutableListOf<String>()
        val device = JSONObject().put("name", "JVM").put("kind", "host")
        val result = File(System.getProperty("elir.result") ?: File.createTempFile("result", ".json").path)
        writeWhole(result, runJob(job, stubs, device, seen::add).toString(1))
        assertEquals(job.files, seen)
        val rows = JSONObject(result.readText()).getJSONArray("rows").objects()
        assertEquals(job.files, rows.map { it.getString("path") })
        for (row in rows.dropLast(1)) {
            assertTrue(row.isNull("error"))
            assertEquals(5, row.getJSONObject("programs").getJSONObject("step").getJSONArray("runs_ms").length())
            assertEquals(64, row.getJSONObject("output_sha256").getString("image").length)
        }
        assertEquals("bundle has no file stub/absent.stub: name one of its manifest", rows.last().getString("error"))
    }

    @Test
    fun aJobOnADamagedBundleSaysSoInEveryRow() {
        val job = Job(File(fixtures, "damaged/newer"), listOf("stub/fp32.stub"), 1, Protocol(), true)
        val row = runJob(job, stubs, JSONObject()).getJSONArray("rows").getJSONObject(0)
        assertTrue(row.getString("error"), "newer elir-mobile" in row.getString("error"))
    }

    @Test
    fun aFileWithoutARuntimeAndOneThatGivesNoNumbersHaveTheirSentence() {
        val job = Job(bundle.folder, listOf("coreml/tiny.mlpackage", "stub/fp32.stub"), 1, Protocol(0, 0), true)
        val opened = mutableListOf<Stub>()
        val broken = Runtimes { bundle, artifact, threads ->
            stubs.open(bundle, artifact, threads)
            Stub(bundle, artifact).also { opened += it }.let { stub ->
                object : Programs by stub {
                    override fun decode(latent: FloatArray) = FloatArray(3 * 64 * 64) { Float.NaN }
                }
            }
        }
        val rows = runJob(job, broken, JSONObject()).getJSONArray("rows").objects()
        assertEquals("no runtime for coreml here", rows[0].getString("error"))
        assertEquals("decode of stub/fp32.stub gives values that are not finite", rows[1].getString("error"))
        assertTrue(opened.single().closed)
    }

    @Test
    fun badJobsAreRefused() {
        val file = File.createTempFile("job", ".json")
        val good = JSONObject(File(fixtures, index.getString("job")).readText())
        for (text in listOf("{", "{}", JSONObject(good.toString()).put("schema_version", 2).toString(),
            JSONObject(good.toString()).put("threads", 0).toString())) {
            file.writeText(text)
            assertThrows(text, JobException::class.java) { Job.read(file) }
        }
        file.delete()
        assertThrows(JobException::class.java) { Job.read(file) }
    }
}
