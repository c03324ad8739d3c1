/// SHA-256 (FIPS 180-4), streamed, so that a file is never read whole.
///
/// CryptoKit has one, but only on Apple's systems; this one runs, and is tested, everywhere.

import Foundation

public struct SHA256 {
    /// First 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2).
    private static let constants: [UInt32] = [
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
    ]
    private static let blockBytes = 64

    /// First 32 bits of the fractional parts of the square roots of the first 8 primes (5.3.3).
    private var state: [UInt32] = [
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
    ]
    private var schedule = [UInt32](repeating: 0, count: 64)
    private var pending: [UInt8] = []  // less than a block
    private var length: UInt64 = 0  // bytes

    public init() {}

    /// Take in `bytes`, which go on from what was taken in before.
    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        length += UInt64(bytes.count)
        var rest = bytes[...]
        if !pending.isEmpty {
            let missing = min(Self.blockBytes - pending.count, rest.count)
            pending.append(contentsOf: rest.prefix(missing))
            rest = rest.dropFirst(missing)
            guard pending.count == Self.blockBytes else { return }
            let block = pending
            block.withUnsafeBytes { compress($0[...]) }
            pending.removeAll(keepingCapacity: true)
        }
        while rest.count >= Self.blockBytes {
            compress(rest.prefix(Self.blockBytes))
            rest = rest.dropFirst(Self.blockBytes)
        }
        pending.append(contentsOf: rest)
    }

    /// The digest of all that was taken in, as 64 hexadecimal digits.
    public consuming func finish() -> String {
        let bits = length * 8
        var padding = [UInt8](repeating: 0, count: (Self.blockBytes * 2 - 9 - pending.count) % Self.blockBytes + 1)
        padding[0] = 0x80
        padding += (0..<8).map { UInt8(truncatingIfNeeded: bits >> (56 - 8 * $0)) }
        padding.withUnsafeBytes { update($0) }
        return state.map { word in
            let digits = String(word, radix: 16)
            return String(repeating: "0", count: 8 - digits.count) + digits
        }.joined()
    }

    private mutating func compress(_ block: Slice<UnsafeRawBufferPointer>) {
        let base = UnsafeRawBufferPointer(rebasing: block)
        schedule.withUnsafeMutableBufferPointer { w in
            for i in 0..<16 {
                w[i] = UInt32(bigEndian: base.loadUnaligned(fromByteOffset: 4 * i, as: UInt32.self))
            }
            for i in 16..<64 {
                let a = w[i - 15], b = w[i - 2]
                let s0 = rotated(a, 7) ^ rotated(a, 18) ^ (a >> 3)
                let s1 = rotated(b, 17) ^ rotated(b, 19) ^ (b >> 10)
                w[i] = w[i - 16] &+ s0 &+ w[i - 7] &+ s1
            }
        }
        var (a, b, c, d) = (state[0], state[1], state[2], state[3])
        var (e, f, g, h) = (state[4], state[5], state[6], state[7])
        Self.constants.withUnsafeBufferPointer { k in
            schedule.withUnsafeBufferPointer { w in
                for i in 0..<64 {
                    let s1 = rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)
                    let t1 = h &+ s1 &+ ((e & f) ^ (~e & g)) &+ k[i] &+ w[i]
                    let s0 = rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)
                    let t2 = s0 &+ ((a & b) ^ (a & c) ^ (b & c))
                    (h, g, f, e) = (g, f, e, d &+ t1)
                    (d, c, b, a) = (c, b, a, t1 &+ t2)
                }
            }
        }
        for (i, word) in [a, b, c, d, e, f, g, h].enumerated() { state[i] &+= word }
    }
}

private func rotated(_ word: UInt32, _ places: UInt32) -> UInt32 { word >> places | word << (32 - places) }

/// SHA-256 of `bytes`.
public func sha256(of bytes: some ContiguousBytes) -> String {
    var digest = SHA256()
    bytes.withUnsafeBytes { digest.update($0) }
    return digest.finish()
}

/// SHA-256 of `values` as little-endian float32.
public func sha256(of values: [Float]) -> String {
    sha256(of: values.map { $0.bitPattern.littleEndian }.withUnsafeBytes { Data($0) })
}

/// SHA-256 of the file at `url`, read in pieces.
public func sha256(contentsOf url: URL) throws -> String {
    let file = try FileHandle(forReadingFrom: url)
    defer { try? file.close() }
    var digest = SHA256()
    while let piece = try file.read(upToCount: 1 << 20), !piece.isEmpty {
        piece.withUnsafeBytes { digest.update($0) }
    }
    return digest.finish()
}

/// SHA-256 of an artifact. Of a package folder: over its files' relative names and digests, as
/// `elir_mobile/bundle.py:artifact_sha256`.
public func artifactSHA256(_ url: URL) throws -> String {
    guard isFolder(url) else { return try sha256(contentsOf: url) }
    let names = try FileManager.default.subpathsOfDirectory(atPath: url.path)
        .filter { !isFolder(url.appendingPathComponent($0)) }
        .sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    let lines = try names.map { try "\(sha256(contentsOf: url.appendingPathComponent($0)))  \($0)\n" }
    return sha256(of: Data(lines.joined().utf8))
}

private func isFolder(_ url: URL) -> Bool {
    var folder: ObjCBool = false
    return FileManager.default.fileExists(atPath: url.path, isDirectory: &folder) && folder.boolValue
}
