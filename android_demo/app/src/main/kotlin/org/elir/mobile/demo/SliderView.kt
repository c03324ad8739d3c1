/** Before and after in one picture: a line to drag, the given picture left of it, the restored one right. */
package org.elir.mobile.demo

import android.content.Context
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Paint
import android.graphics.RectF
import android.util.AttributeSet
import android.view.MotionEvent
import android.view.View

class SliderView(context: Context, attributes: AttributeSet?) : View(context, attributes) {
    private var before: Bitmap? = null
    private var after: Bitmap? = null
    private var part = 0.5f // of the width that shows the given picture
    private val smooth = Paint(Paint.FILTER_BITMAP_FLAG)
    private val line = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        color = Color.WHITE
        strokeWidth = 2 * resources.displayMetrics.density
        setShadowLayer(strokeWidth, 0f, 0f, Color.BLACK)
    }
    private val handle = 10 * resources.displayMetrics.density

    init {
        setLayerType(LAYER_TYPE_SOFTWARE, null) // shadows of lines are drawn in software only
    }

    /** Show [before] alone, or both of them; they have one aspect ratio. */
    fun show(before: Bitmap?, after: Bitmap?) {
        if (this.before === before && this.after === after) return
        this.before = before
        this.after = after
        invalidate()
    }

    override fun onDraw(canvas: Canvas) {
        val given = before ?: return
        val frame = frame(given)
        canvas.drawBitmap(given, null, frame, smooth)
        val restored = after ?: return
        val x = frame.left + part * frame.width()
        canvas.save()
        canvas.clipRect(x, frame.top, frame.right, frame.bottom)
        canvas.drawBitmap(restored, null, frame, smooth)
        canvas.restore()
        canvas.drawLine(x, frame.top, x, frame.bottom, line)
        canvas.drawCircle(x, frame.centerY(), handle, line)
    }

    override fun onTouchEvent(event: MotionEvent): Boolean {
        val given = before ?: return false
        val frame = frame(given)
        part = ((event.x - frame.left) / frame.width()).coerceIn(0f, 1f)
        parent.requestDisallowInterceptTouchEvent(event.action != MotionEvent.ACTION_UP)
        if (event.action == MotionEvent.ACTION_UP) performClick()
        invalidate()
        return true
    }

    override fun performClick(): Boolean {
        super.performClick()
        return true
    }

    private fun frame(bitmap: Bitmap): RectF {
        val scale = minOf(width.toFloat() / bitmap.width, height.toFloat() / bitmap.height)
        val left = (width - bitmap.width * scale) / 2
        val top = (height - bitmap.height * scale) / 2
        return RectF(left, top, left + bitmap.width * scale, top + bitmap.height * scale)
    }
}
