/**
 * Before and after in one picture: a line to drag, the given picture left of it, the restored one right; and rings around
 * the faces, each switched off and on by a tap.
 *
 * Two fingers, two taps, the keys + and - and two actions of assistive technology zoom, for which it is a seek bar; arrow
 * keys move the line. Whose a touch is, is the core's to say (`Zoom.kt`), so that a screen around it can scroll.
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
import android.view.GestureDetector
import android.view.KeyEvent
import android.view.MotionEvent
import android.view.View
import android.view.ViewConfiguration
import android.view.accessibility.AccessibilityEvent
import android.view.accessibility.AccessibilityNodeInfo
import android.widget.SeekBar
import org.elir.mobile.core.Comparison
import org.elir.mobile.core.Gesture
import org.elir.mobile.core.Point

private const val ZOOM_STEP = 1.5
private const val STEP = 0.1 // that a key or an action moves the line, of the width

/** A face's box in a picture of [width] pixels, and whether it is restored. */
data class Ring(val box: RectF, val width: Int, val on: Boolean)

class SliderView(context: Context, attributes: AttributeSet?) : View(context, attributes) {
    /** Told the number of a ring that is tapped. */
    var onRing: (Int) -> Unit = {}

    private var before: Bitmap? = null
    private var after: Bitmap? = null
    private var rings: List<Ring> = emptyList()
    private val smooth = Paint(Paint.FILTER_BITMAP_FLAG)
    private val line = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        color = Color.WHITE
        strokeWidth = 2 * resources.displayMetrics.density
        setShadowLayer(strokeWidth, 0f, 0f, Color.BLACK)
    }
    private val ring = Paint(line).apply { style = Paint.Style.STROKE }
    private val handle = 10 * resources.displayMetrics.density
    private val comparison = Comparison(ViewConfiguration.get(context).scaledTouchSlop.toDouble(), 2.4 * handle)
    private val taps = GestureDetector(context, object : GestureDetector.SimpleOnGestureListener() {
        override fun onSingleTapConfirmed(event: MotionEvent): Boolean {
            tap(event.x, event.y)
            return true
        }

        override fun onDoubleTap(event: MotionEvent): Boolean {
            comparison.doubleTapped(event.x.toDouble(), event.y.toDouble())
            invalidate()
            return true
        }
    })

    init {
        setLayerType(LAYER_TYPE_SOFTWARE, null) // shadows of lines are drawn in software only
        isFocusable = true
    }

    /** Show [before] alone, or both of them; they have one aspect ratio. */
    fun show(before: Bitmap?, after: Bitmap?, rings: List<Ring>) {
        if (this.before === before && this.after === after && this.rings == rings) return
        if (this.before?.width != before?.width || this.before?.height != before?.height) comparison.reset()
        this.before = before
        this.after = after
        comparison.compares = after != null
        before?.let { comparison.aspect = it.width.toDouble() / it.height }
        this.rings = rings
        invalidate()
    }

    override fun onDraw(canvas: Canvas) {
        val given = before ?: return
        val frame = frame()
        canvas.drawBitmap(given, null, frame, smooth)
        after?.let { drawAfter(canvas, it, frame) }
        for (shown in rings) {
            ring.alpha = if (shown.on) 255 else 90
            canvas.drawOval(placed(shown, frame), ring)
        }
    }

    private fun drawAfter(canvas: Canvas, restored: Bitmap, frame: RectF) {
        val x = comparison.line.toFloat()
        canvas.save()
        canvas.clipRect(x, frame.top, frame.right, frame.bottom)
        canvas.drawBitmap(restored, null, frame, smooth)
        canvas.restore()
        canvas.drawLine(x, maxOf(frame.top, 0f), x, minOf(frame.bottom, height.toFloat()), line)
        canvas.drawCircle(x, height / 2f, handle, line)
    }

    override fun onSizeChanged(width: Int, height: Int, oldWidth: Int, oldHeight: Int) {
        comparison.width = width.toDouble()
        comparison.height = height.toDouble()
    }

    override fun onTouchEvent(event: MotionEvent): Boolean {
        if (before == null) return false
        taps.onTouchEvent(event)
        when (event.actionMasked) {
            // What scrolls around asks before this view, and would take every finger that moves up or down.
            MotionEvent.ACTION_DOWN -> {
                comparison.down(event.x.toDouble(), event.y.toDouble())
                parent.requestDisallowInterceptTouchEvent(true)
            }
            MotionEvent.ACTION_POINTER_DOWN -> {
                comparison.fingers(fingers(event, -1))
                parent.requestDisallowInterceptTouchEvent(true)
            }
            MotionEvent.ACTION_POINTER_UP -> comparison.fingers(fingers(event, event.actionIndex))
            MotionEvent.ACTION_MOVE -> if (comparison.moved(fingers(event, -1))) {
                changed()
            } else if (comparison.gesture == Gesture.OTHERS) {
                parent.requestDisallowInterceptTouchEvent(false)
            }
            MotionEvent.ACTION_UP -> if (comparison.up()) performClick()
            MotionEvent.ACTION_CANCEL -> comparison.up()
        }
        return true
    }

    /** Where the first two fingers are, without the one that is going up. */
    private fun fingers(event: MotionEvent, without: Int) = (0 until event.pointerCount).filter { it != without }.take(2)
        .map { Point(event.getX(it).toDouble(), event.getY(it).toDouble()) }

    private fun tap(x: Float, y: Float) {
        val number = rings.indexOfFirst { placed(it, frame()).contains(x, y) }
        if (number >= 0) return onRing(number)
        comparison.tapped(x.toDouble())
        changed()
    }

    private fun move(to: Double) {
        comparison.moveLine(to)
        changed()
    }

    private fun zoom(factor: Double) {
        comparison.zoomed(factor)
        invalidate()
    }

    private fun changed() {
        invalidate()
        sendAccessibilityEvent(AccessibilityEvent.TYPE_VIEW_SELECTED)
    }

    override fun performClick(): Boolean {
        super.performClick()
        return true
    }

    override fun onKeyDown(key: Int, event: KeyEvent): Boolean = when (key) {
        KeyEvent.KEYCODE_DPAD_LEFT -> true.also { move(comparison.part - STEP) }
        KeyEvent.KEYCODE_DPAD_RIGHT -> true.also { move(comparison.part + STEP) }
        KeyEvent.KEYCODE_PLUS, KeyEvent.KEYCODE_EQUALS -> true.also { zoom(ZOOM_STEP) }
        KeyEvent.KEYCODE_MINUS -> true.also { zoom(1 / ZOOM_STEP) }
        else -> super.onKeyDown(key, event)
    }

    override fun onInitializeAccessibilityNodeInfo(info: AccessibilityNodeInfo) {
        super.onInitializeAccessibilityNodeInfo(info)
        info.className = SeekBar::class.java.name
        info.addAction(AccessibilityNodeInfo.AccessibilityAction(R.id.zoom_in, context.getString(R.string.zoom_in)))
        info.addAction(AccessibilityNodeInfo.AccessibilityAction(R.id.zoom_out, context.getString(R.string.zoom_out)))
        if (after == null) return
        info.addAction(AccessibilityNodeInfo.AccessibilityAction.ACTION_SCROLL_FORWARD)
        info.addAction(AccessibilityNodeInfo.AccessibilityAction.ACTION_SCROLL_BACKWARD)
        val percent = AccessibilityNodeInfo.RangeInfo.RANGE_TYPE_PERCENT
        info.rangeInfo = AccessibilityNodeInfo.RangeInfo.obtain(percent, 0f, 100f, (comparison.part * 100).toFloat())
    }

    override fun performAccessibilityAction(action: Int, arguments: Bundle?): Boolean {
        when (action) {
            AccessibilityNodeInfo.ACTION_SCROLL_FORWARD -> move(comparison.part + STEP)
            AccessibilityNodeInfo.ACTION_SCROLL_BACKWARD -> move(comparison.part - STEP)
            R.id.zoom_in -> zoom(ZOOM_STEP)
            R.id.zoom_out -> zoom(1 / ZOOM_STEP)
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

    private fun frame() = comparison.frame.run { RectF(left.toFloat(), top.toFloat(), right.toFloat(), bottom.toFloat()) }
}
