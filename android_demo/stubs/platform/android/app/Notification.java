package android.app;

import android.content.Context;

/** What the app calls of this class as of API 31; see {@link android.view.WindowInsets}. */
public class Notification {
  /** Makes one. */
  public static class Builder {
    public Builder(Context context, String channelId) {}

    public native Builder setSmallIcon(int icon);

    public native Builder setContentTitle(CharSequence title);

    public native Builder setContentText(CharSequence text);

    public native Builder setProgress(int max, int progress, boolean indeterminate);

    public native Builder setOngoing(boolean ongoing);

    public native Builder setOnlyAlertOnce(boolean onlyAlertOnce);

    public native Builder setContentIntent(PendingIntent intent);

    public native Builder addAction(int icon, CharSequence title, PendingIntent intent);

    public native Builder setForegroundServiceBehavior(int behavior);

    public native Notification build();
  }
}
