/** What an app must know of each task beyond its bundle, as the table in `elir_mobile/tasks.py`. */
package org.elir.mobile.core

/**
 * One restoration task.
 *
 * @property upscale how many times larger the restored picture is than the given one.
 * @property enlarge how the given picture gets that large before it is restored.
 */
enum class Task(val id: String, val title: String, val upscale: Int = 1, val enlarge: Filter = Filter.NEAREST) {
    BFR("bfr", "blind face restoration"),
    SR("sr", "super-resolution ×8", upscale = 8),
    DENOISING("denoising", "denoising"),
    INPAINTING("inpainting", "inpainting of scattered pixels"),
    BSR("bsr", "blind super-resolution ×4", upscale = 4, enlarge = Filter.BICUBIC),
    COLORIZATION("colorization", "colorization of noisy grey images"),
    MASK("mask", "inpainting of a box");

    companion object {
        /** The task that a manifest calls [id], or null. */
        fun of(id: String): Task? = entries.find { it.id == id }
    }
}
