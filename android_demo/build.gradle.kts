// AGP 9.3 needs Gradle 9.5 (gradle/wrapper), build tools 36 and JDK 17, and compiles Kotlin itself, with the version of
// the Kotlin plugin that is named here; Kotlin 2.4 needs AGP 8.5.2 or later.
plugins {
    id("com.android.application") version "9.3.0" apply false
    id("com.android.library") version "9.3.0" apply false
    kotlin("jvm") version "2.4.20" apply false
}

// What other apps take: gradle publishToMavenLocal (docs/integrate.md).
subprojects {
    group = "org.elir.mobile"
    version = "0.1.0"
}
