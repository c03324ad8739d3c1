/**
 * Before and after in one picture: a line to drag, the given picture left of it, the restored one right; and rings around
 * the faces, each switched off and on by a tap.
 *
 * For assistive technology it is a seek bar; arrow keys move the line, too. Only what moves sideways is taken for a drag,
 * so that a screen around it can scroll.
 */
package org.elir.mobile.demo

import android.content.Context
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Paint
import android.graphics.RectF
import android.os.Bundle
import android.util.AttributeSet
import android.view.KeyEvent
import android.view.MotionEvent
import android.view.View
import android.view.ViewConfiguration
import android.view.accessibility.AccessibilityEvent
import android.view.accessibility.AccessibilityNodeInfo
import android.widget.SeekBar
import kotlin.math.abs

private const val STEP = 0.1f // that a key or an action moves the line, of the width

/** A face's box in a picture of [width] pixels, and whether it is restored. */
data class Ring(val box: RectF, val width: Int, val on: Boolean)

class SliderView(context: Context, attributes: AttributeSet?) : View(context, attributes) {
    /** Told the number of a ring that is tapped. */
    var onRing: (Int) -> Unit = {}

    private var before: Bitmap? = null
    private var after: Bitmap? = null
    private var rings: List<Ring> = emptyList()
    private var part = 0.5f // of the width that shows the given picture
    private var down = 0f to 0f
    private var drags = false
    private val slop = ViewConfiguration.get(context).scaledTouchSlop
    private val smooth = Paint(Paint.FILTER_BITMAP_FLAG)
    private val line = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        color = Color.WHITE
        strokeWidth = 2 * resources.displayMetrics.density
        setShadowLayer(strokeWidth, 0f, 0f, Color.BLACK)
    }
    private val ring = Paint(line).apply { style = Paint.Style.STROKE }
    private val handle = 10 * resources.displayMetrics.density

    init {
        setLayerType(LAYER_TYPE_SOFTWARE, null) // shadows of lines are drawn in software only
        isFocusable = true
    }

    /** Show [before] alone, or both of them; they have one aspect ratio. */
    fun show(before: Bitmap?, after: Bitmap?, rings: List<Ring>) {
        if (this.before === before && this.after === after && this.rings == rings) return
        this.before = before
        this.after = after
        this.rings = rings
        invalidate()
    }

    override fun onDraw(canvas: Canvas) {
        val given = before ?: return
        val frame = frame(given)
        canvas.drawBitmap(given, null, frame, smooth)
        after?.let { drawAfter(canvas, it, frame) }
        for (shown in rings) {
            ring.alpha = if (shown.on) 255 else 90
            canvas.drawOval(placed(shown, frame), ring)
        }
    }

    private fun drawAfter(canvas: Canvas, restored: Bitmap, frame: RectF) {
        val x = frame.left + part * frame.width()
        canvas.save()
        canvas.clipRect(x, frame.top, frame.right, frame.bottom)
        canvas.drawBitmap(restored, null, frame, smooth)
        canvas.restore()
        canvas.drawLine(x, frame.top, x, frame.bottom, line)
        canvas.drawCircle(x, frame.centerY(), handle, line)
    }

    override fun onTouchEvent(event: MotionEvent): Boolean {
        val frame = frame(before ?: return false)
        when (event.action) {
            MotionEvent.ACTION_DOWN -> {
                down = event.x to event.y
                drags = false
            }
            MotionEvent.ACTION_MOVE -> {
                if (!drags && abs(event.x - down.first) > slop) {
                    drags = true
                    parent.requestDisallowInterceptTouchEvent(true)
                }
                if (drags) move((event.x - frame.left) / frame.width())
            }
            MotionEvent.ACTION_UP -> {
                if (!drags) tap(event.x, event.y, frame)
                performClick()
            }
        }
        return true
    }

    private fun tap(x: Float, y: Float, frame: RectF) {
        val number = rings.indexOfFirst { placed(it, frame).contains(x, y) }
        if (number >= 0) onRing(number) else move((x - frame.left) / frame.width())
    }

    private fun move(to: Float) {
        part = to.coerceIn(0f, 1f)
        invalidate()
        sendAccessibilityEvent(AccessibilityEvent.TYPE_VIEW_SELECTED)
    }

    override fun performClick(): Boolean {
        super.performClick()
        return true
    }

    override fun onKeyDown(key: Int, event: KeyEvent): Boolean = when (key) {
        KeyEvent.KEYCODE_DPAD_LEFT -> true.also { move(part - STEP) }
        KeyEvent.KEYCODE_DPAD_RIGHT -> true.also { move(part + STEP) }
        else -> super.onKeyDown(key, event)
    }

    override fun onInitializeAccessibilityNodeInfo(info: AccessibilityNodeInfo) {
        super.onInitializeAccessibilityNodeInfo(info)
        info.className = SeekBar::class.java.name
        if (after == null) return
        info.addAction(AccessibilityNodeInfo.AccessibilityAction.ACTION_SCROLL_FORWARD)
        info.addAction(AccessibilityNodeInfo.AccessibilityAction.ACTION_SCROLL_BACKWARD)
        val percent = AccessibilityNodeInfo.RangeInfo.RANGE_TYPE_PERCENT
        info.rangeInfo = AccessibilityNodeInfo.RangeInfo.obtain(percent, 0f, 100f, part * 100)
    }

    override fun performAccessibilityAction(action: Int, arguments: Bundle?): Boolean {
        when (action) {
            AccessibilityNodeInfo.ACTION_SCROLL_FORWARD -> move(part + STEP)
            AccessibilityNodeInfo.ACTION_SCROLL_BACKWARD -> move(part - STEP)
            else -> return super.performAccessibilityAction(action, arguments)
        }
        return true
    }

    private fun placed(shown: Ring, frame: RectF): RectF {
        val scale = frame.width() / shown.width
        return RectF(
            frame.left + shown.box.left * scale,
            frame.top + shown.box.top * scale,
            frame.left + shown.box.right * scale,
            frame.top + shown.box.bottom * scale,
        )
    }

    private fun frame(bitmap: Bitmap): RectF {
        val scale = minOf(width.toFloat() / bitmap.width, height.toFloat() / bitmap.height)
        val left = (width - bitmap.width * scale) / 2
        val top = (height - bitmap.height * scale) / 2
        return RectF(left, top, left + bitmap.width * scale, top + bitmap.height * scale)
    }
}
