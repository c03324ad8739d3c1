/**
 * Keeps the app's process and its processor at work when the app is left: a foreground service with a notification that
 * shows how far the work is and cancels it.
 *
 * Its type is `mediaProcessing` from Android 15 on, which is made for this, and `dataSync` before. Android allows six hours of
 * it a day, and then ends it. The work itself is the [Session]'s; without this service it goes on as long as the app is seen.
 */
package org.elir.mobile.demo

import android.app.Notification
import android.app.NotificationChannel
import android.app.NotificationManager
import android.app.PendingIntent
import android.app.Service
import android.content.Context
import android.content.Intent
import android.os.Build
import android.os.IBinder
import android.os.PowerManager
import android.os.SystemClock

private const val CHANNEL = "work"
private const val NUMBER = 1 // of the notification
private const val CANCEL = "org.elir.mobile.demo.CANCEL"
private const val BETWEEN_MS = 500 // two notifications: the system drops those that come faster
private const val SIX_HOURS_MS = 6 * 3_600_000L

// Of later platforms: ServiceInfo.FOREGROUND_SERVICE_TYPE_…, PendingIntent.FLAG_IMMUTABLE,
// Notification.FOREGROUND_SERVICE_IMMEDIATE.
private const val DATA_SYNC = 1
private const val MEDIA_PROCESSING = 1 shl 13
private const val IMMUTABLE = 1 shl 26
private const val IMMEDIATE = 1

class WorkService : Service() {
    private val session by lazy { Session.of(this) }
    private lateinit var awake: PowerManager.WakeLock
    private var shown = 0L // milliseconds since the phone was started

    override fun onCreate() {
        super.onCreate()
        val power = getSystemService(Context.POWER_SERVICE) as PowerManager
        awake = power.newWakeLock(PowerManager.PARTIAL_WAKE_LOCK, "elir:work").apply { acquire(SIX_HOURS_MS) }
        addChannel(manager())
    }

    override fun onStartCommand(intent: Intent?, flags: Int, startId: Int): Int {
        if (intent?.action == CANCEL) session.cancel()
        if (session.progress == null) {
            stopSelf()
            return START_NOT_STICKY
        }
        try {
            show(this, notification())
        } catch (error: IllegalStateException) { // the six hours are over, or the app was left in the same moment
            session.say("Android lets no more work go on in the background today: leave the app open")
            stopSelf()
        }
        session.onWork = ::update
        return START_NOT_STICKY
    }

    /** What the work says changed. */
    private fun update() {
        if (session.progress == null) return stopSelf()
        val now = SystemClock.elapsedRealtime()
        if (now - shown < BETWEEN_MS) return
        shown = now
        renew(manager(), notification())
    }

    override fun onTimeout(startId: Int, fgsType: Int) {
        session.cancel()
        session.say("Android ended the work in the background after six hours: leave the app open")
        stopSelf()
    }

    override fun onDestroy() {
        session.onWork = {}
        if (awake.isHeld) awake.release()
        hide(this)
        super.onDestroy()
    }

    override fun onBind(intent: Intent?): IBinder? = null

    private fun manager() = getSystemService(Context.NOTIFICATION_SERVICE) as NotificationManager

    private fun addChannel(manager: NotificationManager) = manager.createNotificationChannel(
        NotificationChannel(CHANNEL, getString(R.string.work), NotificationManager.IMPORTANCE_LOW),
    )

    private fun notification(): Notification {
        // As the launcher has it: the window that is there comes to the front, not another above it.
        val start = Intent(this, MainActivity::class.java).setAction(Intent.ACTION_MAIN).addCategory(Intent.CATEGORY_LAUNCHER)
        val open = PendingIntent.getActivity(this, 0, start, IMMUTABLE)
        val cancel = PendingIntent.getService(this, 0, Intent(this, WorkService::class.java).setAction(CANCEL), IMMUTABLE)
        val left = session.secondsLeft?.let { getString(R.string.time_left, it) }.orEmpty()
        return Notification.Builder(this, CHANNEL)
            .setSmallIcon(R.drawable.working)
            .setContentTitle(session.message.lineSequence().first())
            .setContentText(left)
            .setProgress(1000, session.progress ?: 0, (session.progress ?: 0) == 0)
            .setOngoing(true)
            .setOnlyAlertOnce(true)
            .setContentIntent(open)
            .addAction(0, getString(R.string.cancel), cancel)
            .apply { if (Build.VERSION.SDK_INT >= 31) setForegroundServiceBehavior(IMMEDIATE) }
            .build()
    }

    companion object {
        /** Hold on to the process while the session works; the app must be seen, as it is where work is asked for. */
        fun start(context: Context) {
            try {
                context.startService(Intent(context, WorkService::class.java))
            } catch (error: IllegalStateException) {
                return // it is left already: a service may not start then
            }
        }
    }
}

// Typed as what the platform declares, so that the checks list what is called of it.
private fun show(service: Service, notification: Notification) = when {
    Build.VERSION.SDK_INT >= 35 -> service.startForeground(NUMBER, notification, MEDIA_PROCESSING)
    Build.VERSION.SDK_INT >= 29 -> service.startForeground(NUMBER, notification, DATA_SYNC)
    else -> service.startForeground(NUMBER, notification)
}

private fun hide(service: Service) = service.stopForeground(true)

private fun renew(manager: NotificationManager, notification: Notification) = manager.notify(NUMBER, notification)
