/// Faces are aligned, judged and put back as the Python package does on its golden photographs.

import ElirCore
import XCTest

final class FaceTests: XCTestCase {
    private let accuracy = 1e-5

    func testFacesAreAlignedJudgedAndPutBackAsThePackageDoes() throws {
        let scenes = try Fixtures.index().faces
        XCTAssertGreaterThanOrEqual(scenes.filter { !$0.faces.isEmpty }.count, 12)
        XCTAssertGreaterThanOrEqual(scenes.filter { $0.background != nil }.count, 3)
        for scene in scenes {
            let faces = scene.faces.map { Face(points: $0.points.map { Point($0[0], $0[1]) }) }
            for (face, entry) in zip(faces, scene.faces) {
                let map = Similarity(aligning: face.points, size: scene.square)
                let ours = [map.re, -map.im, map.dx, map.im, map.re, map.dy]
                for (a, b) in zip(ours, entry.matrix.flatMap { $0 }) { XCTAssertEqual(a, b, accuracy: accuracy) }
                XCTAssertEqual(face.side, entry.side, accuracy: accuracy)
                XCTAssertEqual(map(face.middle).x, Double(scene.square) / 2, accuracy: accuracy)
            }
            let photo = try scene.photo.picture()
            let wanted = WantedFaces(all: scene.all_faces, margin: scene.margin)
            let (out, treated) = try photo.restoringFaces(faces, size: scene.square, wanted: wanted) { number, square in
                assertNear(square, try scene.faces[number].given.picture(), scene.photo.path)
                return try scene.faces[number].made.picture()
            }
            for (face, entry) in zip(treated, scene.faces) {
                XCTAssertEqual(face.restored, entry.restored, scene.photo.path)
                XCTAssertEqual(try XCTUnwrap(face.detail), entry.detail, accuracy: 1e-3)
                XCTAssertEqual(try XCTUnwrap(face.agreement), entry.agreement, accuracy: 1e-3)
            }
            assertNear(out, try scene.output.picture(), scene.photo.path)
            if !treated.contains(where: \.restored) { XCTAssertEqual(out, photo) }
            if let background = scene.background {
                let (set, _) = try photo.restoringFaces(
                    faces, size: scene.square, wanted: wanted, background: background.canvas.picture()
                ) { number, _ in try scene.faces[number].made.picture() }
                assertNear(set, try background.output.picture(), background.output.path)
            }
        }
    }

    func testAFaceThatIsSwitchedOffIsLeftAloneAndNotPaintedOver() throws {
        let scene = try XCTUnwrap(Fixtures.index().faces.first { $0.faces.count == 2 })
        let photo = try scene.photo.picture()
        let faces = scene.faces.map { Face(points: $0.points.map { Point($0[0], $0[1]) }) }
        let (size, grey) = (scene.square, [UInt8](repeating: 127, count: scene.square * scene.square * colours))
        var asked: [Int] = []
        let wanted = WantedFaces(all: true, left: [1])
        let (out, treated) = photo.restoringFaces(faces, size: size, wanted: wanted) { number, _ in
            asked.append(number)
            return Picture(width: size, height: size, pixels: grey)
        }
        XCTAssertEqual(asked, [0])
        XCTAssertEqual(treated.map(\.restored), [true, false])
        func pixel(_ picture: Picture, _ place: Point) -> UInt8 {
            picture.pixels[(Int(place.y) * picture.width + Int(place.x)) * colours]
        }
        XCTAssertEqual(pixel(out, faces[0].points[2]), 127)
        for point in faces[1].points { XCTAssertEqual(pixel(out, point), pixel(photo, point)) }
        let untouched = photo.restoringFaces(faces, size: size, wanted: WantedFaces(left: [0, 1])) { _, square in square
        }
        XCTAssertEqual(untouched.picture, photo)
    }

    func testPointsComeFromOutlinesWhicheverEyeIsCalledLeftAndHoweverTheFaceIsTurned() {
        for angle in [0.0, 0.4, -2.5, .pi] {
            func turned(_ x: Double, _ y: Double) -> Point {
                Point(50 + x * cos(angle) - y * sin(angle), 60 + x * sin(angle) + y * cos(angle))
            }
            let leftEye = [turned(-12, -10), turned(-8, -10)]
            let rightEye = [turned(8, -11), turned(12, -9)]
            let ridge = [turned(0, -9), turned(0.5, 2), turned(0, -3)]
            let lips = [turned(-7, 12), turned(0, 9), turned(7, 12), turned(0, 15)]
            let expected = [turned(-10, -10), turned(10, -10), turned(0.5, 2), turned(-7, 12), turned(7, 12)]
            for eyes in [[leftEye, rightEye], [rightEye, leftEye]] {
                for (found, wanted) in zip(Face(eyes: eyes, ridge: ridge, lips: lips).points, expected) {
                    XCTAssertEqual(found.x, wanted.x, accuracy: accuracy)
                    XCTAssertEqual(found.y, wanted.y, accuracy: accuracy)
                }
            }
        }
    }
}
