/**
 * Runs a job file without a screen, for the harness:
 * `adb shell am instrument -w -e job JOB -e result RESULT org.elir.mobile.demo/.JobInstrumentation`.
 *
 * Both paths lie in the app's own folder, `/sdcard/Android/data/org.elir.mobile.demo/files/`. Ends with -1 (OK) once
 * the result file is written, else with 0 and the reason in `error`.
 */
package org.elir.mobile.demo

import android.app.Activity
import android.app.Instrumentation
import android.os.Bundle
import java.io.File
import java.io.IOException
import org.elir.mobile.core.Job
import org.elir.mobile.core.JobException
import org.elir.mobile.core.runJob
import org.elir.mobile.core.writeWhole
import org.elir.mobile.runtimes.PhoneRuntimes

class JobInstrumentation : Instrumentation() {
    private lateinit var arguments: Bundle

    override fun onCreate(arguments: Bundle) {
        super.onCreate(arguments)
        this.arguments = arguments
        start()
    }

    override fun onStart() {
        super.onStart()
        val problem = run()
        val said = Bundle().apply { problem?.let { putString("error", it) } }
        finish(if (problem == null) Activity.RESULT_OK else Activity.RESULT_CANCELED, said)
    }

    private fun run(): String? {
        val job = arguments.getString("job") ?: return "no job: give -e job PATH"
        val result = arguments.getString("result") ?: return "no result: give -e result PATH"
        return try {
            val done = runJob(Job.read(File(job)), PhoneRuntimes, deviceFacts(targetContext)) { path ->
                sendStatus(0, Bundle().apply { putString("running", path) })
            }
            writeWhole(File(result), done.toString(1) + "\n")
            null
        } catch (error: JobException) {
            error.message
        } catch (error: IOException) {
            "$result cannot be written (${error.message}): use the app's own folder"
        }
    }
}
