/**
 * From a picture to the restored picture: the three programs, the sampling loop, and tiles.
 *
 * The loop is `elir_mobile/models/restorer.py:sample`, the tiles are `elir_mobile/restore.py:restore`: noise is
 * drawn once for the whole picture, so that neighbours start from the same latent.
 */
package org.elir.mobile.core

import java.io.Closeable
import java.io.File
import java.util.concurrent.CancellationException

/** The domain of networks for one face that fills the square, upright as in FFHQ. */
const val ALIGNED_FACE = "aligned-face"

/** The domain of networks for photographs of anything. */
const val PHOTO = "photo"

/** A latent pixel stands for a square of this many pixels a side. */
const val DOWNSCALE = 8
private const val OVERLAP = 0.25 // of a tile's side

/** The three programs of one exported file, loaded; arrays are float32 in NCHW order without the N. */
interface Programs : Closeable {
    /** Image (3, size, size) in [0, 1] to the coarse latent (channels, size/8, size/8). */
    fun encode(image: FloatArray): FloatArray

    /** The latent after one Euler step; [row] is that step's row of the table. */
    fun step(latent: FloatArray, row: FloatArray): FloatArray

    /** Latent to image in [0, 1]. */
    fun decode(latent: FloatArray): FloatArray
}

/** Opens exported files. */
fun interface Runtimes {
    /** Whether the app was built with what opens [artifact]. */
    fun has(artifact: Artifact): Boolean = true

    /** Load the networks that find faces; null: there is no runtime for them. */
    fun open(detector: Detector): FaceNetworks? = null

    /**
     * Load [artifact] of [bundle] for [threads] threads.
     *
     * @throws RuntimeMissingException the app was built without the target's runtime.
     */
    fun open(bundle: Bundle, artifact: Artifact, threads: Int): Programs
}

/** The app has no runtime for a file; the message is one sentence that says so. */
class RuntimeMissingException(message: String) : Exception(message)

/** What one tile went through: [trajectory] are the latents from the noised coarse one to the last. */
class Sample(val coarse: FloatArray, val trajectory: List<FloatArray>, val image: FloatArray)

/**
 * The sampling loop over one square.
 *
 * @param table rows of the steps to take. All of a bundle's restore; a first part of them stops underway.
 * @param fidelity 0 decodes the sample, 1 the coarse estimate, which is nearer to the truth on average and smoother; between
 *   them the latents are mixed. At 1 no step is taken.
 * @param called told after each program has run; what it throws ends the loop.
 */
fun sample(
    programs: Programs,
    image: FloatArray,
    noise: FloatArray,
    table: List<FloatArray>,
    sigmaS: Float,
    fidelity: Float = 0f,
    called: () -> Unit = {},
): Sample {
    val coarse = programs.encode(image)
    called()
    val trajectory = mutableListOf(noised(coarse, noise, sigmaS))
    for (row in table.take(stepsAt(fidelity, table.size))) {
        trajectory += programs.step(trajectory.last(), row)
        called()
    }
    val last = trajectory.last()
    val latent = when (fidelity) {
        0f -> last
        1f -> coarse
        else -> FloatArray(last.size) { last[it] + fidelity * (coarse[it] - last[it]) }
    }
    val restored = programs.decode(latent)
    called()
    return Sample(coarse, trajectory, restored)
}

private fun stepsAt(fidelity: Float, steps: Int) = if (fidelity == 1f) 0 else steps

/** Where the steps start: [coarse] with [sigmaS] times [noise]. */
fun noised(coarse: FloatArray, noise: FloatArray, sigmaS: Float): FloatArray {
    require(coarse.size == noise.size) { "a latent of ${coarse.size} values and ${noise.size} of noise" }
    return FloatArray(coarse.size) { coarse[it] + sigmaS * noise[it] }
}

/** Told how many of all program calls are done. To cancel, throw [CancellationException] from it. */
typealias Progress = (done: Int, total: Int) -> Unit

/**
 * Restores photographs with one loaded file.
 *
 * @property steps how many of the bundle's steps to take: fewer than all stop underway.
 * @param networks that find faces; null: none are looked for.
 */
class Restorer(
    val bundle: Bundle,
    private val programs: Programs,
    val steps: Int = bundle.steps,
    private val networks: FaceNetworks? = null,
) : Closeable {
    /** From the sample (0) to the coarse estimate (1), see [sample]; the manifest says with what to begin. */
    var fidelity: Float = bundle.task.fidelity
        set(value) {
            require(value in 0f..1f) { "a fidelity of $value: give 0 to 1" }
            field = value
        }

    /**
     * Whether a restored picture takes its low frequencies of colour from the given one, see [keepColours], and its tiles get
     * one level; the manifest says with what to begin.
     */
    var keepsColours: Boolean = bundle.task.keepsColours

    /** Whether a grey picture stays grey: as the manifest says, unless the colours that it would keep are not to be kept. */
    private val keepsGrey get() = bundle.task.keepsGrey && (keepsColours || !bundle.task.keepsColours)

    private val size = bundle.size
    private val channels = bundle.latentShape[0]
    private val table = bundle.table.take(steps)

    init {
        require(steps in 0..bundle.steps) { "$steps steps: the bundle has ${bundle.steps}" }
    }

    /**
     * [photo] restored: the faces of a whole photograph where they are, if that is what the bundle is for, and the very
     * same object if there is none; else all of it, enlarged as the task says.
     *
     * @param seed of the noise.
     * @param background restores what is around the faces, with a bundle for photographs; null: it is left as it is.
     * @throws IllegalArgumentException the bundle is for aligned faces, and this is none; or [background] is for faces, too.
     */
    fun restore(
        photo: Picture,
        seed: Long = 0,
        background: Restorer? = null,
        progress: Progress = { _, _ -> },
    ): Picture {
        require(background == null || background.bundle.task.domain == PHOTO) {
            "${background?.bundle?.task?.title} is for aligned faces: give a background of photographs, as denoising"
        }
        val side = size / bundle.task.upscale
        if (bundle.task.domain != ALIGNED_FACE || photo.width == side && photo.height == side) {
            return restoreTiles(photo.enlarged(bundle.task.upscale, bundle.task.enlarge), seed, progress)
        }
        requireNotNull(networks) { "${bundle.task.title} is for one upright face that fills $side×$side pixels: give that" }
        val faces = FaceFinder(networks).find(photo)
        val behind = background?.callsFor(photo) ?: 0
        val calls = behind + calls(faces.size)
        val canvas = background?.restore(photo, seed) { done, _ -> progress(done, calls) } ?: photo
        return restoreFaces(photo, faces, WantedFaces(), seed, { done, _ -> progress(behind + done, calls) }, canvas).first
    }

    /** [photo] with [faces] restored, set into [canvas], and what was done with each; see the function of that name. */
    fun restoreFaces(
        photo: Picture,
        faces: List<Face>,
        wanted: WantedFaces,
        seed: Long,
        progress: Progress = { _, _ -> },
        canvas: Picture = photo,
    ): Pair<Picture, List<Treated>> {
        val calls = calls(faces.size - wanted.left.size)
        var done = 0
        return restoreFaces(photo, faces, size, wanted, canvas) { _, square ->
            restoreTiles(square, seed) { _, _ -> progress(++done, calls) }
        }
    }

    /** Calls of the programs that so many [tiles] take. */
    fun calls(tiles: Int): Int = tiles * (stepsAt(fidelity, steps) + 2)

    /** Calls of the programs that all of [photo] takes, in tiles. */
    fun callsFor(photo: Picture): Int = bundle.task.upscale.let { calls(tiles(photo.width * it, photo.height * it)) }

    override fun close() {
        programs.close()
        networks?.close()
    }

    /** Tiles that a picture of [width]×[height] takes. */
    fun tiles(width: Int, height: Int): Int = windows(padded(width)).size * windows(padded(height)).size

    /** Restore [picture], which is as large as the result will be, in tiles; [seed] is that of the noise. */
    fun restoreTiles(picture: Picture, seed: Long, progress: Progress = { _, _ -> }): Picture {
        val out = Picture(picture.width, picture.height)
        blend(picture, seed, progress) { top, band ->
            val stride = padded(picture.width) * COLOURS
            val lines = minOf(band.size / stride, picture.height - top)
            for (y in 0 until lines) for (x in 0 until picture.width * COLOURS) {
                out.pixels[(top + y) * picture.width * COLOURS + x] = toByte(band[y * stride + x] * 255f)
            }
        }
        if (keepsColours || keepsGrey && picture.isGrey) keepColours(out, picture)
        return out
    }

    /**
     * [restoreTiles] before rounding: [lines] is given the float32 lines (n, padded width, 3) from line `top` on,
     * band after band, so that memory grows with the width of the picture only.
     */
    fun blend(picture: Picture, seed: Long, progress: Progress, lines: (top: Int, band: FloatArray) -> Unit) {
        val width = padded(picture.width)
        val height = padded(picture.height)
        val noise = seededNoise(channels * (height / DOWNSCALE) * (width / DOWNSCALE), seed)
        val rows = windows(height)
        val columns = windows(width)
        val calls = calls(rows.size * columns.size)
        var done = 0
        var levelled = emptyList<Level>()
        var top = 0
        val stride = width * COLOURS
        val band = FloatArray(size * stride)
        for (row in rows) {
            val finished = (row.start - top) * stride // no further tile reaches these
            if (finished > 0) lines(top, band.copyOf(finished))
            band.copyInto(band, 0, finished)
            band.fill(0f, band.size - finished)
            top = row.start
            val levels = mutableListOf<Level>()
            for (column in columns) {
                val tile = sample(
                    programs,
                    picture.tile(column.start, row.start, size, size),
                    cut(noise, width / DOWNSCALE, column.start / DOWNSCALE, row.start / DOWNSCALE),
                    table,
                    bundle.sigmaS,
                    fidelity,
                ) { progress(++done, calls) }
                add(band, stride, tile.image, row, column)
                if (keepsColours) levels += Level.of(tile.image, size, column.start, row.start)
            }
            val offsets = levelOffsets(levels, levelled)
            levels.forEachIndexed { i, _ -> lift(band, stride, offsets[i], row, columns[i]) }
            levelled = levelled.takeLast(columns.size) + levels.mapIndexed { i, level -> level.lifted(offsets[i]) }
        }
        lines(top, band)
    }

    /** Make a tile [by] lighter that was added already. */
    private fun lift(band: FloatArray, stride: Int, by: Float, row: Window, column: Window) {
        for (y in 0 until size) for (x in 0 until size) {
            val at = y * stride + (column.start + x) * COLOURS
            for (c in 0 until COLOURS) band[at + c] += row.weights[y] * column.weights[x] * by
        }
    }

    private fun add(band: FloatArray, stride: Int, tile: FloatArray, row: Window, column: Window) {
        for (y in 0 until size) for (x in 0 until size) {
            val weight = row.weights[y] * column.weights[x]
            val at = y * stride + (column.start + x) * COLOURS
            for (c in 0 until COLOURS) band[at + c] += weight * tile[(c * size + y) * size + x]
        }
    }

    /** The square of one tile of [noise], whose lines have [width] values. */
    private fun cut(noise: FloatArray, width: Int, left: Int, top: Int): FloatArray {
        val side = size / DOWNSCALE
        val height = noise.size / channels / width
        val out = FloatArray(channels * side * side)
        for (c in 0 until channels) for (y in 0 until side) {
            val from = (c * height + top + y) * width + left
            noise.copyInto(out, (c * side + y) * side, from, from + side)
        }
        return out
    }

    companion object {
        /**
         * The bundle in [folder], verified, with the file of it that this phone runs best and computes as it should.
         *
         * @param runtimes that the app has.
         * @param verdicts of earlier starts.
         * @throws BundleException the bundle cannot be used.
         * @throws IllegalStateException this phone runs none of its files.
         */
        fun open(folder: File, runtimes: Runtimes, verdicts: Verdicts, threads: Int = 4): Restorer {
            val bundle = Bundle.read(folder)
            val chosen = choose(bundle, bundle.advised(runtimes), verdicts) { runtimes.open(bundle, it, threads) }
            return Restorer(bundle, chosen.programs, networks = bundle.detector?.let(runtimes::open))
        }
    }

    private fun windows(side: Int) = axisWindows(side, size, (size * OVERLAP).toInt() / DOWNSCALE * DOWNSCALE)

    private fun padded(side: Int) = if (side <= size) size else (side + DOWNSCALE - 1) / DOWNSCALE * DOWNSCALE
}
