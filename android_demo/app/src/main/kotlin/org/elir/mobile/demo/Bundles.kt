/**
 * The bundles that the app can use: those built into it, and those that `elir_mobile.bundle push` put into its
 * folder.
 *
 * Runtimes map files into memory, so a built-in bundle is copied out of the package once, under a temporary name.
 */
package org.elir.mobile.demo

import android.content.Context
import android.content.res.AssetManager
import java.io.File
import java.io.FileNotFoundException
import org.elir.mobile.core.Bundle
import org.elir.mobile.core.BundleException
import org.elir.mobile.core.MANIFEST

private const val FOLDER = "bundles"

/** Bundles that can be used, and a sentence for each that cannot. */
class Found(val bundles: List<Bundle>, val problems: List<String>)

/** Where pushed bundles lie. */
fun pushedBundles(context: Context): File? = context.getExternalFilesDir(FOLDER)

/** Read and verify every bundle there is. */
fun findBundles(context: Context): Found {
    val pushed = pushedBundles(context)?.listFiles { file -> file.isDirectory && !file.name.startsWith(".") }
    val folders = unpackBuiltIn(context) + pushed.orEmpty().sorted()
    val bundles = mutableListOf<Bundle>()
    val problems = mutableListOf<String>()
    for (folder in folders) {
        try {
            val bundle = Bundle.read(folder)
            if (bundle.artifacts.any(PhoneRuntimes::knows)) bundles += bundle
            else problems += "${folder.name} has no file for Android: export it for executorch or litert"
        } catch (error: BundleException) {
            problems += error.message.orEmpty()
        }
    }
    if (folders.isEmpty()) problems += "No bundle is here: run python -m elir_mobile.bundle push BUNDLE --android"
    return Found(bundles, problems)
}

private fun unpackBuiltIn(context: Context): List<File> {
    val root = File(context.filesDir, FOLDER)
    return context.assets.list(FOLDER).orEmpty().map { name ->
        val folder = File(root, name)
        val manifest = context.assets.open("$FOLDER/$name/$MANIFEST").use { it.readBytes() }
        val unpacked = File(folder, MANIFEST)
        if (!unpacked.isFile || !unpacked.readBytes().contentEquals(manifest)) {
            val staged = File(root, ".$name")
            staged.deleteRecursively()
            copy(context.assets, "$FOLDER/$name", staged)
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
