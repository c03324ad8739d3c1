package com.facebook.jni;

import com.facebook.soloader.nativeloader.NativeLoader;
import java.lang.ref.PhantomReference;
import java.lang.ref.ReferenceQueue;
import java.util.Collections;
import java.util.HashSet;
import java.util.Set;

/**
 * Holds the C++ half of a Java object, by the names that libfbjni.so looks up.
 *
 * <p>The C++ object is deleted by {@link #resetNative} or, if nobody calls it, after the garbage
 * collector has found this object unreachable.
 */
public class HybridData {
  static {
    NativeLoader.loadLibrary("fbjni");
  }

  private final Destructor mDestructor = new Destructor(this);

  public synchronized void resetNative() {
    mDestructor.destruct();
  }

  public boolean isValid() {
    return mDestructor.mNativePointer != 0;
  }

  /** Owns the pointer; outlives its {@link HybridData} by design. */
  public static class Destructor extends PhantomReference<Object> {
    private static final ReferenceQueue<Object> QUEUE = new ReferenceQueue<>();
    private static final Set<Destructor> ALIVE = Collections.synchronizedSet(new HashSet<Destructor>());

    static {
      Thread thread =
          new Thread("HybridData destructor") {
            @Override
            public void run() {
              while (true) {
                try {
                  ((Destructor) QUEUE.remove()).destruct();
                } catch (InterruptedException e) {
                  // Nobody stops this thread.
                }
              }
            }
          };
      thread.setDaemon(true);
      thread.start();
    }

    private volatile long mNativePointer; // set by libfbjni.so

    Destructor(Object referent) {
      super(referent, QUEUE);
      ALIVE.add(this);
    }

    synchronized void destruct() {
      ALIVE.remove(this);
      deleteNative(mNativePointer);
      mNativePointer = 0;
    }

    static native void deleteNative(long pointer);
  }
}
