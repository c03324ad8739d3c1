/**
 * What the app knows and does, apart from its views: one object for the life of the process, so that turning the
 * phone or leaving the app loses nothing. State changes on the main thread only; work runs on one other thread.
 */
package org.elir.mobile.demo

import android.annotation.SuppressLint
import android.content.Context
import android.graphics.Bitmap
import android.graphics.RectF
import android.net.Uri
import android.os.Handler
import android.os.Looper
import android.os.SystemClock
import java.io.File
import java.util.concurrent.CancellationException
import java.util.concurrent.Executors
import org.elir.mobile.core.ALIGNED_FACE
import org.elir.mobile.core.Artifact
import org.elir.mobile.core.Bundle
import org.elir.mobile.core.Chosen
import org.elir.mobile.core.Exif
import org.elir.mobile.core.Face
import org.elir.mobile.core.FaceFinder
import org.elir.mobile.core.PHOTO
import org.elir.mobile.core.Parity
import org.elir.mobile.core.Picture
import org.elir.mobile.core.Programs
import org.elir.mobile.core.Progress
import org.elir.mobile.core.Protocol
import org.elir.mobile.core.Restorer
import org.elir.mobile.core.Timing
import org.elir.mobile.core.Waiting
import org.elir.mobile.core.WantedFaces
import org.elir.mobile.core.advised
import org.elir.mobile.core.choose
import org.elir.mobile.core.goldenParity
import org.elir.mobile.core.measure
import org.elir.mobile.runtimes.PhoneRuntimes
import org.elir.mobile.runtimes.verdicts

/** A file and what the golden vectors say of it, or why they could not. */
class Checked(val artifact: Artifact, val parity: Parity?, val problem: String?) {
    /** Whether every budget holds; a file without budgets has proved nothing. */
    val holds: Boolean
        get() = parity != null && artifact.parity.isNotEmpty() &&
            artifact.parity.all { (name, budget) -> parity.holds(name, budget) }
}

/** What of a photo is restored. */
enum class Part(val title: Int) {
    FACES(R.string.part_faces),
    SQUARE(R.string.part_square),
    WHOLE(R.string.part_whole),
}

/** A timing and the circumstances it was taken under. */
class Benchmark(val artifact: Artifact, val timing: Timing, val loadMs: Double, val thermal: String)

class Session private constructor(private val context: Context) {
    /** Called on the main thread after every change of state. */
    var onChange: () -> Unit = {}

    /** The same, for what holds on to the process while something runs. */
    var onWork: () -> Unit = {}

    var bundles: List<Bundle> = emptyList()
        private set
    var message = "Reading bundles"
        private set

    /** Part of the work that is done, in thousandths; null while nothing runs. */
    var progress: Int? = null
        private set

    /** Until it is all done, where that can be said. */
    var secondsLeft: Long? = null
        private set
    var bundle: Bundle? = null
        private set
    var artifact: Artifact? = null
        private set
    var steps = 0

    /** Whether the user was asked to let notifications be shown. */
    var askedForNotifications = false

    /** From the sample (0) to the coarse estimate (10), in tenths. */
    var fidelity = 0
        private set

    /** Whether a restored picture takes its colours from the photo. */
    var keepsColours = false
        private set

    /** What restores a photo around its faces; null: it is left as it is. */
    var background: Bundle? = null
        private set
    var part = Part.SQUARE
        private set

    /** Faces of the photo, the largest first; null: they were not looked for. */
    var faces: List<Face>? = null
        private set

    /** Numbers of those that are left alone. */
    var left: Set<Int> = emptySet()
        private set
    var before: Bitmap? = null
        private set
    var after: Bitmap? = null
        private set
    var restored: Picture? = null
        private set
    var saved: Uri? = null
        private set
    var checked: List<Checked> = emptyList()
        private set
    var benchmark: Benchmark? = null
        private set

    private var photo: Picture? = null
    private var sampleOf: Bundle? = null // whose golden input the photo is, which is enlarged already
    private var exif: Exif? = null
    private val waiting = Waiting<() -> Unit>() // for what runs to be done
    private var seed = 0L
    private var started = 0L // milliseconds since the phone was
    private val main = Handler(Looper.getMainLooper())
    private val worker = Executors.newSingleThreadExecutor()

    @Volatile
    private var cancelled = false

    // Only the worker touches these.
    private var loaded: Artifact? = null
    private var programs: Programs? = null
    private var loadMs = 0.0
    private val verdicts = verdicts(context)

    // What is left of the last photo when the system ends the app's process.
    private val keptPhoto = File(context.filesDir, "last-photo")
    private val keptResult = File(context.filesDir, "last-result.png")

    init {
        work {
            val found = findBundles(context)
            val first = found.bundles.firstOrNull()
            val last = kept(keptPhoto)
            val lastExif = last?.let { readExif(keptPhoto) }
            val lastResult = last?.let { kept(keptResult) }
            val sample = first?.takeIf(Bundle::hasGolden)?.goldenPicture() // something to restore at once
            val shown = (last ?: sample)?.let(::toShownBitmap)
            val shownResult = lastResult?.let(::toShownBitmap)
            done {
                bundles = found.bundles
                photo = last ?: sample
                exif = lastExif
                sampleOf = first.takeIf { last == null }
                choose(first)
                before = shown
                after = shownResult
                restored = lastResult
                if (found.problems.isNotEmpty()) message = found.problems.joinToString("\n")
            }
        }
    }

    private fun kept(file: File): Picture? = try {
        if (file.exists()) decodePhoto(file, largestPicture()) else null
    } catch (error: PhotoException) {
        null
    }

    /** The faces of the photo for the screen; none where they are not what is restored. */
    val rings: List<Ring>
        get() = faces.orEmpty().takeIf { part == Part.FACES }.orEmpty().mapIndexed { number, face ->
            val box = face.box.run { RectF(left.toFloat(), top.toFloat(), right.toFloat(), bottom.toFloat()) }
            Ring(box, photo?.width ?: 1, number !in left)
        }

    /** Files of the chosen bundle that a phone can run. */
    val artifacts: List<Artifact> get() = bundle?.artifacts.orEmpty().filter(PhoneRuntimes::knows)

    /** Why the chosen file is the one for this phone; null: it is not, or the bundle does not say. */
    val reason: String? get() = artifact?.let { bundle?.reasonFor(it) }

    fun choose(bundle: Bundle?) {
        if (bundle === this.bundle) return
        this.bundle = bundle
        steps = bundle?.steps ?: 0
        fidelity = Math.round((bundle?.task?.fidelity ?: 0f) * 10)
        keepsColours = bundle?.task?.keepsColours == true
        background = background.takeIf { it in backgrounds }
        checked = emptyList()
        val advised = bundle?.advised(PhoneRuntimes)?.firstOrNull()
        chooseArtifact(advised ?: artifacts.firstOrNull())
        forgetResult()
        part = parts.first()
        val suited = when {
            Part.FACES in parts -> "For the faces in any photo"
            bundle?.task?.domain == ALIGNED_FACE -> "For a photo that one upright face fills"
            bundle?.task?.domain == PHOTO -> "For any photo"
            else -> ""
        }
        message = suited
        onChange()
        if (part == Part.FACES && sampleOf == null) findFaces()
    }

    /** What of a photo the chosen bundle restores, as far as it knows such pictures. */
    val parts: List<Part>
        get() = when {
            bundle?.task?.domain != ALIGNED_FACE -> listOf(Part.SQUARE, Part.WHOLE)
            bundle?.detector != null && PhoneRuntimes.findsFaces -> listOf(Part.FACES, Part.SQUARE)
            else -> listOf(Part.SQUARE)
        }

    /** Choose a file by runtime and precision; the nearest one where the two do not go together. */
    fun choose(target: String?, precision: String?) {
        val same = artifacts.filter { it.target == target }
        chooseArtifact(same.find { it.precision == precision } ?: same.firstOrNull())
        onChange()
    }

    private fun chooseArtifact(artifact: Artifact?) {
        if (artifact?.sha256 != this.artifact?.sha256) benchmark = null
        this.artifact = artifact
    }

    fun choosePart(part: Part) {
        if (part == this.part) return
        this.part = part
        forgetResult()
        onChange()
        if (part == Part.FACES) findFaces()
    }

    /** Bundles that restore photographs of anything. */
    val backgrounds: List<Bundle> get() = bundles.filter { it.task.domain == PHOTO && it.advised(PhoneRuntimes).isNotEmpty() }

    fun chooseBackground(bundle: Bundle?) {
        background = bundle
        onChange()
    }

    /** So many tenths; counts from the next restoration on. */
    fun chooseFidelity(tenths: Int) {
        fidelity = tenths
        onChange()
    }

    /** Likewise. */
    fun chooseColours(kept: Boolean) {
        keepsColours = kept
        onChange()
    }

    /** Restore face [number], or leave it alone. */
    fun chooseFace(number: Int, wanted: Boolean) {
        left = if (wanted) left - number else left + number
        onChange()
    }

    /** Look for faces in the photo, unless that was done. */
    private fun findFaces() {
        val given = photo ?: return
        val detector = bundle?.detector ?: return
        if (faces != null) return
        work("Looking for faces") {
            val found = checkNotNull(PhoneRuntimes.open(detector)) { "This build cannot look for faces" }
                .use { FaceFinder(it).find(given, ::report) }
            done {
                if (photo !== given) return@done
                faces = found
                message = when (found.size) {
                    0 -> "No face is found in this photo: nothing is restored"
                    1 -> "1 face is found"
                    else -> "${found.size} faces are found: choose which are restored"
                }
            }
        }
    }

    fun cancel() {
        cancelled = true
    }

    fun say(text: String) {
        message = text
        onChange()
    }

    /** Open the photo at [uri], after what is underway. */
    fun open(uri: Uri) = work("Opening the photo") {
        val picture = loadPhoto(context, uri, keptPhoto, largestPicture())
        keptResult.delete()
        val said = readExif(keptPhoto)
        val shown = toShownBitmap(picture)
        done {
            photo = picture
            exif = said
            sampleOf = null
            faces = null
            left = emptySet()
            forgetResult()
            before = shown
            message = "${picture.width}×${picture.height} pixels"
            if (part == Part.FACES) findFaces()
        }
    }

    private fun forgetResult() {
        after = null
        restored = null
        saved = null
    }

    /** Restore the photo; [another]: from other noise than the last time. */
    fun restore(another: Boolean = false) {
        val given = photo ?: return say("Pick or take a photo first")
        val bundle = bundle ?: return
        val steps = steps
        val part = part
        val isSample = sampleOf === bundle
        val faces = faces
        val left = left
        val ofFaces = part == Part.FACES && !isSample
        if (ofFaces && faces == null) return findFaces()
        val behind = background.takeIf { ofFaces }
        if (ofFaces && behind == null && faces.orEmpty().size <= left.size) return say("No face is left to restore: nothing is done")
        if (another) seed++
        val seed = seed
        val fidelity = fidelity / 10f
        val keepsColours = keepsColours
        var canvas: Picture? = null
        val first = {
            if (behind != null) {
                canvas = restoredAround(behind, given, seed)
                begin("Restoring the faces")
            }
        }
        val what = if (behind == null) "Restoring" else "Restoring what is around the faces"
        withPrograms(what, first) { programs, _, notice ->
            val restorer = Restorer(bundle, programs, steps)
            restorer.fidelity = fidelity
            restorer.keepsColours = keepsColours
            val start = System.nanoTime()
            val large: Picture
            val out: Picture
            val did: String
            if (ofFaces) {
                large = given // shown as large as what it is compared with
                val ground = canvas ?: given
                val wanted = WantedFaces(left = left)
                val (made, treated) = restorer.restoreFaces(given, faces.orEmpty(), wanted, seed, ::report, ground)
                out = made
                val sharp = treated.count { !it.restored && it.detail != null }
                did = "%d of %d faces".format(treated.count { it.restored }, treated.size) +
                    if (sharp > 0) ", %d left: as sharp as the model would make them".format(sharp) else ""
            } else {
                large = if (isSample) given else bundle.prepared(given, part == Part.WHOLE, largestPicture())
                out = restorer.restoreTiles(large, seed, ::report)
                did = "%d tiles".format(restorer.tiles(large.width, large.height))
            }
            val seconds = (System.nanoTime() - start) / 1e9
            val shownBefore = toShownBitmap(large)
            val shownAfter = toShownBitmap(out)
            done {
                forgetResult()
                before = shownBefore
                after = shownAfter
                restored = out
                val facts = "%d×%d pixels, %s in %.1f s, sample %d".format(out.width, out.height, did, seconds, seed)
                message = listOfNotNull(notice, facts).joinToString("\n")
            }
            if (!isSample) keepPicture(out, keptResult)
        }
    }

    /** All of [given] restored with [behind], whose network is not kept: memory holds one at a time. */
    private fun restoredAround(behind: Bundle, given: Picture, seed: Long): Picture {
        val pixels = behind.task.run { given.width.toLong() * given.height * upscale * upscale }
        require(pixels <= largestPicture()) {
            "${pixels / 1_000_000} million pixels are too many for this phone: leave what is around the faces as it is"
        }
        val chosen = choose(behind, behind.advised(PhoneRuntimes), verdicts) { load(behind, it) }
        return Restorer(behind, chosen.programs).use { it.restore(given, seed, progress = ::report) }
    }

    /** Save the restored picture, then call [then] with its place in the gallery. */
    fun save(then: (Uri) -> Unit = {}) {
        val picture = restored ?: return say("Restore a photo first")
        saved?.let { return then(it) }
        val exif = exif.takeIf { sampleOf == null }
        work("Saving") {
            val uri = savePhoto(context, picture, exif, "elir-${System.currentTimeMillis()}.jpg")
            done {
                saved = uri
                message = "Saved to the gallery"
                then(uri)
            }
        }
    }

    /** Run the golden vectors through every file of the bundle. */
    fun check() {
        val bundle = bundle ?: return
        if (!bundle.hasGolden) return say("${bundle.folder.name} has no golden vectors: write the bundle again")
        val files = artifacts
        work("Checking", long = true) {
            val found = files.mapIndexed { index, artifact ->
                report(index, files.size)
                try {
                    Checked(artifact, goldenParity(bundle, open(bundle, artifact)), null)
                } catch (error: Exception) {
                    if (error is CancellationException) throw error
                    Checked(artifact, null, error.message ?: error.toString())
                }
            }
            done {
                checked = found
                val held = found.count { it.holds }
                message = "$held of ${found.size} files compute what they should"
            }
        }
    }

    /** Time the chosen file. */
    fun measure() {
        val bundle = bundle ?: return
        if (!bundle.hasGolden) return say("${bundle.folder.name} has no golden vectors: write the bundle again")
        withPrograms("Measuring") { programs, artifact, notice ->
            val before = thermalState(context)
            val timing = measure(bundle, programs, Protocol(), progress = ::report)
            val thermal = "$before before, ${thermalState(context)} after"
            val loading = loadMs
            done {
                benchmark = Benchmark(artifact, timing, loading, thermal)
                message = listOfNotNull(notice, "%.1f ms a restoration".format(timing.total.median)).joinToString("\n")
            }
        }
    }

    /**
     * Give [job] the programs of the chosen file, or, where it does not compute here what it should, of the next one that
     * the manifest advises, and then why. [first] is done before they are loaded.
     */
    private fun withPrograms(
        what: String,
        first: () -> Unit = {},
        job: (programs: Programs, artifact: Artifact, notice: String?) -> Unit,
    ) {
        val bundle = bundle ?: return
        val artifact = artifact ?: return
        work(what, long = true) {
            first()
            val advised = bundle.advised(PhoneRuntimes)
            val files = listOf(artifact) + advised.drop(advised.indexOf(artifact) + 1)
            val kept = programs.takeIf { loaded === artifact }
            val chosen = kept?.let { Chosen(artifact, it, emptyList()) } ?: choose(bundle, files, verdicts) { load(bundle, it) }
            programs = chosen.programs
            loaded = chosen.artifact
            if (chosen.artifact !== artifact) main.post { if (this.artifact === artifact) chooseArtifact(chosen.artifact) }
            job(chosen.programs, chosen.artifact, chosen.passedOver.joinToString("\n").ifEmpty { null })
        }
    }

    /** The programs of [artifact], kept loaded until another file is asked for, whatever they compute. */
    private fun open(bundle: Bundle, artifact: Artifact): Programs {
        programs?.let { if (loaded === artifact) return it }
        return load(bundle, artifact).also {
            programs = it
            loaded = artifact
        }
    }

    private fun load(bundle: Bundle, artifact: Artifact): Programs {
        unload()
        tooLittleMemoryFor(context, bundle, artifact)?.let { throw IllegalStateException(it) }
        val start = System.nanoTime()
        return PhoneRuntimes.open(bundle, artifact, THREADS).also { loadMs = (System.nanoTime() - start) / 1e6 }
    }

    private fun unload() {
        programs?.close()
        programs = null
        loaded = null
    }

    /** Give the loaded file back: the system is short of memory, or nobody looks. */
    fun trim() {
        if (progress == null) worker.execute(::unload)
    }

    private fun report(done: Int, total: Int) {
        if (cancelled) throw CancellationException()
        main.post {
            if (progress != null) {
                progress = done * 1000 / total
                val spent = SystemClock.elapsedRealtime() - started
                secondsLeft = if (done > 0 && spent > 2000) spent * (total - done) / done / 1000 else null
                changed()
            }
        }
    }

    /** Go on with another part of the same work. */
    private fun begin(what: String) {
        main.post {
            message = what
            started = SystemClock.elapsedRealtime()
            changed()
        }
    }

    private fun changed() {
        onChange()
        onWork()
    }

    private fun done(change: () -> Unit) {
        main.post {
            progress = null
            change()
            if (progress == null) waiting.next()?.invoke()
            changed()
        }
    }

    /**
     * Do [job] on the worker's thread, after what is underway.
     *
     * @param long whether it is to go on when the app is left.
     */
    private fun work(what: String = message, long: Boolean = false, job: () -> Unit) {
        if (progress != null) return waiting.add(what) { work(what, long, job) }
        cancelled = false
        started = SystemClock.elapsedRealtime()
        secondsLeft = null
        progress = 0
        message = what
        changed()
        if (long) WorkService.start(context)
        worker.execute {
            try {
                job()
            } catch (error: CancellationException) {
                done { message = "Cancelled" }
            } catch (error: OutOfMemoryError) {
                unload()
                done { message = "Not enough memory: close other apps, or choose the centre square" }
            } catch (error: Exception) {
                done { message = error.message ?: error.toString() }
            }
        }
    }

    companion object {
        @SuppressLint("StaticFieldLeak") // the application's context lives as long as the process
        private var session: Session? = null

        fun of(context: Context): Session = session ?: Session(context.applicationContext).also { session = it }
    }
}
