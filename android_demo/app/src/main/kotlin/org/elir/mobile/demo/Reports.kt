/** The tables of the Parity and the Benchmark screen. */
package org.elir.mobile.demo

import android.content.Context
import android.graphics.Typeface
import android.view.Gravity
import android.widget.TableLayout
import android.widget.TableRow
import android.widget.TextView
import org.elir.mobile.core.Latency

private val PARTS = listOf("encode", "step", "decode", "image")

/** A row for each file and each of its outputs, green where the budget holds and red where not. */
fun fillParity(table: TableLayout, checked: List<Checked>) {
    table.removeAllViews()
    for (file in checked) {
        heading(table, "${file.artifact.target} ${file.artifact.precision}")
        if (file.parity == null) {
            row(table, R.color.fails, file.problem.orEmpty())
            continue
        }
        row(table, R.color.neutral, "", "here dB", "host dB", "budget", "")
        for (name in PARTS) {
            val budget = file.artifact.parity[name] ?: continue
            val holds = file.parity.holds(name, budget)
            row(
                table,
                if (holds) R.color.holds else R.color.fails,
                name,
                decibels(file.parity.decibels.getValue(name)),
                decibels(budget.hostDb ?: Double.POSITIVE_INFINITY),
                decibels(budget.budgetDb),
                if (holds) "holds" else "FAILS",
            )
        }
    }
}

/** Median and 90th percentile of each program. */
fun fillBenchmark(table: TableLayout, benchmark: Benchmark?) {
    table.removeAllViews()
    if (benchmark == null) return
    heading(table, "${benchmark.artifact.target} ${benchmark.artifact.precision}")
    row(table, R.color.neutral, "", "median ms", "p90 ms")
    for ((name, latency) in benchmark.timing.programs + ("total" to benchmark.timing.total)) row(table, name, latency)
    row(table, R.color.neutral, "load", milliseconds(benchmark.loadMs), "")
    row(table, R.color.neutral, "first", milliseconds(benchmark.timing.firstMs), "")
    row(table, R.color.neutral, "heat: ${benchmark.thermal}")
}

private fun row(table: TableLayout, name: String, latency: Latency) =
    row(table, R.color.neutral, name, milliseconds(latency.median), milliseconds(latency.p90))

private fun decibels(value: Double) = when {
    value.isNaN() -> "not run"
    value.isInfinite() -> "exact"
    else -> "%.1f".format(value)
}

private fun milliseconds(value: Double) = "%.1f".format(value)

private fun heading(table: TableLayout, text: String) {
    val view = cell(table.context, text, R.color.neutral)
    view.typeface = Typeface.DEFAULT_BOLD
    table.addView(view)
}

private fun row(table: TableLayout, colour: Int, vararg texts: String) {
    val row = TableRow(table.context)
    texts.forEachIndexed { column, text ->
        val view = cell(table.context, text, colour)
        if (column > 0) view.gravity = Gravity.END
        row.addView(view)
    }
    table.addView(if (texts.size == 1) cell(table.context, texts[0], colour) else row)
}

private fun cell(context: Context, text: String, colour: Int) = TextView(context).apply {
    this.text = text
    setTextColor(context.resources.getColor(colour, null))
    val space = (4 * resources.displayMetrics.density).toInt()
    setPadding(space, space, space, space)
}
