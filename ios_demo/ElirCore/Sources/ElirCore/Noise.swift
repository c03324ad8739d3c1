/// Seeded noise, equal to PyTorch's: `torch.randn(shape, generator=torch.Generator().manual_seed(seed))`.
///
/// Mersenne Twister (Matsumoto and Nishimura 1998, the reference `mt19937ar`), 24 bits of each word as a
/// uniform number, and Box-Muller in blocks of sixteen, as PyTorch's `normal_fill` does on the CPU.

import Foundation

/// The 32-bit Mersenne Twister.
public struct MersenneTwister {
    private static let words = 624
    private static let shift = 397

    private var state: [UInt32]
    private var next = MersenneTwister.words

    /// Only the low 32 bits of `seed` count, as in PyTorch.
    public init(seed: Int64) {
        state = [UInt32(truncatingIfNeeded: seed)]
        for i in 1..<UInt32(Self.words) {
            let last = state[Int(i) - 1]
            state.append(1_812_433_253 &* (last ^ (last >> 30)) &+ i)
        }
    }

    /// The next 32 bits.
    public mutating func bits() -> UInt32 {
        if next == Self.words { twist() }
        var word = state[next]
        next += 1
        word ^= word >> 11
        word ^= (word << 7) & 0x9d2c_5680
        word ^= (word << 15) & 0xefc6_0000
        return word ^ (word >> 18)
    }

    /// The next float32 in [0, 1): the low 24 bits.
    public mutating func uniform() -> Float { Float(bits() & 0xff_ffff) / 16_777_216 }

    private mutating func twist() {
        for i in 0..<Self.words {
            let word = (state[i] & 0x8000_0000) | (state[(i + 1) % Self.words] & 0x7fff_ffff)
            state[i] = state[(i + Self.shift) % Self.words] ^ (word >> 1) ^ (word & 1 == 0 ? 0 : 0x9908_b0df)
        }
        next = 0
    }
}

private let block = 16

/// `count` numbers of unit Gaussian noise that depend on nothing but `count` and `seed`.
///
/// - Precondition: `count` is at least 16: PyTorch draws fewer in another way, and no latent is that small.
public func seededNoise(count: Int, seed: Int64) -> [Float] {
    precondition(count >= block, "noise of \(count) numbers: at least \(block) are needed")
    var twister = MersenneTwister(seed: seed)
    var values = (0..<count).map { _ in twister.uniform() }
    for start in stride(from: 0, through: count - block, by: block) { boxMuller(&values, start) }
    if count % block != 0 {  // the last sixteen are drawn anew, over what is there
        for i in count - block..<count { values[i] = twister.uniform() }
        boxMuller(&values, count - block)
    }
    return values
}

private func boxMuller(_ values: inout [Float], _ start: Int) {
    for i in start..<start + block / 2 {
        let radius = (-2 * log(1 - Double(values[i]))).squareRoot()
        let angle = Double(Float(2 * Double.pi) * values[i + block / 2])  // PyTorch multiplies in float32
        values[i] = Float(radius * cos(angle))
        values[i + block / 2] = Float(radius * sin(angle))
    }
}
