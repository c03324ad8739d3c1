/**
 * The part of onnxruntime-android-qnn 2.7.0 that the app calls, Qualcomm's plugin for ONNX Runtime: declared as
 * `java/src/main/qnnpluginep` is in about 2.6; not compared with 2.7.0. The file must be called as theirs is.
 */
package ai.onnxruntime.qnnpluginep

private fun absent(): Nothing = throw UnsatisfiedLinkError("compiled without QNN")

fun getLibraryPath(): String = absent()

fun getEpName(): String = absent()
