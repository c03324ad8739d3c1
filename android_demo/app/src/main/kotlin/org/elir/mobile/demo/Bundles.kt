/** The bundles that the app can use: those built into it, and those that `elir_mobile.bundle push` put into its folder. */
package org.elir.mobile.demo

import android.content.Context
import java.io.File
import org.elir.mobile.core.Bundle
import org.elir.mobile.core.BundleException
import org.elir.mobile.runtimes.BUNDLES
import org.elir.mobile.runtimes.PhoneRuntimes
import org.elir.mobile.runtimes.builtInBundles

/** Bundles that can be used, and a sentence for each that cannot. */
class Found(val bundles: List<Bundle>, val problems: List<String>)

/** Where pushed bundles lie. */
fun pushedBundles(context: Context): File? = context.getExternalFilesDir(BUNDLES)

/** Read and verify every bundle there is. */
fun findBundles(context: Context): Found {
    val pushed = pushedBundles(context)?.listFiles { file -> file.isDirectory && !file.name.startsWith(".") }
    val folders = builtInBundles(context) + pushed.orEmpty().sorted()
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
