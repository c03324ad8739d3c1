plugins {
    id("com.android.library")
    `maven-publish`
}

val executorchVersion = "1.4.1"
val litertVersion = "2.2.0"
val onnxVersion = "1.32.0"
val qnnVersion = "2.7.0"

android {
    namespace = "org.elir.mobile.runtimes"
    compileSdk = 36

    defaultConfig { minSdk = 26 }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }

    publishing { singleVariant("release") }
}

dependencies {
    api(project(":core"))
    implementation("org.pytorch:executorch-android:$executorchVersion")
    // The GPU's library is inside up to 2.2; from 2.3 on it is the artifact litert-gpu.
    implementation("com.google.ai.edge.litert:litert:$litertVersion")
    // For the files of a Snapdragon's NPU; an app takes them in by -Pelir.onnx (app/build.gradle.kts).
    compileOnly("com.microsoft.onnxruntime:onnxruntime-android:$onnxVersion")
    compileOnly("com.qualcomm.qti:onnxruntime-android-qnn:$qnnVersion")
}

publishing.publications.register<MavenPublication>("release") {
    artifactId = "elir-runtimes"
    afterEvaluate { from(components["release"]) }
}
