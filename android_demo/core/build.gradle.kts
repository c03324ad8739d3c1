plugins {
    kotlin("jvm")
    `maven-publish`
}

kotlin {
    compilerOptions {
        jvmTarget = org.jetbrains.kotlin.gradle.dsl.JvmTarget.JVM_11
    }
}

java {
    sourceCompatibility = JavaVersion.VERSION_11
    targetCompatibility = JavaVersion.VERSION_11
}

dependencies {
    compileOnly("org.json:json:20240303") // Android has its own
    testImplementation("org.json:json:20240303")
    testImplementation("junit:junit:4.13.2")
}

tasks.test {
    // Written by: python -m tests.app_fixtures out/app-fixtures
    systemProperty("elir.fixtures", rootDir.resolve("../out/app-fixtures").path)
}

publishing.publications.register<MavenPublication>("core") {
    artifactId = "elir-core"
    from(components["java"])
}
