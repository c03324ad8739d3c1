plugins {
    id("com.android.application")
}

val executorchVersion = "1.4.1"
val litertVersion = "2.2.0"

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
    implementation(project(":core"))
    implementation("org.pytorch:executorch-android:$executorchVersion")
    // The GPU's library is inside up to 2.2; from 2.3 on it is the artifact litert-gpu.
    implementation("com.google.ai.edge.litert:litert:$litertVersion")
}
