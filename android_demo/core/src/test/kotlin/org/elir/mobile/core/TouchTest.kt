/** The comparison zooms where the fingers are, and leaves to the screen around it what is not its own. */
package org.elir.mobile.core

import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test

private const val NEAR = 1e-9

class TouchTest {
    private val view = Comparison(slop = 10.0, reach = 24.0).apply {
        width = 400.0
        height = 600.0
        aspect = 2.0
        compares = true
    }

    private fun finger(x: Double, y: Double) = listOf(Point(x, y))

    @Test
    fun allOfThePictureIsInTheMiddleOfTheView() {
        assertEquals(Frame(0.0, 200.0, 400.0, 200.0), view.frame)
        view.aspect = 0.5
        assertEquals(Frame(50.0, 0.0, 300.0, 600.0), view.frame)
        assertEquals(200.0, view.line, NEAR)
    }

    @Test
    fun oneFingerDragsTheLineSidewaysAndLeavesScrollingToOthers() {
        view.down(100.0, 300.0)
        assertFalse(view.moved(finger(105.0, 302.0)))
        assertTrue(view.moved(finger(140.0, 305.0)))
        assertEquals(140.0, view.line, NEAR)
        assertTrue(view.moved(finger(-50.0, 500.0))) // once it is a drag it stays one
        assertEquals(0.0, view.part, NEAR)
        assertFalse(view.up())
        view.down(100.0, 300.0)
        assertFalse(view.moved(finger(104.0, 340.0)))
        assertFalse(view.moved(finger(300.0, 340.0))) // nor does scrolling become a drag
        assertEquals(0.0, view.part, NEAR)
        view.compares = false
        view.down(100.0, 300.0)
        assertFalse(view.moved(finger(200.0, 300.0)))
    }

    @Test
    fun whatIsBetweenTheFingersStaysThere() {
        val before = view.frame
        view.down(100.0, 250.0)
        view.fingers(listOf(Point(100.0, 250.0), Point(200.0, 250.0)))
        assertTrue(view.moved(listOf(Point(50.0, 250.0), Point(250.0, 250.0))))
        assertEquals(2.0, view.zoom.scale, NEAR)
        val after = view.frame
        assertEquals((150 - before.left) / before.width, (150 - after.left) / after.width, NEAR)
        // 400 pixels high it does not fill the view: it stays in the middle.
        assertEquals(100.0, after.top, NEAR)
        view.moved(listOf(Point(150.0, 250.0), Point(150.5, 250.0)))
        assertEquals(1.0, view.zoom.scale, NEAR)
        assertEquals(before, view.frame)
    }

    @Test
    fun aZoomedPictureIsDraggedAsFarAsItsEdges() {
        view.doubleTapped(200.0, 300.0)
        assertEquals(3.0, view.zoom.scale, NEAR)
        assertEquals(Frame(-400.0, 0.0, 1200.0, 600.0), view.frame)
        view.down(50.0, 300.0)
        assertTrue(view.moved(finger(150.0, 300.0)))
        assertEquals(-300.0, view.frame.left, NEAR)
        view.moved(finger(5000.0, 300.0))
        assertEquals(0.0, view.frame.left, NEAR)
        view.moved(finger(4990.0, 300.0)) // what went beyond the edge need not be dragged back
        assertEquals(-10.0, view.frame.left, NEAR)
        view.up()
        view.doubleTapped(10.0, 10.0)
        assertEquals(Zoom(), view.zoom)
    }

    @Test
    fun inAZoomedPictureTheLineIsDraggedWhereItIs() {
        view.doubleTapped(200.0, 300.0)
        val frame = view.frame
        view.down(210.0, 100.0)
        assertEquals(Gesture.LINE, view.gesture)
        assertTrue(view.moved(finger(300.0, 100.0)))
        assertEquals(300.0, view.line, NEAR)
        assertEquals(0.75, view.part, NEAR) // of what is seen
        assertEquals(frame, view.frame)
    }

    @Test
    fun aSecondFingerZoomsAndTheOneThatStaysDragsOn() {
        view.doubleTapped(200.0, 300.0)
        view.down(50.0, 300.0)
        view.fingers(listOf(Point(50.0, 300.0), Point(150.0, 300.0)))
        view.moved(listOf(Point(50.0, 300.0), Point(170.0, 300.0)))
        val scale = view.zoom.scale
        assertEquals(3.6, scale, NEAR)
        view.fingers(finger(170.0, 300.0)) // no jump, though the middle is elsewhere
        val left = view.frame.left
        assertTrue(view.moved(finger(175.0, 300.0)))
        assertEquals(left + 5, view.frame.left, NEAR)
        assertEquals(scale, view.zoom.scale, NEAR)
        assertFalse(view.up())
        view.reset()
        assertEquals(Zoom(), view.zoom)
    }

    @Test
    fun aTapIsNoMoveAndPutsTheLineThere() {
        view.down(300.0, 300.0)
        view.moved(finger(303.0, 305.0))
        assertTrue(view.up())
        view.tapped(300.0)
        assertEquals(0.75, view.part, NEAR)
        repeat(20) { view.zoomed(2.0) }
        assertEquals(MOST_ZOOM, view.zoom.scale, NEAR)
        repeat(20) { view.zoomed(0.5) }
        assertEquals(1.0, view.zoom.scale, NEAR)
    }

    @Test
    fun workThatWaitsIsDoneInOrderAndOnce() {
        val waiting = Waiting<Int>()
        assertNull(waiting.next())
        waiting.add("open", 1)
        waiting.add("faces", 2)
        waiting.add("open", 3)
        assertEquals(listOf("open", "faces"), waiting.names)
        assertEquals(listOf(3, 2, null), List(3) { waiting.next() })
    }
}
