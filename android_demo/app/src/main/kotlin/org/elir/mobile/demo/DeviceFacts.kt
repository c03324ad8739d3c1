/** What a latency depends on and a report must say: phone, processor, memory, heat. */
package org.elir.mobile.demo

import android.app.ActivityManager
import android.content.Context
import android.os.Build
import android.os.PowerManager
import java.io.File
import org.elir.mobile.core.Artifact
import org.elir.mobile.core.Bundle
import org.elir.mobile.core.COLOURS
import org.json.JSONObject

private const val MIB = 1 shl 20
private val THERMAL = listOf("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")

/** Threads that the runtimes get: as many as most phones have fast cores. */
val THREADS: Int = minOf(4, Runtime.getRuntime().availableProcessors())

/** The `device` entry of a result file. */
fun deviceFacts(context: Context): JSONObject = JSONObject()
    .put("name", "${Build.MANUFACTURER} ${Build.MODEL}")
    .put("kind", "android")
    .put("system", "Android ${Build.VERSION.RELEASE} (API ${Build.VERSION.SDK_INT})")
    .put("arch", Build.SUPPORTED_ABIS.firstOrNull() ?: "unknown")
    .put("cpu", cpu())
    .put("emulated", Build.HARDWARE in listOf("goldfish", "ranchu"))
    .put(
        "runtimes",
        JSONObject()
            .put("executorch", context.getString(R.string.executorch_version))
            .put("litert", context.getString(R.string.litert_version))
            .put("onnx", context.getString(R.string.onnx_version)),
    )

/** [deviceFacts], memory and heat in lines of text. */
fun describeDevice(context: Context): String {
    val facts = deviceFacts(context)
    val memory = memory(context)
    return listOf(
        facts.getString("name"),
        facts.getString("system") + ", " + facts.getString("arch"),
        facts.getString("cpu"),
        "${Runtime.getRuntime().availableProcessors()} cores, $THREADS threads",
        "${memory.availMem / MIB} of ${memory.totalMem / MIB} MiB free",
        "thermal state: ${thermalState(context)}",
        facts.getJSONObject("runtimes").let { runtimes ->
            runtimes.keys().asSequence().joinToString { "$it ${runtimes.getString(it)}" }
        },
    ).joinToString("\n")
}

/** Name of the system-on-chip and the vector extensions that int8 kernels use. */
private fun cpu(): String {
    val soc = runCatching { Build::class.java.getField("SOC_MODEL").get(null) as String }.getOrNull() // Android 12 on
    val info = runCatching { File("/proc/cpuinfo").readLines() }.getOrDefault(emptyList())
    val features = info.firstOrNull { it.startsWith("Features") }?.substringAfter(':')?.split(' ').orEmpty()
    val vector = features.filter { it in listOf("asimd", "asimddp", "asimdhp", "i8mm", "sve", "sve2", "sme") }
    return listOf(soc ?: Build.HARDWARE, vector.joinToString(" ")).filter(String::isNotEmpty).joinToString(", ")
}

/** The system's word for how hot the phone is; "unknown" before Android 10. */
fun thermalState(context: Context): String = runCatching {
    val power = context.getSystemService(Context.POWER_SERVICE) as PowerManager
    THERMAL[PowerManager::class.java.getMethod("getCurrentThermalStatus").invoke(power) as Int]
}.getOrDefault("unknown")

private fun memory(context: Context) = ActivityManager.MemoryInfo().also {
    (context.getSystemService(Context.ACTIVITY_SERVICE) as ActivityManager).getMemoryInfo(it)
}

/**
 * What speaks against loading [artifact] now, or null.
 *
 * A runtime keeps the weights once as they are and once packed for its kernels; its activations come on top.
 */
fun tooLittleMemoryFor(context: Context, bundle: Bundle, artifact: Artifact): String? {
    val memory = memory(context)
    val needed = 2 * artifact.bytes + 64L * COLOURS * bundle.size * bundle.size
    if (!memory.lowMemory && memory.availMem > needed) return null
    return "Not enough memory: ${artifact.path} needs about ${needed / MIB} MiB and ${memory.availMem / MIB} are free. " +
        "Close other apps or choose a smaller precision."
}

/**
 * Pixels of the largest picture that this app's heap can restore.
 *
 * A pixel takes 3 bytes in the given picture, 3 in the one restored last and 3 in the one being restored, 1 of noise
 * and about 1 in the rows of tiles being blended; a third of the heap stays free.
 */
fun largestPicture(): Long = Runtime.getRuntime().maxMemory() * 2 / 3 / 11
