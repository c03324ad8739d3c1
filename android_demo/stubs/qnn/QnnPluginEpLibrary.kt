/**
 * The part of onnxruntime-android-qnn 2.7.0 that the app calls, Qualcomm's plugin for ONNX Runtime: the signatures of
 * `java/src/main/qnnpluginep` in about 2.6, since no later ones could be read. The file must be called as theirs is.
 */
package ai.onnxruntime.qnnpluginep

private fun absent(): Nothing = throw UnsatisfiedLinkError("compiled without QNN")

fun getLibraryPath(): String = absent()

fun getEpName(): String = absent()
