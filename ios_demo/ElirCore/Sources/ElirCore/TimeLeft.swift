/// How long work that is under way will still take.

/// Tells from the last reports of it, so that it follows a phone that gets warm and a second network of the same work.
public struct TimeLeft: Sendable {
    private static let kept = 30  // reports
    private static let least = 2.0  // seconds between the first and the last, before anything is said
    private var reports: [(part: Double, seconds: Double)] = []

    public init() {}

    /// Seconds until all is done; nil: too little was seen to say.
    ///
    /// - Parameters:
    ///   - part: of the work that is done, 0 to 1.
    ///   - seconds: that a clock shows now.
    public mutating func report(_ part: Double, at seconds: Double) -> Double? {
        if let last = reports.last, part < last.part { reports = [] }
        reports.append((part, seconds))
        if reports.count > Self.kept { reports.removeFirst() }
        let (done, spent) = (part - reports[0].part, seconds - reports[0].seconds)
        return done > 0 && spent >= Self.least ? spent / done * (1 - part) : nil
    }

    /// `seconds` for people.
    public static func text(_ seconds: Double) -> String {
        seconds < 90 ? "\(Int(seconds.rounded(.up))) s left" : "\(Int((seconds / 60).rounded(.up))) min left"
    }
}
