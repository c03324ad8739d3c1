package com.facebook.jni;

/** An exception of C++ code; thrown by libfbjni.so. */
public class CppException extends RuntimeException {
  public CppException(String message) {
    super(message);
  }
}
