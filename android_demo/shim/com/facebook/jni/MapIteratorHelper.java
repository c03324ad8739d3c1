package com.facebook.jni;

import java.util.Iterator;
import java.util.Map;

/** Walks a map for libfbjni.so, which reads the two fields. */
public class MapIteratorHelper {
  private final Iterator<? extends Map.Entry<?, ?>> mIterator;
  private Object mKey;
  private Object mValue;

  public MapIteratorHelper(Map<?, ?> map) {
    mIterator = map.entrySet().iterator();
  }

  boolean hasNext() {
    boolean more = mIterator.hasNext();
    Map.Entry<?, ?> entry = more ? mIterator.next() : null;
    mKey = more ? entry.getKey() : null;
    mValue = more ? entry.getValue() : null;
    return more;
  }
}
