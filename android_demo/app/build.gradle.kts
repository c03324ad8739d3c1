plugins {
    id("com.android.application")
}

// Those of the module runtimes, to be shown.
val executorchVersion = "1.4.1"
val litertVersion = "2.2.0"
val onnxVersion = "1.32.0"
val qnnVersion = "2.7.0"
val withOnnx = providers.gradleProperty("elir.onnx").isPresent

android {
    namespace = "org.elir.mobile.demo"
    compileSdk = 36

    defaultConfig {
        applicationId = "org.elir.mobile.demo"
        minSdk = 26
        targetSdk = 36
        versionCode = 1
        versionName = "0.1.0"
        ndk { abiFilters += "arm64-v8a" }
        resValue("string", "executorch_version", executorchVersion)
        resValue("string", "litert_version", litertVersion)
        resValue("string", "onnx_version", if (withOnnx) "$onnxVersion, QNN $qnnVersion" else "not in this build")
    }

    buildFeatures { resValues = true }

    androidResources { noCompress += listOf("pte", "tflite") }

    packaging { jniLibs { useLegacyPackaging = true } }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
}

dependencies {
    implementation(project(":runtimes"))
    // ONNX Runtime and Qualcomm's plugin for a Snapdragon's NPU: gradle -Pelir.onnx=VERSION assembleDebug. The VERSION is
    // that of the libraries that the plugin calls.
    if (withOnnx) {
        implementation("com.microsoft.onnxruntime:onnxruntime-android:$onnxVersion")
        implementation("com.qualcomm.qti:onnxruntime-android-qnn:$qnnVersion")
        implementation("com.qualcomm.qti:qnn-runtime:${providers.gradleProperty("elir.onnx").get()}")
    }
}
