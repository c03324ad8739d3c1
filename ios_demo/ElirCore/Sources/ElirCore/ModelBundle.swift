/// Reading a bundle: `manifest.json`, the table of time biases, the exported files and the golden vectors.
///
/// A reader trusts nothing: schema, paths and SHA-256 of every file are verified before use, as
/// `elir_mobile/bundle.py` does, whose format this is.

import Foundation

private let schemaVersion = 2
private let manifestName = "manifest.json"

/// What the host measured, and the least a device must reach, in dB. No host value: it was exact.
public struct Budget: Decodable, Equatable, Sendable {
    public let hostDB: Double?
    public let budgetDB: Double

    enum CodingKeys: String, CodingKey {
        case hostDB = "host_db"
        case budgetDB = "budget_db"
    }
}

/// One exported file of a bundle.
public struct Artifact: Decodable, Hashable, Identifiable, Sendable {
    public let path: String
    public let sha256: String
    public let bytes: Int
    public let target: String
    public let precision: String
    /// For each of ``Output`` by its name; empty where the bundle has none.
    public let parity: [String: Budget]

    public var id: String { path }

    enum CodingKeys: CodingKey {
        case path, sha256, bytes, target, precision, parity
    }

    public init(from decoder: Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        path = try values.decode(String.self, forKey: .path)
        sha256 = try values.decode(String.self, forKey: .sha256)
        bytes = try values.decode(Int.self, forKey: .bytes)
        target = try values.decode(String.self, forKey: .target)
        precision = try values.decode(String.self, forKey: .precision)
        parity = try values.decodeIfPresent([String: Budget].self, forKey: .parity) ?? [:]
    }

    public static func == (a: Artifact, b: Artifact) -> Bool { (a.path, a.sha256) == (b.path, b.sha256) }

    public func hash(into hasher: inout Hasher) { hasher.combine(path) }
}

/// What the manifest says of the task.
public struct RestorationTask: Sendable {
    public let name: String
    /// For people.
    public let title: String
    /// What the network was trained on, as `aligned-face` or `photo`; nil: the manifest does not say.
    public let domain: String?
    /// How many times larger the restored picture is than the given one.
    public let upscale: Int
    /// How the given picture gets that large before it is restored.
    public let enlarge: ResampleFilter
    /// Whether the restored picture takes its low frequencies of colour from the given one, unless that is not wished.
    public let keepsColors: Bool
    /// Whether a grey picture stays grey, unless that is not wished.
    public let keepsGrey: Bool
}

/// What golden vectors are held against: each program on its own golden input, and the whole loop.
public enum Output: String, CaseIterable, Sendable {
    case encode, step, decode, image
}

/// Names of the golden arrays, see `elir_mobile/bundle.py`.
public enum Golden: String, CaseIterable, Sendable {
    case input, noise, coarse, step, latent, output
}

/// A verified bundle.
public struct ModelBundle: Identifiable, Sendable {
    public let folder: URL
    public let task: RestorationTask
    public let modelName: String
    /// Whether the weights were trained; random ones say nothing of quality.
    public let trained: Bool
    /// Side of the square that the programs take, pixels.
    public let size: Int
    /// K.
    public let steps: Int
    /// Spread of the noise added to the coarse latent.
    public let sigmaS: Float
    /// The time biases, ``steps`` rows of equal width.
    public let table: [[Float]]
    public let artifacts: [Artifact]
    /// Whether it restores the faces of photographs where they are: its manifest has a face detector.
    public let findsFaces: Bool
    /// Channels of the widest full-resolution layer; 64 in the released models.
    public let width: Int
    private let latentChannels: Int
    /// Path of the file for each kind of device.
    private let recommendation: [String: String]
    /// Why that one, a sentence for each kind.
    private let reasons: [String: String]
    /// Seed of the golden noise; none without golden vectors.
    public let goldenSeed: Int64?
    private let golden: [String: ArrayEntry]

    public var id: String { folder.lastPathComponent }

    /// Open the bundle in `folder` and verify all of it.
    ///
    /// - Parameter advance: told (bytes verified, bytes in all) after each file.
    /// - Throws: ``ElirError``: missing, damaged, too new, or naming a path outside itself.
    public init(folder: URL, advance: (Int, Int) throws -> Void = { _, _ in }) throws {
        self.folder = folder
        let place = folder.appendingPathComponent(manifestName)
        guard FileManager.default.fileExists(atPath: place.path) else {
            let name = folder.lastPathComponent
            throw ElirError(.missing, "\(name) is not a bundle: it has no \(manifestName)")
        }
        let manifest: Manifest
        do {
            let data = try Data(contentsOf: place)
            let version = try JSONDecoder().decode(Version.self, from: data).schema_version
            guard version <= schemaVersion else {
                throw ElirError(
                    .tooNew,
                    "\(folder.lastPathComponent) was made by a newer elir-mobile (bundle schema \(version), "
                        + "this app reads \(schemaVersion)): update this app")
            }
            guard version >= 1 else { throw damaged(folder, "its schema is \(version)") }
            manifest = try JSONDecoder().decode(Manifest.self, from: data)
            // Schema 1 has the task's name alone: its pictures are restored as large as they are.
            if version == 1 {
                task = RestorationTask(
                    name: manifest.task, title: manifest.task, domain: nil, upscale: 1, enlarge: .nearest,
                    keepsColors: false, keepsGrey: false)
            } else {
                let facts = try JSONDecoder().decode(TaskFacts.self, from: data)
                task = RestorationTask(
                    name: manifest.task, title: facts.title, domain: facts.domain, upscale: facts.upscale,
                    enlarge: facts.enlarge, keepsColors: facts.keep_colors ?? false,
                    keepsGrey: facts.keep_grey ?? facts.keep_colors ?? false)
            }
        } catch let error as ElirError {
            throw error
        } catch {
            throw damaged(folder, "its \(manifestName) cannot be read")
        }
        modelName = manifest.model.name
        trained = manifest.model.trained ?? false
        size = manifest.size
        steps = manifest.steps
        sigmaS = manifest.sigma_s
        artifacts = manifest.files
        findsFaces = manifest.detector != nil
        golden = manifest.golden?.arrays ?? [:]
        goldenSeed = manifest.golden?.seed
        let architecture = manifest.model.architecture
        width = max(architecture?.enc_width ?? 64, architecture?.dec_width ?? 64)
        latentChannels = architecture?.latent_channels ?? 16
        recommendation = manifest.recommendation ?? [:]
        reasons = manifest.reasons ?? [:]
        guard task.upscale > 0 else { throw damaged(folder, "it enlarges \(task.upscale) times") }
        guard size > 0, size % downscale == 0, size % task.upscale == 0, size <= 1 << 14 else {
            throw damaged(folder, "its size is \(size)")
        }

        try Self.verify(
            folder: folder,
            checks: [(manifest.table.path, manifest.table.sha256)]
                + (manifest.detector.map { [$0.files.detect, $0.files.mesh] } ?? []).map { ($0.path, $0.sha256) }
                + golden.values.map { ($0.path, $0.sha256) }.sorted { $0.0 < $1.0 }
                + artifacts.map { ($0.path, $0.sha256) },
            advance: advance)
        guard manifest.table.shape.count == 2, manifest.table.shape[0] == steps, steps > 0 else {
            throw damaged(folder, "its table has not the shape of \(steps) steps")
        }
        let values = try readFloats(manifest.table, in: folder)
        let row = manifest.table.shape[1]
        table = (0..<steps).map { Array(values[$0 * row..<($0 + 1) * row]) }
    }

    /// Shape of the latent of one tile: channels, rows, columns.
    public var latentShape: [Int] { [latentChannels, size / downscale, size / downscale] }

    /// The file that the manifest advises a device of `kind` to run; nil: none that is here.
    public func recommended(for kind: String) -> Artifact? { artifacts.first { $0.path == recommendation[kind] } }

    /// Why that one, in a sentence; nil: the manifest does not say.
    public func reason(for kind: String) -> String? { reasons[kind] }

    /// Where `artifact` lies.
    public func url(of artifact: Artifact) -> URL { folder.appendingPathComponent(artifact.path) }

    /// Whether the bundle has all golden vectors.
    public var hasGolden: Bool { Golden.allCases.allSatisfy { golden[$0.rawValue] != nil } }

    /// A golden array as float32. Pictures, stored as (H, W, 3) bytes, come as (3, H, W) in [0, 1].
    ///
    /// - Throws: ``ElirError``: the array is missing, or not of the bundle's shape.
    public func golden(_ array: Golden) throws -> [Float] {
        if array == .input || array == .output { return try goldenPicture(array).tile(Square(0, 0, size)) }
        let entry = try goldenEntry(array)
        guard entry.shape.reduce(1, multiplied) == latentShape.reduce(1, multiplied) else {
            throw damaged(folder, "the golden '\(array.rawValue)' has not the shape of a latent")
        }
        return try readFloats(entry, in: folder)
    }

    /// The golden ``Golden/input`` or ``Golden/output`` as a picture of ``size`` × ``size`` pixels.
    public func goldenPicture(_ array: Golden) throws -> Picture {
        let entry = try goldenEntry(array)
        guard entry.shape == [size, size, colours], let data = try? Data(contentsOf: entry.url(in: folder)),
            data.count == size * size * colours
        else { throw damaged(folder, "the golden '\(array.rawValue)' is no picture of \(size) pixels") }
        return Picture(width: size, height: size, pixels: [UInt8](data))
    }

    private func goldenEntry(_ array: Golden) throws -> ArrayEntry {
        guard let entry = golden[array.rawValue] else {
            throw damaged(folder, "it has no golden array '\(array.rawValue)'")
        }
        return entry
    }

    /// Folders with a manifest below `parent`, by name. They are not verified yet.
    public static func folders(in parent: URL) -> [URL] {
        let inside = try? FileManager.default.contentsOfDirectory(at: parent, includingPropertiesForKeys: nil)
        return (inside ?? [])
            .filter { FileManager.default.fileExists(atPath: $0.appendingPathComponent(manifestName).path) }
            .sorted { $0.lastPathComponent < $1.lastPathComponent }
    }

    private static func verify(
        folder: URL, checks: [(path: String, sha256: String)], advance: (Int, Int) throws -> Void
    ) throws {
        let root = folder.resolvingSymlinksInPath().standardizedFileURL.path + "/"
        var places: [(path: String, sha256: String, url: URL)] = []
        for (path, sha256) in checks {
            let url = folder.appendingPathComponent(path).standardizedFileURL.resolvingSymlinksInPath()
            guard !path.hasPrefix("/"), !path.split(separator: "/").contains(".."), url.path.hasPrefix(root) else {
                throw ElirError(
                    .outside,
                    "\(folder.lastPathComponent) names \(path), which is outside the bundle: write it again")
            }
            places.append((path, sha256, url))
        }
        let sizes = places.map { bytes(of: $0.url) }
        var done = 0
        for (place, size) in zip(places, sizes) {
            guard let digest = try? artifactSHA256(place.url), digest == place.sha256 else {
                throw damaged(folder, "\(place.path) is missing or damaged")
            }
            done += size
            try advance(done, sizes.reduce(0, +))
        }
    }

    private static func bytes(of url: URL) -> Int {
        let inside = (try? FileManager.default.subpathsOfDirectory(atPath: url.path)) ?? []
        return ([url] + inside.map(url.appendingPathComponent)).reduce(0) { sum, file in
            let facts = try? FileManager.default.attributesOfItem(atPath: file.path)
            return sum + (facts?[.type] as? FileAttributeType == .typeRegular ? facts?[.size] as? Int ?? 0 : 0)
        }
    }
}

private func multiplied(_ a: Int, _ b: Int) -> Int { a.multipliedReportingOverflow(by: b).partialValue }

private struct Version: Decodable {
    let schema_version: Int
}

private struct Manifest: Decodable {
    struct Model: Decodable {
        struct Architecture: Decodable {
            let enc_width: Int?
            let dec_width: Int?
            let latent_channels: Int?
        }
        let name: String
        let trained: Bool?
        let architecture: Architecture?
    }
    struct GoldenArrays: Decodable {
        let seed: Int64
        let arrays: [String: ArrayEntry]
    }
    struct Detector: Decodable {
        struct File: Decodable {
            let path: String
            let sha256: String
        }
        struct Files: Decodable {
            let detect: File
            let mesh: File
        }
        let files: Files
    }
    let task: String
    let model: Model
    let size: Int
    let steps: Int
    let sigma_s: Float
    let table: ArrayEntry
    let golden: GoldenArrays?
    let files: [Artifact]
    let detector: Detector?
    let recommendation: [String: String]?
    let reasons: [String: String]?
}

/// The manifest's further entries on the task, since schema 2.
private struct TaskFacts: Decodable {
    let title: String
    let domain: String
    let upscale: Int
    let enlarge: ResampleFilter
    let keep_colors: Bool?
    let keep_grey: Bool?
}

/// Where a raw little-endian array lies.
private struct ArrayEntry: Decodable, Sendable {
    let path: String
    let sha256: String
    let shape: [Int]

    func url(in folder: URL) -> URL { folder.appendingPathComponent(path) }
}

private func damaged(_ folder: URL, _ what: String) -> ElirError {
    ElirError(.damaged, "\(folder.lastPathComponent) is damaged: \(what); copy or write the bundle again")
}

private func readFloats(_ entry: ArrayEntry, in folder: URL) throws -> [Float] {
    let count = entry.shape.reduce(1, multiplied)
    guard entry.shape.allSatisfy({ $0 > 0 }), let data = try? Data(contentsOf: entry.url(in: folder)),
        data.count % 4 == 0, data.count / 4 == count
    else { throw damaged(folder, "\(entry.path) does not have the \(count) values of its shape") }
    return floats(littleEndian: data)
}

/// The float32 values that `data` holds in little-endian order.
public func floats(littleEndian data: Data) -> [Float] {
    data.withUnsafeBytes { bytes in
        (0..<bytes.count / 4).map {
            Float(bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self)))
        }
    }
}
