/// The digests that NIST publishes for SHA-256 (FIPS 180-2, appendix B; CAVP byte-oriented short messages).

import ElirCore
import XCTest

final class SHA256Tests: XCTestCase {
    private let vectors = [
        "": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq":
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu":
            "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1",
    ]

    func testDigestsOfNIST() {
        for (text, digest) in vectors { XCTAssertEqual(sha256(of: Data(text.utf8)), digest, text) }
    }

    func testAMillionLettersInPiecesOfEveryLength() {
        let letters = [UInt8](repeating: UInt8(ascii: "a"), count: 1_000_000)
        var digest = SHA256()
        var (start, length) = (0, 0)
        while start < letters.count {
            let stop = min(start + length, letters.count)
            letters[start..<stop].withUnsafeBytes { digest.update($0) }
            (start, length) = (stop, length + 1)
        }
        XCTAssertEqual(digest.finish(), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0")
    }

    func testPaddingAtEveryLengthAroundABlock() {
        // Digest of the digests of 0 to 129 zeros, computed with Python's hashlib.
        let digests = (0..<130).map { sha256(of: Data(count: $0)) }.joined()
        XCTAssertEqual(
            sha256(of: Data(digests.utf8)), "914e28f3bcba36351cc83a523f3ecdae91d5d2ab1d5409e8eb593aa76ad53f18")
    }

    func testFloatsAreHashedAsLittleEndianBytes() {
        XCTAssertEqual(sha256(of: [1, -2.5] as [Float]), sha256(of: Data([0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0])))
    }
}
