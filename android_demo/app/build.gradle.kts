plugins {
    id("com.android.application")
}

// Those of the module runtimes, to be shown.
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
    implementation(project(":runtimes"))
}
