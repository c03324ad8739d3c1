/**
 * What the app knows and does, apart from its views: one object for the life of the process, so that turning the
 * phone or leaving the app loses nothing. State changes on the main thread only; work runs on one other thread.
 */
package org.elir.mobile.demo

import android.annotation.SuppressLint
import android.content.Context
import android.graphics.Bitmap
import android.net.Uri
import android.os.Handler
import android.os.Looper
import java.util.concurrent.CancellationException
import java.util.concurrent.Executors
import org.elir.mobile.core.Artifact
import org.elir.mobile.core.Bundle
import org.elir.mobile.core.Parity
import org.elir.mobile.core.Picture
import org.elir.mobile.core.Programs
import org.elir.mobile.core.Progress
import org.elir.mobile.core.Protocol
import org.elir.mobile.core.Restorer
import org.elir.mobile.core.Timing
import org.elir.mobile.core.goldenParity
import org.elir.mobile.core.measure
import org.elir.mobile.core.shortOf

/** A file and what the golden vectors say of it, or why they could not. */
class Checked(val artifact: Artifact, val parity: Parity?, val problem: String?) {
    /** Whether every budget holds; a file without budgets has proved nothing. */
    val holds: Boolean
        get() = parity != null && artifact.parity.isNotEmpty() &&
            artifact.parity.all { (name, budget) -> parity.holds(name, budget) }
}

/** Classes of device that a phone may be, as the manifest's advice calls them: the faster chip first. */
private val KINDS = listOf("android-npu", "android-gpu", "android")

/** A timing and the circumstances it was taken under. */
class Benchmark(val artifact: Artifact, val timing: Timing, val loadMs: Double, val thermal: String)

class Session private constructor(private val context: Context) {
    /** Called on the main thread after every change of state. */
    var onChange: () -> Unit = {}

    var bundles: List<Bundle> = emptyList()
        private set
    var message = "Reading bundles"
        private set

    /** Part of the work that is done, in thousandths; null while nothing runs. */
    var progress: Int? = null
        private set
    var bundle: Bundle? = null
        private set
    var artifact: Artifact? = null
        private set
    var steps = 0
    var whole = false
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
    private var seed = 0L
    private val main = Handler(Looper.getMainLooper())
    private val worker = Executors.newSingleThreadExecutor()

    @Volatile
    private var cancelled = false

    // Only the worker touches these.
    private var loaded: Artifact? = null
    private var programs: Programs? = null
    private var loadMs = 0.0
    private val gpuProblems = mutableMapOf<String, String>() // by the SHA-256 of both files

    init {
        work {
            val found = findBundles(context)
            val first = found.bundles.firstOrNull()
            val sample = first?.takeIf(Bundle::hasGolden)?.goldenPicture() // something to restore at once
            val shown = sample?.let(::toShownBitmap)
            done {
                bundles = found.bundles
                choose(first)
                photo = sample
                sampleOf = first
                before = shown
                if (found.problems.isNotEmpty()) message = found.problems.joinToString("\n")
            }
        }
    }

    /** Files of the chosen bundle that a phone can run. */
    val artifacts: List<Artifact> get() = bundle?.artifacts.orEmpty().filter(PhoneRuntimes::knows)

    fun choose(bundle: Bundle?) {
        if (bundle === this.bundle) return
        this.bundle = bundle
        steps = bundle?.steps ?: 0
        checked = emptyList()
        val kind = KINDS.firstOrNull { kind -> bundle?.recommended(kind)?.let(PhoneRuntimes::has) == true }
        chooseArtifact(kind?.let { bundle?.recommended(it) } ?: artifacts.firstOrNull())
        forgetResult()
        val suited = when (bundle?.task?.domain) {
            "aligned-face" -> "For a photo that one upright face fills"
            "photo" -> "For any photo"
            else -> null
        }
        message = listOfNotNull(suited, kind?.let { bundle?.reason(it) }).joinToString("\n")
        onChange()
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

    fun choosePart(whole: Boolean) {
        if (whole == this.whole) return
        this.whole = whole
        forgetResult()
        onChange()
    }

    fun cancel() {
        cancelled = true
    }

    fun say(text: String) {
        message = text
        onChange()
    }

    fun open(uri: Uri) = work("Opening the photo") {
        val picture = loadPhoto(context, uri, largestPicture())
        val shown = toShownBitmap(picture)
        done {
            photo = picture
            sampleOf = null
            forgetResult()
            before = shown
            message = "${picture.width}×${picture.height} pixels"
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
        val whole = whole
        val isSample = sampleOf === bundle
        if (another) seed++
        val seed = seed
        withPrograms("Restoring") { programs, _, notice ->
            val large = if (isSample) given else bundle.prepared(given, whole, largestPicture())
            val start = System.nanoTime()
            val restorer = Restorer(bundle, programs, steps)
            val tiles = restorer.tiles(large.width, large.height)
            val out = restorer.restore(large, seed, ::report)
            val seconds = (System.nanoTime() - start) / 1e9
            val shownBefore = toShownBitmap(large)
            val shownAfter = toShownBitmap(out)
            done {
                forgetResult()
                before = shownBefore
                after = shownAfter
                restored = out
                val did = "%d×%d pixels, %d tiles in %.1f s, sample %d".format(out.width, out.height, tiles, seconds, seed)
                message = listOfNotNull(notice, did).joinToString("\n")
            }
        }
    }

    /** Save the restored picture, then call [then] with its place in the gallery. */
    fun save(then: (Uri) -> Unit = {}) {
        val picture = restored ?: return say("Restore a photo first")
        saved?.let { return then(it) }
        work("Saving") {
            val uri = savePhoto(context, picture, "elir-${System.currentTimeMillis()}.jpg")
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
        work("Checking") {
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

    /** Give [job] the programs of the chosen file, or of another, and then why not of that one. */
    private fun withPrograms(what: String, job: (programs: Programs, artifact: Artifact, notice: String?) -> Unit) {
        val bundle = bundle ?: return
        val artifact = artifact ?: return
        work(what) {
            val instead = bundle.recommended("android")?.takeIf(PhoneRuntimes::has)
            val problem = if (artifact.target == GPU_TARGET) gpuProblem(bundle, artifact, instead ?: artifact) else ""
            if (problem.isEmpty()) {
                job(open(bundle, artifact), artifact, null)
            } else {
                checkNotNull(instead) { "On this phone's GPU $problem: export a file for the processor, too" }
                main.post { if (this.artifact === artifact) chooseArtifact(instead) }
                job(open(bundle, instead), instead, "${instead.path} is used: on this phone's GPU $problem")
            }
        }
    }

    /** What speaks against [artifact] on this phone's GPU in place of [instead], found out once; empty: nothing. */
    private fun gpuProblem(bundle: Bundle, artifact: Artifact, instead: Artifact): String = try {
        gpuProblems.getOrPut(artifact.sha256 + instead.sha256) {
            shortOf(bundle, open(bundle, artifact), instead.parity)
        }
    } catch (error: Exception) { // it cannot be loaded, or does not run
        error.message ?: error.toString()
    }

    /** The programs of [artifact], kept loaded until another file is asked for. */
    private fun open(bundle: Bundle, artifact: Artifact): Programs {
        programs?.let { if (loaded === artifact) return it }
        unload()
        tooLittleMemoryFor(context, bundle, artifact)?.let { throw IllegalStateException(it) }
        val start = System.nanoTime()
        return PhoneRuntimes.open(bundle, artifact, THREADS).also {
            loadMs = (System.nanoTime() - start) / 1e6
            programs = it
            loaded = artifact
        }
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
                onChange()
            }
        }
    }

    private fun done(change: () -> Unit) {
        main.post {
            progress = null
            change()
            onChange()
        }
    }

    private fun work(what: String = message, job: () -> Unit) {
        if (progress != null) return
        cancelled = false
        progress = 0
        message = what
        onChange()
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
