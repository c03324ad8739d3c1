/**
 * Reading a bundle: `manifest.json`, the table of time biases, the exported files and the golden vectors.
 *
 * A reader trusts nothing: schema, paths and SHA-256 of every file are verified before use, as
 * `elir_mobile/bundle.py` does, whose format this is. Files are read in pieces, never whole.
 */
package org.elir.mobile.core

import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import org.json.JSONException
import org.json.JSONObject

const val SCHEMA_VERSION = 2
const val MANIFEST = "manifest.json"

/** What can be wrong with a bundle. */
enum class Fault { MISSING, DAMAGED, TOO_NEW, OUTSIDE }

/** A bundle that cannot be used; the message is one sentence that says what to do. */
class BundleException(val fault: Fault, message: String, cause: Throwable? = null) : Exception(message, cause)

/**
 * Host's figure and the budget a device must hold, in dB. [hostDb] is null where the host was exact, NaN where it
 * cannot run the file.
 */
class Budget(val hostDb: Double?, val budgetDb: Double)

/** One exported file. [parity] has a [Budget] for each of `encode step decode image`, or is empty. */
class Artifact(
    val path: String,
    val sha256: String,
    val bytes: Long,
    val target: String,
    val precision: String,
    val parity: Map<String, Budget>,
) {
    /** What opens it: a target is called by its runtime, or `runtime/delegate`. */
    val runtime: String get() = target.substringBefore('/')
}

/**
 * What the manifest says of the task.
 *
 * @property title for people.
 * @property domain what the network was trained on, as `aligned-face` or `photo`; null: it does not say.
 * @property upscale how many times larger the restored picture is than the given one.
 * @property enlarge how the given picture gets that large before it is restored.
 * @property keepsColours whether by default the restored picture takes its low frequencies of colour from the given one.
 * @property keepsGrey whether a grey picture stays grey, where its colours are not kept, too.
 * @property fidelity by default; see [sample].
 */
class Task(
    val name: String,
    val title: String,
    val domain: String?,
    val upscale: Int,
    val enlarge: Filter,
    val keepsColours: Boolean = false,
    val keepsGrey: Boolean = keepsColours,
    val fidelity: Float = 0f,
)

/** The face detector's two networks, `.tflite` files for [FaceFinder]. */
class Detector(val detect: File, val mesh: File)

/** Where a raw little-endian array lies. */
private class ArrayEntry(val path: String, val sha256: String, val shape: List<Int>, val dtype: String) {
    val count: Int get() = shape.fold(1, Int::times)
}

/**
 * A verified bundle.
 *
 * @property size side of the square that the programs take, pixels.
 * @property steps K.
 * @property sigmaS spread of the noise added to the coarse latent.
 * @property table the time biases, [steps] rows of equal width.
 * @property detector that finds the faces of photographs; null: the bundle has none.
 */
class Bundle private constructor(
    val folder: File,
    val task: Task,
    val modelName: String,
    val trained: Boolean,
    val size: Int,
    val steps: Int,
    val sigmaS: Float,
    val table: List<FloatArray>,
    val artifacts: List<Artifact>,
    val detector: Detector?,
    private val latentChannels: Int,
    private val recommendation: Map<String, String>,
    private val reasons: Map<String, String>,
    private val golden: Map<String, ArrayEntry>,
) {
    /** Shape of the latent: channels, rows, columns. */
    val latentShape: IntArray get() = intArrayOf(latentChannels, size / DOWNSCALE, size / DOWNSCALE)

    /** The file that the manifest advises a device of [kind] to run; null: none that is here. */
    fun recommended(kind: String): Artifact? = artifacts.find { it.path == recommendation[kind] }

    /** Why that one, in a sentence; null: the manifest does not say. */
    fun reason(kind: String): String? = reasons[kind]

    /** Why a phone is advised to run [artifact]; null: it is not, or the manifest does not say. */
    fun reasonFor(artifact: Artifact): String? = PHONE_KINDS.find { recommended(it) === artifact }?.let(::reason)

    /**
     * What of [photo] is restored, as large as the restored picture will be: all of it, or the centred square.
     *
     * @throws IllegalArgumentException it would have more than [mostPixels] pixels.
     */
    fun prepared(photo: Picture, whole: Boolean, mostPixels: Long): Picture {
        val part = if (whole) photo else photo.square(size / task.upscale)
        val pixels = part.width.toLong() * part.height * task.upscale * task.upscale
        require(pixels <= mostPixels) {
            "${pixels / 1_000_000} million pixels are too many for this phone: choose the centre square"
        }
        return part.enlarged(task.upscale, task.enlarge)
    }

    /** Where [artifact] lies. */
    fun file(artifact: Artifact): File = File(folder, artifact.path)

    /** Whether the bundle has golden vectors. */
    val hasGolden: Boolean get() = golden.keys.containsAll(GOLDEN_NAMES)

    /**
     * A golden array as float32. Pictures, stored as (H, W, 3) bytes, come as (3, H, W) in [0, 1].
     *
     * @throws BundleException the array is missing, or not as long as its shape says.
     */
    fun golden(name: String): FloatArray {
        val entry = golden[name] ?: throw damaged(folder, "it has no golden array '$name'")
        if (entry.dtype == "float32") return readFloats(File(folder, entry.path), entry.count, folder)
        val (height, width) = entry.shape
        val bytes = File(folder, entry.path).readBytes()
        if (bytes.size != height * width * COLOURS) throw damaged(folder, "${entry.path} has another size")
        return Picture(width, height, bytes).tile(0, 0, width, height)
    }

    /** The golden input as a picture. */
    fun goldenPicture(): Picture {
        val entry = golden["input"] ?: throw damaged(folder, "it has no golden array 'input'")
        return Picture(entry.shape[1], entry.shape[0], File(folder, entry.path).readBytes())
    }

    companion object {
        private const val LATENT_CHANNELS = 16 // of models whose manifest does not say
        private val GOLDEN_NAMES = listOf("input", "noise", "coarse", "step", "latent", "output")

        /**
         * Open the bundle in [folder] and verify all of it.
         *
         * @throws BundleException missing, damaged, too new, or naming a path outside itself.
         */
        fun read(folder: File): Bundle {
            val manifest = File(folder, MANIFEST)
            if (!manifest.isFile) {
                throw BundleException(Fault.MISSING, "${folder.name} is not a bundle: it has no $MANIFEST")
            }
            return try {
                parse(folder, JSONObject(manifest.readText()))
            } catch (error: JSONException) {
                throw damaged(folder, "its $MANIFEST cannot be read", error)
            } catch (error: IOException) {
                throw damaged(folder, "a file cannot be read", error)
            }
        }

        private fun parse(folder: File, manifest: JSONObject): Bundle {
            val version = manifest.getInt("schema_version")
            if (version > SCHEMA_VERSION) {
                throw BundleException(
                    Fault.TOO_NEW,
                    "${folder.name} was made by a newer elir-mobile (bundle schema $version, this app reads " +
                        "$SCHEMA_VERSION): update this app",
                )
            }
            if (version < 1) throw damaged(folder, "its schema is $version")
            val table = array(manifest.getJSONObject("table"))
            val golden = manifest.optJSONObject("golden")?.getJSONObject("arrays")?.let { arrays ->
                arrays.keys().asSequence().associateWith { array(arrays.getJSONObject(it)) }
            } ?: emptyMap()
            val files = manifest.getJSONArray("files")
            val artifacts = (0 until files.length()).map { artifact(files.getJSONObject(it)) }
            val networks = manifest.optJSONObject("detector")?.getJSONObject("files")?.let { files ->
                listOf("detect", "mesh").map { files.getJSONObject(it) }.map { it.getString("path") to it.getString("sha256") }
            }
            val checks = listOf(table.path to table.sha256) + networks.orEmpty() +
                golden.values.map { it.path to it.sha256 } + artifacts.map { it.path to it.sha256 }
            for ((path, sha256) in checks) verify(folder, path, sha256)
            if (table.shape.size != 2) throw damaged(folder, "its table has another shape")
            val (steps, width) = table.shape
            val values = readFloats(File(folder, table.path), steps * width, folder)
            val model = manifest.getJSONObject("model")
            val bundle = Bundle(
                folder,
                task(folder, manifest, version),
                model.getString("name"),
                model.optBoolean("trained", false),
                manifest.getInt("size"),
                manifest.getInt("steps"),
                manifest.getDouble("sigma_s").toFloat(),
                List(steps) { values.copyOfRange(it * width, (it + 1) * width) },
                artifacts,
                networks?.let { (detect, mesh) -> Detector(File(folder, detect.first), File(folder, mesh.first)) },
                model.optJSONObject("architecture")?.optInt("latent_channels", LATENT_CHANNELS) ?: LATENT_CHANNELS,
                texts(manifest, "recommendation"),
                texts(manifest, "reasons"),
                golden,
            )
            if (bundle.steps != steps) throw damaged(folder, "its table has $steps rows for ${bundle.steps} steps")
            if (bundle.size <= 0 || bundle.size % DOWNSCALE != 0 || bundle.size % bundle.task.upscale != 0) {
                throw damaged(folder, "its size is ${bundle.size}")
            }
            // Native code is given these: a wrong length would end the app, not a test.
            val latent = bundle.latentShape.asList()
            val picture = listOf(bundle.size, bundle.size, COLOURS)
            for (name in GOLDEN_NAMES) {
                val entry = golden[name] ?: continue
                val isPicture = name == "input" || name == "output"
                val fits = if (isPicture) entry.shape == picture else entry.shape == listOf(1) + latent
                val dtype = if (isPicture) "uint8" else "float32"
                if (!fits || entry.dtype != dtype) throw damaged(folder, "golden array '$name' has another shape")
            }
            return bundle
        }

        /** Schema 1 has the task's name alone: its pictures are restored as large as they are. */
        private fun task(folder: File, manifest: JSONObject, version: Int): Task {
            val name = manifest.getString("task")
            if (version == 1) return Task(name, name, null, 1, Filter.NEAREST)
            val upscale = manifest.getInt("upscale")
            if (upscale < 1) throw damaged(folder, "it enlarges $upscale times")
            val enlarge = manifest.getString("enlarge")
            val filter = Filter.entries.find { it.name.lowercase() == enlarge }
                ?: throw damaged(folder, "it enlarges by '$enlarge'")
            val fidelity = manifest.optDouble("fidelity", 0.0).toFloat()
            if (fidelity !in 0f..1f) throw damaged(folder, "its fidelity is $fidelity")
            val keepsColours = manifest.optBoolean("keep_colors", false) // older bundles do not say
            val keepsGrey = manifest.optBoolean("keep_grey", keepsColours)
            val (title, domain) = listOf("title", "domain").map(manifest::getString)
            return Task(name, title, domain, upscale, filter, keepsColours, keepsGrey, fidelity)
        }

        private fun texts(manifest: JSONObject, name: String): Map<String, String> =
            manifest.optJSONObject(name)?.let { texts ->
                texts.keys().asSequence().associateWith { texts.getString(it) }
            } ?: emptyMap()

        private fun array(entry: JSONObject): ArrayEntry {
            val shape = entry.getJSONArray("shape")
            return ArrayEntry(
                entry.getString("path"),
                entry.getString("sha256"),
                (0 until shape.length()).map { shape.getInt(it) },
                entry.optString("dtype", "float32"),
            )
        }

        private fun artifact(entry: JSONObject): Artifact {
            val parity = entry.optJSONObject("parity")
            return Artifact(
                entry.getString("path"),
                entry.getString("sha256"),
                entry.getLong("bytes"),
                entry.getString("target"),
                entry.getString("precision"),
                parity?.keys()?.asSequence()?.associateWith {
                    val budget = parity.getJSONObject(it)
                    val host = when {
                        !budget.has("host_db") -> Double.NaN
                        budget.isNull("host_db") -> null
                        else -> budget.getDouble("host_db")
                    }
                    Budget(host, budget.getDouble("budget_db"))
                } ?: emptyMap(),
            )
        }

        private fun verify(folder: File, path: String, sha256: String) {
            val root = folder.canonicalFile
            val file = File(folder, path).canonicalFile
            if (path.startsWith("/") || !file.startsWith(root)) {
                val message = "${folder.name} names $path, which is outside the bundle: write it again"
                throw BundleException(Fault.OUTSIDE, message)
            }
            if (!file.exists() || artifactSha256(file) != sha256) throw damaged(folder, "$path is missing or damaged")
        }
    }
}

private fun damaged(folder: File, what: String, cause: Throwable? = null) =
    BundleException(Fault.DAMAGED, "${folder.name} is damaged: $what; copy or write the bundle again", cause)

private fun readFloats(file: File, count: Int, folder: File): FloatArray {
    if (file.length() != count * 4L) throw damaged(folder, "${file.name} does not have $count values")
    val values = FloatArray(count)
    ByteBuffer.wrap(file.readBytes()).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(values)
    return values
}

/** SHA-256 of an artifact. Of a package folder: over its files' relative names and digests. */
fun artifactSha256(file: File): String {
    if (!file.isDirectory) return sha256(file)
    val lines = file.walkTopDown().filter { it.isFile }
        .map { it.relativeTo(file).invariantSeparatorsPath to it }
        .sortedBy { it.first }
        .joinToString("") { (name, part) -> "${sha256(part)}  $name\n" }
    return hex(MessageDigest.getInstance("SHA-256").digest(lines.toByteArray()))
}

private fun sha256(file: File): String {
    val digest = MessageDigest.getInstance("SHA-256")
    file.inputStream().use { stream ->
        val piece = ByteArray(1 shl 16)
        while (true) {
            val count = stream.read(piece)
            if (count < 0) break
            digest.update(piece, 0, count)
        }
    }
    return hex(digest.digest())
}

/** SHA-256 of [values] as little-endian float32. */
fun sha256(values: FloatArray): String = hex(MessageDigest.getInstance("SHA-256").digest(littleEndian(values)))

private fun littleEndian(values: FloatArray): ByteArray {
    val bytes = ByteBuffer.allocate(values.size * 4).order(ByteOrder.LITTLE_ENDIAN)
    bytes.asFloatBuffer().put(values)
    return bytes.array()
}

private fun hex(bytes: ByteArray) = bytes.joinToString("") { "%02x".format(it) }
