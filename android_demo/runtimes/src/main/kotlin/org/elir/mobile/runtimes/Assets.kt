/**
 * Bundles that are built into an app, and the shortest way to use one.
 *
 * Runtimes map files into memory, so a built-in bundle is copied out of the package once, under a temporary name.
 */
package org.elir.mobile.runtimes

import android.content.Context
import android.content.res.AssetManager
import android.graphics.Bitmap
import android.os.Build
import java.io.File
import java.io.FileNotFoundException
import org.elir.mobile.core.MANIFEST
import org.elir.mobile.core.Progress
import org.elir.mobile.core.Restorer
import org.elir.mobile.core.Verdicts

/** Folder of the assets, and of the app's own files, that bundles lie in. */
const val BUNDLES = "bundles"

/** What the golden vectors said of files on this phone and with this version of its system, GPU drivers included. */
fun verdicts(context: Context) = Verdicts(File(context.filesDir, "verdicts.json"), Build.FINGERPRINT)

/**
 * [Restorer.open] of the bundle called [name] in the app's assets; takes seconds, so not for the main thread.
 *
 * @throws IllegalArgumentException there is none of that name.
 */
fun Restorer.Companion.open(context: Context, name: String): Restorer {
    val folder = requireNotNull(builtInBundles(context).find { it.name == name }) { "assets/$BUNDLES has no bundle $name" }
    return open(folder, PhoneRuntimes, verdicts(context))
}

/** [Restorer.restore] of an upright bitmap; the very same one where nothing was to be done. */
fun Restorer.restore(photo: Bitmap, onProgress: Progress): Bitmap {
    val given = photo.toPicture()
    return restore(given, progress = onProgress).let { if (it === given) photo else it.toBitmap() }
}

/** Folders of the bundles in the app's assets. */
fun builtInBundles(context: Context): List<File> {
    val root = File(context.filesDir, BUNDLES)
    return context.assets.list(BUNDLES).orEmpty().map { name ->
        val folder = File(root, name)
        val manifest = context.assets.open("$BUNDLES/$name/$MANIFEST").use { it.readBytes() }
        val unpacked = File(folder, MANIFEST)
        if (!unpacked.isFile || !unpacked.readBytes().contentEquals(manifest)) {
            val staged = File(root, ".$name")
            staged.deleteRecursively()
            copy(context.assets, "$BUNDLES/$name", staged)
            folder.deleteRecursively()
            staged.renameTo(folder)
        }
        folder
    }
}

private fun copy(assets: AssetManager, from: String, to: File) {
    val inside = assets.list(from).orEmpty()
    if (inside.isNotEmpty()) {
        to.mkdirs()
        for (name in inside) copy(assets, "$from/$name", File(to, name))
        return
    }
    try {
        assets.open(from).use { stream -> to.outputStream().use { stream.copyTo(it) } }
    } catch (error: FileNotFoundException) {
        to.mkdirs() // an empty folder
    }
}
