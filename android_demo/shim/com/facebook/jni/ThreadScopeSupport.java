package com.facebook.jni;

import com.facebook.soloader.nativeloader.NativeLoader;

/** A Java frame below native threads, so that they find the app's classes. */
public class ThreadScopeSupport {
  static {
    NativeLoader.loadLibrary("fbjni");
  }

  private static void runStdFunction(long pointer) {
    runStdFunctionImpl(pointer);
  }

  private static native void runStdFunctionImpl(long pointer);
}
