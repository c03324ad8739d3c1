/**
 * The part of ExecuTorch 1.4.1's Android API that the app calls, without anything behind it.
 *
 * `org.pytorch:executorch-android` cannot be had everywhere that the app is compiled, and the package that the build
 * without Gradle packs has older classes, written in Java. So the app is type-checked against this file, too: the
 * signatures of version 1.4.1 as its sources under `extension/android/executorch_android` declare them, with all
 * overloads of what is called. None of it is packed.
 */
@file:Suppress("UNUSED_PARAMETER", "unused")

package org.pytorch.executorch

import java.io.Closeable
import java.nio.ByteBuffer
import java.nio.DoubleBuffer
import java.nio.FloatBuffer
import java.nio.IntBuffer
import java.nio.LongBuffer
import java.nio.ShortBuffer

private fun absent(): Nothing = throw UnsatisfiedLinkError("compiled without ExecuTorch")

open class Module private constructor() : Closeable {
    open fun execute(methodName: String, vararg inputs: EValue): Array<EValue> = absent()

    open fun loadMethod(methodName: String): Unit = absent()

    open fun getMethods(): Array<String> = absent()

    open fun destroy(): Unit = absent()

    override fun close(): Unit = absent()

    companion object {
        const val LOAD_MODE_FILE = 0
        const val LOAD_MODE_MMAP = 1

        @JvmStatic
        @JvmOverloads
        fun load(modelPath: String?, loadMode: Int = LOAD_MODE_FILE, numThreads: Int = 0): Module = absent()
    }
}

class EValue private constructor() {
    fun toTensor(): Tensor = absent()

    companion object {
        @JvmStatic fun from(tensor: Tensor): EValue = absent()

        @JvmStatic fun from(value: Boolean): EValue = absent()

        @JvmStatic fun from(value: Long): EValue = absent()

        @JvmStatic fun from(value: Double): EValue = absent()

        @JvmStatic fun from(value: String): EValue = absent()
    }
}

abstract class Tensor internal constructor() {
    open val dataAsFloatArray: FloatArray get() = absent()

    companion object {
        @JvmStatic fun fromBlob(data: ByteArray, shape: LongArray): Tensor = absent()

        @JvmStatic fun fromBlob(data: IntArray, shape: LongArray): Tensor = absent()

        @JvmStatic fun fromBlob(data: FloatArray, shape: LongArray): Tensor = absent()

        @JvmStatic fun fromBlob(data: ShortArray, shape: LongArray): Tensor = absent()

        @JvmStatic fun fromBlob(data: LongArray, shape: LongArray): Tensor = absent()

        @JvmStatic fun fromBlob(data: DoubleArray, shape: LongArray): Tensor = absent()

        @JvmStatic fun fromBlob(data: ByteBuffer, shape: LongArray): Tensor = absent()

        @JvmStatic fun fromBlob(data: IntBuffer, shape: LongArray): Tensor = absent()

        @JvmStatic fun fromBlob(data: FloatBuffer, shape: LongArray): Tensor = absent()

        @JvmStatic fun fromBlob(data: ShortBuffer, shape: LongArray): Tensor = absent()

        @JvmStatic fun fromBlob(data: LongBuffer, shape: LongArray): Tensor = absent()

        @JvmStatic fun fromBlob(data: DoubleBuffer, shape: LongArray): Tensor = absent()
    }
}
