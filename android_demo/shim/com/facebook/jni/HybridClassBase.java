package com.facebook.jni;

/** A Java object that is its own {@link HybridData}; libfbjni.so looks the class up. */
public abstract class HybridClassBase extends HybridData {}
