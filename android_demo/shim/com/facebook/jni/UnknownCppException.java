package com.facebook.jni;

/** Something that C++ code threw and that is no std::exception; thrown by libfbjni.so. */
public class UnknownCppException extends CppException {
  public UnknownCppException() {
    super("Unknown");
  }

  public UnknownCppException(String message) {
    super(message);
  }
}
