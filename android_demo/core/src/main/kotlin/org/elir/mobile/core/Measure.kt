/**
 * Fidelity and latency: SQNR and PSNR in dB, median and 90th percentile, as the Python harness has them
 * (`elir_mobile/metrics/fidelity.py`, `harness/protocol.py`, `harness/compare.py:golden_parity`).
 */
package org.elir.mobile.core

import kotlin.math.log10

/** `10·log10(Σref² / Σ(ref - out)²)` in dB; infinite where the two are equal. */
fun sqnrDb(reference: FloatArray, out: FloatArray): Double {
    val signal = reference.sumOf { it.toDouble() * it }
    return 10 * log10(signal / squaredError(reference, out))
}

/** Peak signal-to-noise ratio in dB of values in [0, 1]; infinite where the two are equal. */
fun psnrDb(reference: FloatArray, out: FloatArray): Double =
    -10 * log10(squaredError(reference, out) / reference.size)

private fun squaredError(reference: FloatArray, out: FloatArray): Double {
    require(reference.size == out.size) { "${out.size} values are held against ${reference.size}" }
    return reference.indices.sumOf { (reference[it].toDouble() - out[it]).let { error -> error * error } }
}

/** Runs in milliseconds with their [median] and 90th percentile [p90]. */
class Latency(val runs: List<Double>) {
    private val sorted = runs.sorted()
    val median: Double get() = percentile(0.5)
    val p90: Double get() = percentile(0.9)

    /** Linear between the two nearest runs, as NumPy's default. */
    private fun percentile(part: Double): Double {
        val at = part * (sorted.size - 1)
        val below = at.toInt()
        val above = minOf(below + 1, sorted.size - 1)
        return sorted[below] + (sorted[above] - sorted[below]) * (at - below)
    }
}

/** How a file is timed: whole restorations of the golden input, [warmup] of them not counted. */
class Protocol(val warmup: Int = 3, val runs: Int = 20)

/** Latency of each program, of one step, and of the whole; [firstMs] is the very first restoration. */
class Timing(val programs: Map<String, Latency>, val total: Latency, val firstMs: Double)

/** Time [programs] on the golden vectors of [bundle]; [nanoTime] is the clock. */
fun measure(
    bundle: Bundle,
    programs: Programs,
    protocol: Protocol,
    nanoTime: () -> Long = System::nanoTime,
    progress: Progress = { _, _ -> },
): Timing {
    val image = bundle.golden("input")
    val noise = bundle.golden("noise")
    val timed = TimedPrograms(programs, nanoTime)
    val names = listOf("encode", "step", "decode")
    val runs = names.associateWith { mutableListOf<Double>() }
    val totals = mutableListOf<Double>()
    var first = 0.0
    for (run in 0 until protocol.warmup + protocol.runs) {
        timed.spent.clear()
        sample(timed, image, noise, bundle.table, bundle.sigmaS)
        val whole = timed.spent.values.sum()
        if (run == 0) first = whole
        if (run >= protocol.warmup) {
            totals += whole
            for (name in names) {
                val calls = if (name == "step") bundle.steps else 1
                runs.getValue(name) += timed.spent.getValue(name) / calls
            }
        }
        progress(run + 1, protocol.warmup + protocol.runs)
    }
    return Timing(runs.mapValues { Latency(it.value) }, Latency(totals), first)
}

private class TimedPrograms(private val programs: Programs, private val nanoTime: () -> Long) : Programs {
    val spent = mutableMapOf<String, Double>() // milliseconds by program

    override fun encode(image: FloatArray) = timed("encode") { programs.encode(image) }

    override fun step(latent: FloatArray, row: FloatArray) = timed("step") { programs.step(latent, row) }

    override fun decode(latent: FloatArray) = timed("decode") { programs.decode(latent) }

    override fun close() = programs.close()

    private fun timed(name: String, run: () -> FloatArray): FloatArray {
        val start = nanoTime()
        val out = run()
        spent[name] = (spent[name] ?: 0.0) + (nanoTime() - start) / 1e6
        return out
    }
}

/** What a file makes of the golden vectors: each output, and how far it is from the float network's in dB. */
class Parity(val outputs: Map<String, FloatArray>, val decibels: Map<String, Double>) {
    /** Whether [name] is within [budget]. Not a number never is. */
    fun holds(name: String, budget: Budget): Boolean = decibels.getValue(name) >= budget.budgetDb
}

/** What [programs] give that misses [budgets], on the golden vectors of [bundle]; empty: nothing. */
fun shortOf(bundle: Bundle, programs: Programs, budgets: Map<String, Budget>): String {
    if (budgets.isEmpty() || !bundle.hasGolden) return "the bundle has nothing to hold it against"
    val parity = goldenParity(bundle, programs)
    return budgets.filterNot { (name, budget) -> parity.holds(name, budget) }.entries.joinToString { (name, budget) ->
        "%s reaches %.1f dB of %.1f".format(name, parity.decibels.getValue(name), budget.budgetDb)
    }
}

/** Hold [programs] against the golden vectors of [bundle]: SQNR of `encode` and `step`, else PSNR. */
fun goldenParity(bundle: Bundle, programs: Programs): Parity {
    val input = bundle.golden("input")
    val noise = bundle.golden("noise")
    val coarse = bundle.golden("coarse")
    val picture = bundle.golden("output")
    val outputs = mapOf(
        "encode" to programs.encode(input),
        "step" to programs.step(noised(coarse, noise, bundle.sigmaS), bundle.table[0]),
        "decode" to programs.decode(bundle.golden("latent")),
        "image" to sample(programs, input, noise, bundle.table, bundle.sigmaS).image,
    )
    val decibels = outputs.mapValues { (name, out) ->
        when (name) {
            "encode" -> sqnrDb(coarse, out)
            "step" -> sqnrDb(bundle.golden("step"), out)
            else -> psnrDb(picture, out)
        }
    }
    return Parity(outputs, decibels)
}
