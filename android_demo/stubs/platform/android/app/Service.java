package android.app;

import android.content.ContextWrapper;
import android.content.Intent;
import android.os.IBinder;

/** What the app calls of this class as of API 35; see {@link android.view.WindowInsets}. */
public abstract class Service extends ContextWrapper {
  public static final int START_NOT_STICKY = 2;

  public Service() {
    super(null);
  }

  public native void onCreate();

  public native int onStartCommand(Intent intent, int flags, int startId);

  public native void onDestroy();

  public abstract IBinder onBind(Intent intent);

  public native void onTimeout(int startId, int fgsType);

  public final native void startForeground(int id, Notification notification);

  public final native void startForeground(int id, Notification notification, int foregroundServiceType);

  public final native void stopForeground(boolean removeNotification);

  public final native void stopSelf();
}
